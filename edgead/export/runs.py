"""A finished training run as the source of a bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import edgead.train  # noqa: F401  first: it reports what to install if PyTorch is missing
from edgead.bundle import Bundle
from edgead.bundle.manifest import DataRecord, InputRecord, sizes_of
from edgead.bundle.provenance import LearnedSource, TrainingRecord
from edgead.console import Console
from edgead.datasets import Category, Frames, load_frames, open_categories, open_category
from edgead.datasets.copies import keep_distinct
from edgead.errors import CheckpointError, DataError
from edgead.export.builder import GATE_ANOMALIES, ModelSource, SourceImages, build_bundle
from edgead.export.graph.to_onnx import reconstruction_record, write_network
from edgead.export.inference import run_reference
from edgead.export.options import BuildOptions, PrecisionOptions
from edgead.text import typed
from edgead.train import checkpoint, run_config
from edgead.train.canvas import busiest_tile, draw_on_tiles, tile_masks
from edgead.train.configuration import read_settings
from edgead.train.donors import load_transferred
from edgead.train.foreground import load_foreground_masks, masks_fingerprint
from edgead.train.method import Method, TrainingData
from edgead.train.run_config import RunConfig

PARITY_FRAMES = 12
"""Held-out images, and as many synthetic anomalies, on which graph and network are compared."""


def find_run(
    method: str,
    category: str | None = None,
    root: Path = Path("runs/train"),
    console: Console | None = None,
) -> Path:
    """Return the newest finished run of a method, and say if a newer one is not finished.

    Raises:
        CheckpointError: there is none.
    """
    found = checkpoint.find_runs(root, method, finished=True, category=category)
    if not found:
        what = f"{method} on '{category}'" if category else method
        raise CheckpointError(
            f"No finished run of {what} in {root}.\n"
            f"Train one with:  edgead train --method {method} --data DIR   (or select one with --checkpoint)"
        )
    stopped = checkpoint.find_runs(root, method, finished=False, category=category)
    if stopped and _created(stopped[0]) > _created(found[0]):
        (console or Console()).say(
            f"Warning: {stopped[0]} is newer, and not finished. {found[0]} is exported. To finish the newer one:  "
            f"edgead train --resume --out {typed(stopped[0])}"
        )
    return found[0]


def _created(folder: Path) -> str:
    return run_config.load_run_config(folder).created


def find_runs_of_all(method: str, root: Path = Path("runs/train"), console: Console | None = None) -> list[Path]:
    """Return what `find_run` returns for each category, sorted by category.

    Raises:
        CheckpointError: there is none.
    """
    find_run(method, None, root)
    found = checkpoint.find_runs(root, method, finished=True)
    names = {run_config.load_run_config(folder).category for folder in found}
    return [find_run(method, name, root, console) for name in sorted(names)]


def export_run(run_folder: Path, data: Path | None, settings: Sequence[str], options: BuildOptions) -> Bundle:
    """Export a finished run as a bundle, see `edgead.export.export`."""
    run, method = checkpoint.load_method(run_folder, settings)
    source = _source_of(run_folder, run, method, data, options, _undoing(method, settings))
    return build_bundle(source, options)


def _undoing(method: Method, settings: Sequence[str]) -> list[str]:
    """Return the published values of what these settings change, as settings; empty if they are the published ones."""
    published = {name: getattr(method.published(), name) for name in read_settings(type(method), settings)}
    departs = any(getattr(method.config, name) != value for name, value in published.items())
    return [f"{name}={value}" for name, value in published.items()] if departs else []


def _source_of(
    run_folder: Path,
    run: RunConfig,
    method: Method,
    data: Path | None,
    options: BuildOptions,
    undoing: Sequence[str],
) -> ModelSource:
    images = _source_images(run_folder, run, method, data, options, bool(undoing))

    def write_published(path: Path) -> None:
        write_network(checkpoint.load_method(run_folder, undoing)[1], path, Console())

    return ModelSource(
        verb="export",
        name=run_folder.resolve().name,
        method=run.method,
        preset=run.preset,
        config=run.shipped_config,
        input=InputRecord.of(method.config.size, run.pixels),
        geometry=run.geometry,
        training=_training(run, method),
        reconstruction=reconstruction_record(method),
        write_graph=lambda path: write_network(method, path, options.console),
        write_published=write_published if undoing else None,
        reference=lambda frames: run_reference(method.reference_model(), frames),
        images=images,
    )


def _source_images(
    run_folder: Path, run: RunConfig, method: Method, data: Path | None, options: BuildOptions, open_settings: bool
) -> SourceImages:
    """Return the run's images and synthetic anomalies; enough of these for the gate, if it will be asked."""
    root = _find_data(run, data or Path(run.data))
    held_out, masks = _read_distinct(run, root, options.console)
    drawn_from = TrainingData(held_out.frames, donors=load_transferred(run_folder, run), foreground_masks=masks)
    count = min(len(held_out.frames), PARITY_FRAMES)
    number = GATE_ANOMALIES if options.precision.lowers or open_settings else count
    anomalies, probes = _draw_anomalies(run, method, drawn_from, number, count)
    return SourceImages(
        category=run.category,
        data=DataRecord(run.fingerprint, held_out.fingerprint),
        sizes=run.image_sizes or sizes_of(held_out.size_ranges()),
        normals=held_out,
        probes=probes,
        golden=[0, min(1, count - 1), count, min(count + 1, 2 * count - 1)],
        anomalies=anomalies,
        calibration=run.training_images(root),
        calibration_source="training",
        labelled=_labelled(run, root, data, options.precision),
        seed=run.seed,
    )


