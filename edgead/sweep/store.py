"""The folder of a sweep. All machines of a cluster share it.

cells/KEY/cell.json      configuration and outcome of the cell
cells/KEY/log.txt        messages of training, export and benchmark
cells/KEY/run/           the training
cells/KEY/NAME.edgead/   one bundle per precision
cells/KEY/report/NAME/   the benchmark of each bundle
results.json, table.txt  all rows of the last sweep, with means over seeds
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path

from edgead import schema
from edgead.console import Console, Terminal
from edgead.errors import DataError
from edgead.files import file_lock, remove_unfinished, write_json
from edgead.redaction import shown
from edgead.schema import SchemaError
from edgead.sweep.cell import Cell, Training
from edgead.text import utc_now

CELL, LOG, LOCK = "cell.json", "log.txt", ".lock"
PROGRESS_EVERY = 10.0
"""Seconds between progress lines in a cell's log."""


class CellState(str, Enum):
    """State of a bundle of a cell."""

    TO_DO = "to do"
    STARTED = "started"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """Outcome of a precision.

    Attributes:
        measuring: key of the `Measuring` that was used.
        seconds: of export and benchmark.
        failed: reason of a failure, else empty.
        size: bytes of the bundle's files.
    """

    measuring: str
    seconds: float
    failed: str = ""
    size: int = 0


@dataclass(frozen=True)
class Record:
    """The content of `cell.json`.

    Attributes:
        name: of the cell.
        training: everything in its key.
        data: folder of the images.
        created: UTC, ISO 8601.
        code: hashes of the package's sources that ran the cell, in order.
        train_seconds: of all starts together.
        began: when the training that runs, or was killed, began, seconds since 1970; 0 if there is none.
        trained: whether the training is finished.
        failed: reason if the training failed, else empty.
        outcomes: precision ↦ outcome.
    """

    name: str
    training: Training
    data: str
    created: str
    code: tuple[str, ...] = ()
    train_seconds: float = 0.0
    began: float = 0.0
    trained: bool = False
    failed: str = ""
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def without(self, *precisions: str) -> Record:
        """Return the record without the outcomes of these precisions."""
        kept = {name: outcome for name, outcome in self.outcomes.items() if name not in precisions}
        return dataclasses.replace(self, outcomes=kept)

    def without_failures(self) -> Record:
        """Return the record of a cell that is to run again where it failed."""
        failed = [name for name, outcome in self.outcomes.items() if outcome.failed]
        return dataclasses.replace(self.without(*failed), failed="")


class Store:
    """The cells on disk. Files are replaced atomically; one process at a time works on a cell."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, cell: Cell) -> Path:
        return self.root / "cells" / cell.key

    def run(self, cell: Cell) -> Path:
        return self.folder(cell) / "run"

    def bundle(self, cell: Cell, precision: str) -> Path:
        return self.folder(cell) / f"{cell.name}-{precision}.edgead"

    def report(self, cell: Cell, precision: str) -> Path:
        return self.folder(cell) / "report" / precision

    def load(self, cell: Cell) -> Record:
        """Read a cell's record; return a new one if there is none.

        Raises:
            DataError: the record is damaged.
        """
        path = self.folder(cell) / CELL
        try:
            return schema.read(Record, schema.load_json(path))
        except FileNotFoundError:
            created = utc_now()
            return Record(cell.name, cell.training, str(cell.root), created)
        except SchemaError as error:
            raise DataError(f"{path} is damaged: {error}.\nDelete it to run the cell again.") from error

    def save(self, cell: Cell, record: Record) -> None:
        """Write a cell's record."""
        write_json(self.folder(cell) / CELL, schema.write(record))

    def state(self, cell: Cell, precision: str) -> tuple[CellState, str]:
        """Return the state of a bundle, and the reason of a failure."""
        record = self.load(cell)
        if record.failed:
            return CellState.FAILED, record.failed
        outcome = record.outcomes.get(precision)
        if outcome is not None and outcome.measuring == cell.measuring.key:
            return (CellState.FAILED, outcome.failed) if outcome.failed else (CellState.DONE, "")
        return (CellState.STARTED if self.folder(cell).is_dir() else CellState.TO_DO), ""

    def is_settled(self, cell: Cell, retry_failed: bool = False) -> bool:
        """Tell whether every bundle of a cell is done, or failed and not to be run again."""
        settled = (CellState.DONE,) if retry_failed else (CellState.DONE, CellState.FAILED)
        return all(self.state(cell, precision)[0] in settled for precision in cell.precisions)

    def last_line(self, cell: Cell) -> str:
        """Return the last line of a cell's log."""
        try:
            with (self.folder(cell) / LOG).open("rb") as stream:
                stream.seek(max(0, stream.seek(0, 2) - 1000))
                lines = stream.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        return lines[-1].partition("  ")[2].strip() if lines else ""

    def last_written(self, cell: Cell) -> float:
        """Return when a line was last added to a cell's log, seconds since 1970; 0 if there is none."""
        path = self.folder(cell) / LOG
        return path.stat().st_mtime if path.exists() else 0.0

    @contextmanager
    def sole_worker(self, cell: Cell, console: Console) -> Iterator[None]:
        """Lock a cell. Wait while another process works on it; its lock ends with that process.

        What earlier processes were writing when they were killed is deleted: it may be gigabytes.
        """
        folder = self.folder(cell)
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock(folder / LOCK, lambda: console.say("waiting for another process to finish this cell")):
            remove_unfinished(folder)
            yield


class CellLog(Terminal):
    """Appends lines with a time stamp to a cell's log."""

    def __init__(self, folder: Path) -> None:
        super().__init__(PROGRESS_EVERY)
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / LOG

    def say(self, text: str) -> None:
        with self._path.open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {shown(text)}\n")

    clock = Console.clock
