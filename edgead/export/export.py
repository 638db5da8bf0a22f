"""`edgead export`: from a finished run to a bundle that proves itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import edgead.train  # noqa: F401  first: it says what to install where PyTorch is missing
from edgead.bundle import MODEL, Bundle, is_bundle
from edgead.console import Console
from edgead.datasets import Frames, load_frames, open_category
from edgead.datasets.copies import keep_distinct
from edgead.decision import check_false_reject
from edgead.errors import CheckpointError, DataError
from edgead.export.calibration import Calibration, find_images
from edgead.export.choose import Trial, check_precision, choose
from edgead.export.complete import Assembled, assemble, limits_of, seal
from edgead.export.gate import Budget, read_labelled
from edgead.export.parity import run_reference
from edgead.export.to_onnx import write_onnx
from edgead.files import atomic_folder
from edgead.train import checkpoint
from edgead.train.checkpoint import RunConfig
from edgead.train.foreground import load_parts, parts_fingerprint
from edgead.train.method import Method, TrainingData
from edgead.train.sources import load_learned

PARITY_FRAMES = 12
"""Held-out images on which graph and network are compared, beside as many synthetic anomalies."""
SYNTHETIC = 40
"""Synthetic anomalies that the gate judges on."""


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
    settings: Sequence[str] = (),
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
        settings: ``"name=value"`` overrides of what the method leaves open at export, `Method.export_settings`; the
            manifest's configuration holds them.
        precision: one of `edgead.export.precision.PRECISIONS`, or ``"auto"``: the fastest on this machine's engines of
            those that pass the gate.
        calibration: what INT8 is scaled on.
        budget: what the gate allows.
        console: what shows progress.

    Raises:
        GateError: the graph differs from the network, or the precision does not pass the gate.
        EdgeadError: see `edgead.errors`.
    """
    check_precision(precision)
    check_false_reject(false_reject)
    run_folder, console = Path(run_folder), console or Console()
    run, method = checkpoint.load_method(run_folder, settings)
    path = Path(out) if out else Path("runs", "export", run_folder.resolve().name + ".edgead")
    if path.exists() and not is_bundle(path):
        raise DataError(f"{path} exists and is not a bundle, or holds other files too; choose another --out.")
    root = _find_data(run, Path(data or run.data))
    images, calibration = [root / name for name in run.normals], calibration or Calibration()
    if precision != "fp32":
        find_images(calibration, images)  # too few of them are said at once
    held_out = _load_held_out(run, root, console)
    rng = np.random.default_rng((run.seed, 0x60D))
    parts = load_parts(run.config.get("foreground", ""), held_out.paths, method.config.size)
    if not run.fits_held_out_parts(parts_fingerprint(parts)):
        raise DataError(
            f"The masks in {run.config['foreground']} are not those that this run was started with.\n"
            "Bring the right ones back, or train anew."
        )
    distinct = keep_distinct(held_out.frames)
    if len(distinct) < len(held_out.frames):
        console.say(f"of {len(held_out.frames)} held-out images {len(distinct)} differ: each picture counts once")
        held_out, parts = held_out.only(distinct), None if parts is None else parts[distinct]
    data_held_out = TrainingData(held_out.frames, sources=load_learned(run_folder, run), parts=parts)
    count = SYNTHETIC if precision != "fp32" else min(len(held_out.frames), PARITY_FRAMES)
    anomalies = np.stack([method.example(data_held_out, rng)["frame"] for _ in range(count)])
    with atomic_folder(path) as folder:
        assembled = _assemble(method, run, held_out, anomalies, false_reject, path, folder / "fp32", console)
        if precision != "fp32":
            labelled = None
            if data:
                category = open_category(root)
                labelled = read_labelled(category, assembled.manifest.size, run.pixels, console)
            budget = budget or Budget()
            trial = Trial(
                assembled, images, "training", run.seed, held_out, anomalies, labelled, false_reject, budget, console
            )
            assembled = choose(trial, precision, calibration)
        manifest = seal(folder, assembled, console)
    console.say(f"Exported: {path}")
    return Bundle(path, manifest)


def _assemble(
    method: Method,
    run: RunConfig,
    held_out: Frames,
    anomalies: NDArray[np.uint8],
    false_reject: float,
    path: Path,
    folder: Path,
    console: Console,
) -> Assembled:
    """Write the float32 graph, and compare it with the network."""
    count = min(len(held_out.frames), PARITY_FRAMES)
    console.say("tracing the network to ONNX")
    size = (held_out.frames.shape[1], held_out.frames.shape[2])
    depth = {} if run.depth_range is None else {"channels": run.pixels.channels, "depth_range": list(run.depth_range)}
    folder.mkdir()
    write_onnx(method.deployable(), size, folder / MODEL, method.sensitive, run.pixels.channels)
    return assemble(
        folder,
        {
            "name": path.name.removesuffix(".edgead"),
            "method": run.method,
            "preset": run.preset,
            "config": run.config,
            "category": run.category,
            "input": {"height": size[0], "width": size[1], "bit_depth": run.bit_depth, **depth},
            "data": {"fingerprint": run.fingerprint, "held_out_fingerprint": held_out.fingerprint},
            "training": _training(run, method),
        },
        reference=lambda frames: run_reference(method.detector(), frames),
        probes=np.concatenate([held_out.frames[:count], anomalies[:count]]),
        shown=[0, min(1, count - 1), count, min(count + 1, 2 * count - 1)],
        limits=lambda engine: limits_of(engine, held_out.frames, false_reject, console),
        console=console,
    )


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
    frames = load_frames(paths, tuple(run.config["size"]), run.pixels, console.track("reading held-out images"))
    if frames.fingerprint != run.held_out_fingerprint:
        why = frames.skipped[0] if frames.skipped else "names or contents differ"
        raise DataError(
            f"The held-out images in {root} are not those that this run was started with ({why}).\n"
            "They set the threshold. Say where the right ones are with --data DIR, or train again."
        )
    return frames


def _training(run: RunConfig, method: Method) -> dict[str, object]:
    steps = method.config.total_steps(len(run.normals))
    learned = {
        "sources": [{"name": source.name, "fingerprint": source.fingerprint} for source in run.sources],
        "protocol": method.card.protocol,
    }
    return {
        **(learned if run.sources else {}),
        **({"changes": list(run.changes)} if run.changes else {}),
        "copies": run.copies,
        "near_copies": run.near_copies,
        "seed": run.seed,
        "steps": steps,
        "images": len(run.normals),
        "precision": run.precision,
        "created": run.created,
        "versions": run.versions,
    }
