"""`edgead export`: from a finished run to a bundle that proves itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import edgead.train  # noqa: F401  first: it says what to install where PyTorch is missing
from edgead import schema
from edgead.bundle import MODEL, Bundle
from edgead.console import Console
from edgead.datasets import Frames, load_frames, open_categories, open_category
from edgead.datasets.copies import keep_distinct
from edgead.decision import check_false_reject
from edgead.errors import CheckpointError, DataError
from edgead.export.calibration import Calibration, find_images
from edgead.export.choose import Trial, check_precision, choose
from edgead.export.complete import Assembled, assemble, limits_of, seal
from edgead.export.gate import Budget, read_labelled
from edgead.export.parity import run_reference
from edgead.export.target import choose_target
from edgead.export.to_onnx import facts_of_reconstruction, write_onnx
from edgead.files import atomic_folder
from edgead.manifest import DataRecord, InputRecord, LearnedSource, Manifest, TrainingRecord, sizes_of
from edgead.train import checkpoint
from edgead.train.checkpoint import RunConfig
from edgead.train.donors import load_transferred
from edgead.train.foreground import load_foreground_masks, masks_fingerprint
from edgead.train.method import Method, TrainingData

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
    force: bool = False,
    console: Console | None = None,
) -> Bundle:
    """Write a run's model as a bundle.

    The graph is compared with the trained network on held-out images and synthetic anomalies; the threshold is fitted
    to the graph's scores of the held-out images. A graph of lower precision has to pass the gate, docs/precision.md.

    Args:
        run_folder: a finished run.
        data: where the data is now, if it has moved. With labelled test images in it, the gate judges on them too.
        out: the bundle's folder; ``runs/export/RUN.edgead`` by default, ``RUN-int8.edgead`` in another precision.
            The same bundle, made again, replaces the one that is there.
        false_reject: wanted bound on the share of good parts that fail.
        settings: ``"name=value"`` overrides of what the method leaves open at export, `Method.export_settings`; the
            manifest's configuration holds them.
        precision: one of `edgead.export.precision.PRECISIONS`, or ``"auto"``: the fastest on this machine's engines of
            those that pass the gate.
        calibration: what INT8 is scaled on.
        budget: what the gate allows.
        force: replace any bundle in `out`.
        console: what shows progress.

    Raises:
        GateError: the graph differs from the network, or the precision does not pass the gate.
        EdgeadError: see `edgead.errors`.
    """
    check_precision(precision)
    check_false_reject(false_reject)
    run_folder, console = Path(run_folder), console or Console()
    run, method = checkpoint.load_method(run_folder, settings)
    calibration = calibration or Calibration()

    def same(there: Manifest) -> bool:
        made = (there.method, there.config, there.data.fingerprint, there.training.created, there.training.seed)
        scaled = None if there.calibration is None else (there.calibration.method, there.calibration.source)
        how = (there.threshold.requested_bound, scaled if there.precision != "fp32" else None)
        wanted = (calibration.method, "training")  # which images another folder held is not known yet
        return (
            made == (run.method, schema.write(run.config), run.fingerprint, run.created, run.seed)
            and precision in (there.precision, "auto")
            and (calibration.data is None or there.precision == "fp32")
            and how == (false_reject, wanted if there.precision != "fp32" else None)
        )

    path = choose_target(out, "export", run_folder.resolve().name, precision, same, force)
    root = _find_data(run, Path(data or run.data))
    images = [root / name for name in run.normals]
    if precision != "fp32":
        find_images(calibration, images)  # too few of them are said at once
    held_out = _load_held_out(run, root, console)
    rng = np.random.default_rng((run.seed, 0x60D))
    parts = load_foreground_masks(run.config.foreground, held_out.paths, method.config.size)
    if not run.fits_held_out_masks(masks_fingerprint(parts)):
        raise DataError(
            f"The masks in {run.config.foreground} are not those that this run was started with.\n"
            "Bring the right ones back, or train anew."
        )
    distinct = keep_distinct(held_out.frames)
    if len(distinct) < len(held_out.frames):
        console.say(f"of {len(held_out.frames)} held-out images {len(distinct)} differ: each picture counts once")
        held_out, parts = held_out.only(distinct), None if parts is None else parts[distinct]
    data_held_out = TrainingData(held_out.frames, donors=load_transferred(run_folder, run), foreground_masks=parts)
    count = SYNTHETIC if precision != "fp32" else min(len(held_out.frames), PARITY_FRAMES)
    anomalies = np.stack([method.example(data_held_out, rng)["frame"] for _ in range(count)])
    with atomic_folder(path) as folder:
        assembled = _assemble(method, run, held_out, anomalies, false_reject, path, folder / "fp32", console)
        if precision != "fp32":
            labelled = None
            if data:
                found = {category.name: category for category in open_categories(root)}
                category = found.get(run.category) or open_category(root)
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
    channels = None if run.depth_range is None else run.pixels.channels
    folder.mkdir()
    shown = method.reconstruction()
    write_onnx(
        method.export_model(),
        size,
        folder / MODEL,
        method.sensitive,
        run.pixels.channels,
        shown.module if shown else "",
    )
    return assemble(
        folder,
        {
            "name": path.name.removesuffix(".edgead"),
            "method": run.method,
            "preset": run.preset,
            "config": schema.write(run.config),
            "category": run.category,
            "input": InputRecord(size[0], size[1], run.bit_depth, channels=channels, depth_range=run.depth_range),
            "data": DataRecord(run.fingerprint, held_out.fingerprint),
            "training": _training(run, method),
            "images": run.image_sizes or sizes_of(held_out.size_ranges()),
            "reconstruction": facts_of_reconstruction(shown),
        },
        reference=lambda frames: run_reference(method.reference_model(), frames),
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
    frames = load_frames(paths, run.config.size, run.pixels, console.track("reading held-out images"))
    if frames.fingerprint != run.held_out_fingerprint:
        why = frames.skipped[0] if frames.skipped else "names or contents differ"
        raise DataError(
            f"The held-out images in {root} are not those that this run was started with ({why}).\n"
            "They set the threshold. Say where the right ones are with --data DIR, or train again."
        )
    return frames


def _training(run: RunConfig, method: Method) -> TrainingRecord:
    return TrainingRecord(
        sources=tuple(LearnedSource(source.name, source.fingerprint) for source in run.donors) or None,
        protocol=method.card.reporting_note if run.donors else None,
        changes=run.changes or None,
        departures=run.departures or None,
        devices=run.devices or None,
        copies=run.copies,
        near_copies=run.near_copies,
        seed=run.seed,
        steps=method.config.total_steps(run.steps_in_epoch),
        images=len(run.normals),
        epoch_images=run.epoch_images or len(run.normals),
        textures="pictures" if run.textures else "procedural" if method.takes_textures else "none",
        weights=(Path(run.weights).name if run.weights else "download") if run.config.backbone else None,
        precision=run.mixed_precision,
        created=run.created,
        versions=run.versions,
    )