def _read_distinct(run: RunConfig, root: Path, console: Console) -> tuple[Frames, NDArray[np.bool_] | None]:
    """Return the held-out images without copies, and their foreground masks."""
    held_out = _load_held_out(run, root, console)
    masks = load_foreground_masks(run.config.foreground, held_out.paths, run.tiling.canvas, run.geometry, run.bit_depth)
    if not run.fits_held_out_masks(masks_fingerprint(masks)):
        raise DataError(
            f"The masks in {run.config.foreground} differ from those that this run was started with.\n"
            "Restore the original masks, or start a new run."
        )
    distinct = keep_distinct(held_out.frames)
    if len(distinct) == len(held_out.frames):
        return held_out, masks
    console.say(f"{len(distinct)} of {len(held_out.frames)} held-out images are distinct: copies count once")
    return held_out.only(distinct), None if masks is None else masks[distinct]


def _draw_anomalies(
    run: RunConfig, method: Method, drawn_from: TrainingData, number: int, count: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return `number` synthetic anomalies, and the network's inputs of `count` good images and `count` anomalies."""
    rng, tiling, frames = np.random.default_rng((run.seed, 0x60D)), run.tiling, drawn_from.normals
    if tiling.count == 1:
        anomalies = np.stack([method.example(drawn_from, rng)["frame"] for _ in range(number)])
        return anomalies, np.concatenate([frames[:count], anomalies[:count]])
    parts = tile_masks(frames, drawn_from.foreground_masks, run.config.foreground, tiling)
    anomalies, tiles = draw_on_tiles(
        method, dataclasses.replace(drawn_from, foreground_masks=parts), tiling, number, rng
    )
    busiest = [busiest_tile(canvas, tiling) for canvas in frames[:count]]
    return anomalies, np.concatenate([np.stack(busiest), tiles[:count]])


def _labelled(run: RunConfig, root: Path, data: Path | None, precision: PrecisionOptions) -> Category | None:
    """Return the category with labelled test images for the gate: only data that the user passed for it."""
    if precision.labelled:
        return open_category(precision.labelled)
    if data is None or not precision.lowers:
        return None
    found = {category.name: category for category in open_categories(root)}
    return found.get(run.category) or open_category(root)


def _find_data(run: RunConfig, root: Path) -> Path:
    """Return the folder that the run's image names are relative to."""
    if (root / run.category).is_dir() and not (root / run.held_out[0]).exists():
        return root / run.category  # --data is the folder of several categories
    return root


def _load_held_out(run: RunConfig, root: Path, console: Console) -> Frames:
    paths = [root / name for name in run.held_out]
    absent = [path for path in paths if not path.is_file()]
    if absent:
        raise DataError(
            f"{len(absent)} of the {len(paths)} held-out images of this run are missing, for instance {absent[0]}.\n"
            "The threshold needs them. If the data has moved, set its folder with --data DIR."
        )
    track = console.track("reading held-out images")
    frames = load_frames(paths, run.tiling.canvas, run.pixels, track, run.geometry)
    if frames.fingerprint != run.held_out_fingerprint:
        why = frames.skipped[0] if frames.skipped else "names or contents differ"
        raise DataError(
            f"The held-out images in {root} differ from those that this run was started with ({why}).\n"
            "The threshold needs them. Set the folder of the original images with --data DIR, or train again."
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
        images=run.trained_on,
        marked=len(run.marked.names) if run.marked else None,
        epoch_images=run.epoch_images or run.trained_on,
        textures="pictures" if run.textures else "procedural" if method.takes_textures else "none",
        weights=(Path(run.weights).name if run.weights else "download") if run.config.backbone else None,
        precision=run.trained_precision,
        created=run.created,
        versions=run.versions,
    )
