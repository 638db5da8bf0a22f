"""Run one cell in a worker process: training, then bundle and benchmark for each precision."""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from edgead.console import Console
from edgead.errors import ConfigError, EdgeadError, describe
from edgead.sweep import fingerprint, stages
from edgead.sweep.cell import Cell
from edgead.sweep.store import CellLog, Outcome, Record, Store


def work(cell: Cell, root: Path, workers: int, retry_failed: bool = False) -> None:
    """Run the stages of a cell that are not done. A failure is stored in the cell's record.

    Args:
        cell: to run.
        root: folder of the store.
        workers: data-loading processes of the training.
        retry_failed: run again what has failed.

    Raises:
        ConfigError: this machine has another version of the program than the one that started the sweep.
        KeyboardInterrupt: on a request to stop; finished work is saved.
    """
    store = Store(root)
    console = CellLog(store.folder(cell))
    code = fingerprint.code_fingerprint(fingerprint.NOT_IN_MEASURING)
    if not cell.entry.code and code != cell.measuring.code:
        raise ConfigError(
            "This machine has another version of edgead than the one that started the sweep. Install the same version."
        )
    with store.sole_worker(cell, console):
        record = stored = store.load(cell)
        if retry_failed:
            record = record.without_failures()
        if code not in record.code:
            record = dataclasses.replace(record, code=(*record.code, code))
        if record != stored:
            store.save(cell, record)
        if not record.trained and not record.failed:
            record = _train(cell, store, record, workers, console)
        for precision in cell.precisions if record.trained else ():
            done = record.outcomes.get(precision)
            if done is None or done.measuring != cell.measuring.key:
                record = record.without(precision)
                store.save(cell, record)  # a stop leaves no outcome of the bundle and report that are replaced now
                outcome = _measure(cell, store, precision, console)
                record = dataclasses.replace(record, outcomes={**record.outcomes, precision: outcome})
                store.save(cell, record)


def _train(cell: Cell, store: Store, record: Record, workers: int, console: Console) -> Record:
    killed = max(0.0, store.last_written(cell) - record.began) if record.began else 0.0
    record = dataclasses.replace(record, train_seconds=round(record.train_seconds + killed, 1), began=time.time())
    store.save(cell, record)
    started = time.monotonic()
    failed = "not finished"
    try:
        failed = _attempt(lambda: stages.train_cell(cell, store.run(cell), workers, console), console)
    finally:  # Ctrl-C too
        seconds = round(record.train_seconds + time.monotonic() - started, 1)
        stopped = failed == "not finished"
        record = dataclasses.replace(
            record, train_seconds=seconds, began=0.0, trained=not failed, failed="" if stopped else failed
        )
        store.save(cell, record)
    return record


def _measure(cell: Cell, store: Store, precision: str, console: Console) -> Outcome:
    bundle, started = store.bundle(cell, precision), time.monotonic()

    def measure() -> None:
        stages.export_cell(cell, store.run(cell), precision, bundle, console)
        stages.benchmark_cell(cell, bundle, store.report(cell, precision), console)

    failed = _attempt(measure, console)
    size = 0 if failed else sum(file.stat().st_size for file in bundle.iterdir())
    return Outcome(cell.measuring.key, round(time.monotonic() - started, 1), failed, size)


def _attempt(stage: Callable[[], None], console: Console) -> str:
    """Run a stage; return the reason of a failure, else an empty text."""
    try:
        stage()
    except Exception as error:  # whatever it is: the other cells continue
        console.say(describe(error) if isinstance(error, EdgeadError) else traceback.format_exc())
        return describe(error)
    return ""
