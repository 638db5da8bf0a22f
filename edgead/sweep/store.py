"""The folder that a sweep keeps everything in. On a cluster all machines share it.

cells/KEY/cell.json      what the cell is, and what came of it
cells/KEY/log.txt        what training, export and benchmark said
cells/KEY/run/           the training
cells/KEY/NAME.edgead/   a bundle for each precision
cells/KEY/report/NAME/   the benchmark of each bundle
results.json, table.txt  all rows of the last sweep, with means over seeds
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path

from edgead import schema
from edgead.console import Console, Terminal
from edgead.errors import DataError
from edgead.files import file_lock, write_json
from edgead.redaction import shown
from edgead.schema import SchemaError
from edgead.sweep.cell import Cell, Training

CELL, LOG, LOCK = "cell.json", "log.txt", ".lock"
PROGRESS_EVERY = 10.0
"""Seconds between lines of progress in a cell's log."""


class CellState(str, Enum):
    """Where a bundle of a cell stands."""

    TO_DO = "to do"
    STARTED = "started"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """What came of a precision.

    Attributes:
        measuring: key of the `Measuring` that it was made with.
        seconds: that export and benchmark took.
        failed: why there is no bundle or no figures; empty where there are.
        size: bytes of the bundle's files.
    """

    measuring: str
    seconds: float
    failed: str = ""
    size: int = 0


@dataclass(frozen=True)
class Record:
    """What `cell.json` holds.

    Attributes:
        name: what people call the cell.
        training: what its key is made of.
        data: folder of the images.
        created: UTC, ISO 8601.
        code: hashes of the package's sources that have worked on it, in order.
        train_seconds: that training took, all starts together.
        trained: the training is finished.
        failed: why the training ended; empty where it did not fail.
        outcomes: precision ↦ what came of it.
    """

    name: str
    training: Training
    data: str
    created: str
    code: tuple[str, ...] = ()
    train_seconds: float = 0.0
    trained: bool = False
    failed: str = ""
    outcomes: dict[str, Outcome] = field(default_factory=dict)


class Store:
    """The cells on disk. Each file is replaced in one step; only one process works on a cell."""

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
        """Read a cell's record; a new one where there is none.

        Raises:
            DataError: it is damaged.
        """
        path = self.folder(cell) / CELL
        try:
            return schema.read(Record, schema.load_json(path))
        except FileNotFoundError:
            created = datetime.now(timezone.utc).isoformat(timespec="seconds")
            return Record(cell.name, cell.training, str(cell.root), created)
        except SchemaError as error:
            raise DataError(f"{path} is damaged: {error}.\nDelete it: what is there is then measured again.") from error

    def save(self, cell: Cell, record: Record) -> None:
        """Write a cell's record."""
        write_json(self.folder(cell) / CELL, schema.write(record))

    def forget_failures(self, cell: Cell) -> None:
        """Have what failed tried again."""
        record = self.load(cell)
        kept = {precision: outcome for precision, outcome in record.outcomes.items() if not outcome.failed}
        if record.failed or len(kept) < len(record.outcomes):
            self.save(cell, dataclasses.replace(record, failed="", outcomes=kept))

    def state(self, cell: Cell, precision: str) -> tuple[CellState, str]:
        """Return where a bundle stands, and why it failed."""
        record = self.load(cell)
        if record.failed:
            return CellState.FAILED, record.failed
        outcome = record.outcomes.get(precision)
        if outcome is not None and outcome.measuring == cell.measuring.key:
            return (CellState.FAILED, outcome.failed) if outcome.failed else (CellState.DONE, "")
        return (CellState.STARTED if self.folder(cell).is_dir() else CellState.TO_DO), ""

    def is_settled(self, cell: Cell) -> bool:
        """Tell whether nothing is left to do in a cell."""
        settled = (CellState.DONE, CellState.FAILED)
        return all(self.state(cell, precision)[0] in settled for precision in cell.precisions)

    def last_line(self, cell: Cell) -> str:
        """Return what a cell's log says last."""
        try:
            with (self.folder(cell) / LOG).open("rb") as stream:
                stream.seek(max(0, stream.seek(0, 2) - 1000))
                lines = stream.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        return lines[-1].partition("  ")[2].strip() if lines else ""

    @contextmanager
    def sole_worker(self, cell: Cell, console: Console) -> Iterator[None]:
        """Wait until no other process works on a cell; the system lets this one in when the other is gone."""
        folder = self.folder(cell)
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock(folder / LOCK, lambda: console.say("waiting for another process that works on this cell")):
            yield


class CellLog(Terminal):
    """Appends lines, with the time before each, to a cell's log."""

    def __init__(self, folder: Path) -> None:
        super().__init__(PROGRESS_EVERY)
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / LOG

    def say(self, text: str) -> None:
        with self._path.open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {shown(text)}\n")

    clock = Console.clock
