"""`edgead sweep`: run every cell of a file once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgead.cluster import LOCAL, connected, resources
from edgead.console import Console
from edgead.errors import EdgeadError
from edgead.machine import loading_processes
from edgead.reports.build import build_report
from edgead.sweep import stages
from edgead.sweep.board import Board
from edgead.sweep.cell import Cell, make_cells
from edgead.sweep.file import read_sweep_file
from edgead.sweep.results import SweepRow, collect, write_results
from edgead.sweep.store import CellState, Store
from edgead.sweep.worker import work

RETRIES = 3
"""Times that a cell is restarted after its worker process or machine died."""
STOP_SECONDS = 5.0
"""Seconds for workers to save and end after Ctrl-C."""


@dataclass(frozen=True)
class Sweep:
    """Results of a sweep.

    Attributes:
        folder: of the store.
        rows: one per bundle.
        table: in plain text.
    """

    folder: Path
    rows: tuple[SweepRow, ...]
    table: str


@dataclass(frozen=True)
class Planned:
    """A line of the dry run: state of a bundle, and the expected seconds of its cell, if known."""

    cell: Cell
    precision: str
    state: CellState
    seconds: float | None


def plan(file: Path, out: Path | None = None) -> list[Planned]:
    """Return the bundles of a sweep with their states, without running it.

    Args:
        file: the sweep file.
        out: folder of the store; ``runs/sweep/NAME`` of the file's name by default.

    Raises:
        EdgeadError: the file or one of its data sets is wrong.
    """
    store, cells = Store(_folder(file, out)), _read_cells(file)
    known = _durations(store, cells)
    return [
        Planned(cell, precision, store.state(cell, precision)[0], known.get(_kind(cell)))
        for cell in cells
        for precision in cell.precisions
    ]


def sweep(
    file: Path,
    *,
    out: Path | None = None,
    ray: str = LOCAL,
    retry_failed: bool = False,
    console: Console | None = None,
) -> Sweep:
    """Train, export and benchmark every cell of a sweep file that is not done.

    Args:
        file: the sweep file.
        out: folder of the store; all machines of a cluster share it. ``runs/sweep/NAME`` by default.
        ray: ``"local"``, or a cluster's ``HOST:PORT``.
        retry_failed: run failed cells again.
        console: shows progress.

    Raises:
        EdgeadError: the file or one of its data sets is wrong, or the cluster is not reachable.
        KeyboardInterrupt: after Ctrl-C. The same call resumes.
    """
    console = console or Console()
    store, cells = Store(_folder(file, out)), _read_cells(file)
    left = [cell for cell in cells if not store.is_settled(cell, retry_failed)]
    settled = "done" if retry_failed else "done or failed"
    console.say(f"{len(cells)} cells, {len(cells) - len(left)} of them {settled}; results in {store.root}")
    crashed = _work_on(left, store, cells, ray, retry_failed, console) if left else {}
    rows = collect(store, cells, crashed)
    table = write_results(store, file, rows)
    try:
        page = build_report(store.root)
        console.say(f"Report: {page}")
    except EdgeadError as error:
        console.say(f"Warning: the sweep is complete, but its report could not be written: {error}")
    return Sweep(store.root, tuple(rows), table)


def _read_cells(file: Path) -> list[Cell]:
    cells = make_cells(read_sweep_file(file))
    for cell in cells:
        stages.check_cell(cell)
    return cells


def _folder(file: Path, out: Path | None) -> Path:
    return (out or Path("runs", "sweep", file.stem)).resolve()


def _work_on(
    left: Sequence[Cell], store: Store, cells: Sequence[Cell], address: str, retry_failed: bool, console: Console
) -> dict[str, str]:
    """Run cells on Ray; return the keys of cells that crashed, with the reason."""
    with connected(address) as ray:
        task = ray.remote(max_calls=1, max_retries=RETRIES)(work)  # a new process per cell, with no state of others
        tasks: dict[Any, Cell] = {}
        for cell in left:
            asked = resources(ray, cell.entry.cpus, cell.entry.gpus)
            cpus = int(asked["num_cpus"])
            workers = cell.entry.workers if cell.entry.workers is not None else loading_processes(cpus)
            named = task.options(**asked, name=cell.name)
            tasks[named.remote(cell, store.root, workers, retry_failed)] = cell
        with Board(store, cells, console) as board:
            return _wait(ray, tasks, board, console)


def _wait(ray: Any, tasks: dict[Any, Cell], board: Board, console: Console) -> dict[str, str]:
    crashed: dict[str, str] = {}
    pending = list(tasks)
    try:
        while pending:
            board.show([tasks[task] for task in pending])
            ready, pending = ray.wait(pending, timeout=1.0)
            for task in ready:
                try:
                    ray.get(task)
                except ray.exceptions.RayError as error:
                    crashed[tasks[task].key] = _words(error)
        board.show([])
    except KeyboardInterrupt:
        console.say("Stopping. The same command resumes.")
        for task in pending:
            ray.cancel(task)
        end = time.monotonic() + STOP_SECONDS
        while pending and time.monotonic() < end:
            _, pending = ray.wait(pending, num_returns=len(pending), timeout=0.5)
        for task in pending:
            ray.cancel(task, force=True)
        raise
    return crashed


def _words(error: Exception) -> str:
    cause = getattr(error, "cause", None)
    text = str(cause if isinstance(cause, Exception) else error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _kind(cell: Cell) -> tuple[object, ...]:
    training = cell.training
    return training.method, training.preset, training.settings, training.budget


def _durations(store: Store, cells: Sequence[Cell]) -> dict[tuple[object, ...], float]:
    """Return the mean seconds of finished cells, training and measuring, by method, preset and settings."""
    found: dict[tuple[object, ...], list[float]] = {}
    for cell in cells:
        record = store.load(cell)
        if record.trained:
            seconds = record.train_seconds + sum(outcome.seconds for outcome in record.outcomes.values())
            found.setdefault(_kind(cell), []).append(seconds)
    return {kind: statistics.fmean(values) for kind, values in found.items()}
