"""`edgead export`: from a finished run to a bundle that proves itself."""

from __future__ import annotations

import dataclasses
import shutil
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import edgead
from edgead.bundle import FORMAT, MODEL, Bundle, Golden, Manifest, is_bundle, write_bundle
from edgead.console import Console
from edgead.datasets import Frames, load_frames, open_category
from edgead.decision import Threshold
from edgead.errors import CheckpointError, ConfigError, DataError
from edgead.export.calibration import Calibration
from edgead.export.choose import Exported, Trial, choose, thresholds
from edgead.export.gate import Budget, read_labelled
from edgead.export.gate import run as run_engine
from edgead.export.graph_rules import warn_of_refusals
from edgead.export.parity import check_parity, run_reference
from edgead.export.precision import PRECISIONS
from edgead.export.to_onnx import write_onnx
from edgead.files import atomic_folder
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgead.train import checkpoint
from edgead.train.checkpoint import RunConfig
from edgead.train.method import Method

PARITY_FRAMES = 12
"""Held-out images on which graph and network are compared, beside as many synthetic anomalies."""
SYNTHETIC = 40
"""Synthetic anomalies that the gate judges on."""
_THRESHOLD = [field.name for field in dataclasses.fields(Threshold)]


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
    precision: str = "fp32",
    calibration: Calibration | None = None,
    budget: Budget | None = None,
    console: Console | None = None,
) -> Bundle:
    """Write a run's model as a bundle.

    The graph is compared with the trained network on held-out images and synthetic anomalies; the threshold is fitted
    to the graph's scores of the held-out images. A graph of lower precision has to pass the gate, docs/precision.md.

    Args:
        run_folder: a finished run.
        data: where the data is now, if it has moved. With labelled test images in it, the gate judges on them too.
        out: the bundle's folder; ``runs/export/RUN.edgead`` by default. A bundle that is there is replaced.
        false_reject: wanted bound on the share of good parts that fail.
        precision: one of `edgead.export.precision.PRECISIONS`, or ``"auto"``: the fastest on this machine's engines of
            those that pass the gate.
        calibration: what INT8 is scaled on.
        budget: what the gate allows.
        console: what shows progress.

    Raises:
        GateError: the graph differs from the network, or the precision does not pass the gate.
        EdgeadError: see `edgead.errors`.
    """
    if precision not in (*PRECISIONS, "auto"):
        raise ConfigError(f"There is no precision '{precision}'. There is: {', '.join(PRECISIONS)}, auto.")
    run_folder, console = Path(run_folder), console or Console()
    run, method = checkpoint.load_method(run_folder)
    path = Path(out) if out else Path("runs", "export", run_folder.resolve().name + ".edgead")
    if path.exists() and not is_bundle(path):
        raise DataError(f"{path} exists and is not a bundle, or holds other files too; choose another --out.")
    root = _find_data(run, Path(data or run.data))
    held_out = _load_held_out(run, root, console)
    rng = np.random.default_rng((run.seed, 0x60D))
    no_textures = np.empty((0, *held_out.frames.shape[1:]), np.uint8)
    count = SYNTHETIC if precision != "fp32" else min(len(held_out.frames), PARITY_FRAMES)
    anomalies = np.stack([method.example(held_out.frames, no_textures, rng)["frame"] for _ in range(count)])
    with atomic_folder(path) as folder:
        exported = _export_float32(method, run, held_out, anomalies, false_reject, path, folder / "fp32", console)
        if precision != "fp32":
            labelled = None
            if data:
                category = open_category(root)
                labelled = read_labelled(category, exported.manifest.size, run.bit_depth, console)
            trial = Trial(exported, run, root, held_out, anomalies, labelled, false_reject, budget or Budget(), console)
            exported = choose(trial, precision, calibration or Calibration())
        _keep_only(folder, exported.folder)
        warn_of_refusals(folder / MODEL, console)
        manifest = write_bundle(folder, exported.manifest, exported.golden)
    console.say(exported.summary)
    console.say(Threshold(**{name: manifest.threshold[name] for name in _THRESHOLD}).describe())
    console.say(f"Exported: {path}")
    return Bundle(path, manifest)


def _export_float32(
    method: Method,
    run: RunConfig,
    held_out: Frames,
    anomalies: NDArray[np.uint8],
    false_reject: float,
    path: Path,
    folder: Path,
    console: Console,
) -> Exported:
    """Write the graph and compare it with the network."""
    count = min(len(held_out.frames), PARITY_FRAMES)
    probes = np.concatenate([held_out.frames[:count], anomalies[:count]])
    console.say("tracing the network to ONNX")
    size = (held_out.frames.shape[1], held_out.frames.shape[2])
    folder.mkdir()
    write_onnx(method.deployable(), size, folder / MODEL, method.sensitive)
    engine = OnnxRuntimeEngine(folder / MODEL)
    console.say(f"comparing graph and network on {len(probes)} frames")
    reference = run_reference(method.detector(), probes)
    parity = check_parity(reference, *run_engine(engine, probes, Console().track("")))
    scores, maps = run_engine(engine, held_out.frames, console.track("scoring"))
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
        parity=dataclasses.asdict(parity),
        data={"fingerprint": run.fingerprint, "held_out_fingerprint": held_out.fingerprint},
        training=_training(run, method),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        edgead=edgead.__version__,
        **thresholds(scores, maps.max(axis=(1, 2)), false_reject),
    )
    golden = Golden(probes[shown], reference.scores[shown], reference.maps[shown])
    summary = f"graph and network differ by at most {parity.largest:.2g} (allowed {parity.tolerance:.2g})"
    return Exported(folder, manifest, golden, summary)


def _keep_only(folder: Path, chosen: Path) -> None:
    """Move the graphs in a subfolder up, and remove all subfolders."""
    others = list(folder.iterdir())
    for graph in chosen.glob("*.onnx"):
        graph.replace(folder / graph.name)
    for other in others:
        shutil.rmtree(other)


def _find_data(run: RunConfig, root: Path) -> Path:
    """Return the folder that the run's image names start from."""
    if (root / run.category).is_dir() and not (root / run.held_out[0]).exists():
        return root / run.category  # --data names the folder of several categories
    return root


def _load_held_out(run: RunConfig, root: Path, console: Console) -> Frames:
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
