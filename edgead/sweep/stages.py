"""The three stages of a cell: training, export and benchmark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgead.benchmark import benchmark
from edgead.console import Console
from edgead.datasets import open_again
from edgead.export import PrecisionOptions, export
from edgead.export.options import BuildOptions
from edgead.geometry import GeometryRequest
from edgead.runtime.engines.opening import find_spec
from edgead.sweep.cell import Cell
from edgead.train import resume, run_config, train
from edgead.train.configuration import read_settings
from edgead.train.donors import find_donors
from edgead.train.methods import get_method
from edgead.train.new_run import absolute
from edgead.train.request import Request


def check_cell(cell: Cell) -> None:
    """Refuse a cell that cannot run, before hours of training.

    Raises:
        EdgeadError: what training, export or benchmark would refuse, apart from the images.
    """
    entry = cell.entry
    Request(
        method=get_method(entry.method),
        preset=entry.preset,
        settings=entry.settings,
        seed=cell.training.seed,
        device=entry.device,
        mixed_precision=entry.mixed_precision,
        budget=entry.budget or None,
        workers=entry.workers,
        holdout=entry.holdout,
        textures=entry.textures,
        weights=entry.weights,
        donors=entry.donors,
        bit_depth=entry.bit_depth,
        geometry=GeometryRequest.parse(
            entry.crop, entry.fit, entry.tiles, entry.overlap, entry.align, entry.max_shift, entry.max_rotation
        ),
        scale=None,
        marked=None,
    ).check()
    for precision in cell.precisions:
        BuildOptions(false_reject=entry.false_reject, precision=PrecisionOptions(precision))
    find_spec(entry.engine.partition(":")[0])


def is_started(run: Path) -> bool:
    """Tell whether a folder holds a started training."""
    return (run / run_config.CONFIG).is_file()


def train_cell(cell: Cell, run: Path, workers: int, console: Console) -> None:
    """Train in the folder `run`, or resume the training there.

    Raises:
        EdgeadError: the training cannot start or resume.
    """
    entry = cell.entry
    if is_started(run):
        update_paths(cell, run, console)
        resume(run, device=entry.device, workers=workers, console=console)
        return
    train(
        entry.method,
        cell.root,
        preset=entry.preset,
        settings=entry.settings,
        out=run,
        seed=cell.training.seed,
        device=entry.device,
        mixed_precision=entry.mixed_precision,
        budget=entry.budget or None,
        workers=workers,
        holdout=entry.holdout,
        textures=entry.textures,
        weights=entry.weights,
        donors=entry.donors,
        bit_depth=entry.bit_depth,
        **entry.geometry,
        console=console,
    )


def update_paths(cell: Cell, run: Path, console: Console) -> None:
    """Let a started run look for its files where the sweep file names them now.

    They may have moved since it was started. The cell's key says that their contents are the same.
    """
    entry, stored = cell.entry, run_config.load_run_config(run)
    method, category = get_method(entry.method), open_again(cell.root, stored.category)
    places = {
        name: value for name, value in read_settings(method, entry.settings).items() if name in method.Config.paths
    }
    donors = stored.donors
    if donors:
        found = find_donors(entry.donors, category, stored.method, {}, console)
        donors = tuple(replace(one, path=now.path, root=now.root) for one, now in zip(donors, found, strict=True))
    moved = replace(
        stored,
        config=stored.config.replaced(**places),
        data=str(category.root.resolve()),
        textures=absolute(entry.textures),
        weights=absolute(entry.weights),
        donors=donors,
    )
    if moved != stored:
        run_config.save_run_config(run, moved)


def export_cell(cell: Cell, run: Path, precision: str, bundle: Path, console: Console) -> None:
    """Export a finished run. The gate does not use labelled test images.

    Raises:
        GateError: the precision fails the gate.
    """
    update_paths(cell, run, console)
    export(run, out=bundle, precision=precision, false_reject=cell.measuring.false_reject, force=True, console=console)


def benchmark_cell(cell: Cell, bundle: Path, out: Path, console: Console) -> None:
    """Measure a bundle on the labelled images of its category."""
    benchmark(
        [bundle],
        cell.root,
        engine=cell.measuring.engine,
        rounds=cell.measuring.rounds,
        pixel_size=cell.measuring.pixel_size,
        quick=True,  # other cells run beside this one
        out=out,
        force=True,
        console=console,
    )
