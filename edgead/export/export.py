"""`edgead export`: from a finished run to a bundle that proves itself."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import edgead
from edgead.bundle import FORMAT, MODEL, Bundle, Golden, Manifest, is_bundle, write_bundle
from edgead.console import Console
from edgead.datasets import Frames, load_frames
from edgead.decision import conformal_threshold
from edgead.errors import CheckpointError, DataError
from edgead.export.graph_rules import warn_of_refusals
from edgead.export.parity import check_parity, run_reference
from edgead.export.to_onnx import write_onnx
from edgead.files import atomic_folder
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgead.train import checkpoint
from edgead.train.checkpoint import RunConfig
from edgead.train.method import Method

PARITY_FRAMES = 12
"""Held-out images on which graph and network are compared, beside as many synthetic anomalies."""


def find_run(method: str, category: str | None = None, root: Path = Path("runs/train")) -> Path:
    """Return the newest finished run of a method.

    Raises:
        CheckpointError: there is none.
    """
    found = checkpoint.find_runs(root, method, finished=True, category=category)
    if not found:
        what = f"{method} on '{category}'" if category else method
        raise CheckpointError(
            f"There is no finished run of {what} in {root}.\n"
            f"Train one with:  edgead train --method {method} --data DIR   (or name one with --checkpoint)"
        )
    return found[0]


def find_runs_of_all(method: str, root: Path = Path("runs/train")) -> list[Path]:
    """Return the newest finished run of a method on each category, sorted by category.

    Raises:
        CheckpointError: there is none.
    """
    find_run(method, None, root)
    newest: dict[str, Path] = {}
    for folder in checkpoint.find_runs(root, method, finished=True):
        newest.setdefault(checkpoint.load_run_config(folder).category, folder)
    return [newest[category] for category in sorted(newest)]


def export(
    run_folder: str | Path,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    false_reject: float = 0.01,
    console: Console | None = None,
) -> Bundle:
    """Write a run's model as a bundle.

    The graph is compared with the trained network on held-out images and synthetic anomalies; the threshold is fitted
    to the graph's scores of the held-out images.

    Args:
        run_folder: a finished run.
        data: where the training data is now, if it has moved.
        out: the bundle's folder; ``runs/export/RUN.edgead`` by default. A bundle that is there is replaced.
        false_reject: wanted bound on the share of good parts that fail.
        console: what shows progress.

    Raises:
        GateError: the graph differs from the network.
        EdgeadError: see `edgead.errors`.
    """
    run_folder, console = Path(run_folder), console or Console()
    run, method = checkpoint.load_method(run_folder)
    path = Path(out) if out else Path("runs", "export", run_folder.resolve().name + ".edgead")
    if path.exists() and not is_bundle(path):
        raise DataError(f"{path} exists and is not a bundle, or holds other files too; choose another --out.")
    held_out = _load_held_out(run, Path(data or run.data), console)
    rng = np.random.default_rng((run.seed, 0x60D))
    count = min(len(held_out.frames), PARITY_FRAMES)
    no_textures = np.empty((0, *held_out.frames.shape[1:]), np.uint8)
    anomalies = [method.example(held_out.frames, no_textures, rng)["frame"] for _ in range(count)]
    probes = np.concatenate([held_out.frames[:count], np.stack(anomalies)])
    with atomic_folder(path) as folder:
        console.say("tracing the network to ONNX")
        size = (held_out.frames.shape[1], held_out.frames.shape[2])
        write_onnx(method.deployable(), size, folder / MODEL)
        warn_of_refusals(folder / MODEL, console)
        engine = OnnxRuntimeEngine(folder / MODEL)
        console.say(f"comparing graph and network on {len(probes)} frames")
        reference = run_reference(method.detector(), probes)
        parity = check_parity(reference, *_run(engine, probes, Console()))
        scores, maps = _run(engine, held_out.frames, console)
        threshold = conformal_threshold(scores, false_reject)
        peaks = conformal_threshold(maps.max(axis=(1, 2)), false_reject)
        shown = [0, min(1, count - 1), count, min(count + 1, 2 * count - 1)]
        manifest = Manifest(
            format=FORMAT,
            name=path.name.removesuffix(".edgead"),
            method=run.method,
            preset=run.preset,
            config=run.config,
            category=run.category,
            input={"height": size[0], "width": size[1], "bit_depth": run.bit_depth},
            precision="fp32",
            threshold={
                **dataclasses.asdict(threshold),
                # Kept so that `--threshold fpr:…` can choose anew beside the line, also where only a region counts.
                "scores": np.sort(scores).tolist(),
                "peaks": np.sort(maps.max(axis=(1, 2))).tolist(),
            },
            mask_threshold=peaks.value,
            parity=dataclasses.asdict(parity),
            data={"fingerprint": run.fingerprint, "held_out_fingerprint": held_out.fingerprint},
            training=_training(run, method),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            edgead=edgead.__version__,
        )
        golden = Golden(probes[shown], reference.scores[shown], reference.maps[shown])
        manifest = write_bundle(folder, manifest, golden)
    console.say(f"graph and network differ by at most {parity.largest:.2g} (allowed {parity.tolerance:.2g})")
    console.say(threshold.describe())
    console.say(f"Exported: {path}")
    return Bundle(path, manifest)


def _load_held_out(run: RunConfig, root: Path, console: Console) -> Frames:
    if (root / run.category).is_dir() and not (root / run.held_out[0]).exists():
        root = root / run.category  # --data names the folder of several categories
    paths = [root / name for name in run.held_out]
    absent = [path for path in paths if not path.is_file()]
    if absent:
        raise DataError(
            f"{len(absent)} of the {len(paths)} held-out images of this run are not there, for instance {absent[0]}.\n"
            "They set the threshold. If the data has moved, say where it is with --data DIR."
        )
    frames = load_frames(paths, tuple(run.config["size"]), run.bit_depth, console.track("reading held-out images"))
    if frames.fingerprint != run.held_out_fingerprint:
        raise DataError(
            f"The held-out images in {root} are not those that this run was started with (names or contents differ).\n"
            "They set the threshold. Say where the right ones are with --data DIR, or train again."
        )
    return frames


def _run(
    engine: OnnxRuntimeEngine, frames: NDArray[np.uint8], console: Console
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    outputs = [engine.infer(frames[index : index + 1]) for index in console.track("scoring")(range(len(frames)))]
    return np.concatenate([scores for scores, _ in outputs]), np.concatenate([maps for _, maps in outputs])


def _training(run: RunConfig, method: Method) -> dict[str, object]:
    steps = method.config.total_steps(len(run.normals))
    return {
        "seed": run.seed,
        "steps": steps,
        "images": len(run.normals),
        "precision": run.precision,
        "created": run.created,
        "versions": run.versions,
    }
