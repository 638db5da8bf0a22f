"""Results of a sweep: rows, means over seeds, results.json and a table."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgead import schema
from edgead.benchmark.figures import Stability
from edgead.errors import DataError
from edgead.files import write_json, write_text
from edgead.machine import Machine, versions
from edgead.reports.page import describe_device
from edgead.schema import SchemaError, left_out
from edgead.sweep.cell import Cell
from edgead.sweep.store import CellState, Store
from edgead.text import percent, utc_now

RESULTS, TABLE = "results.json", "table.txt"
RESULTS_VERSION = 1
UNSTABLE = "unstable"
"""Shown instead of a latency from a machine that was not quiet, as in the table of a benchmark."""


@dataclass(frozen=True)
class BundleFigures:
    """Figures of a bundle, see docs/benchmark.md: shares from 0 to 1, milliseconds."""

    engine: str
    size: tuple[int, ...]
    image_auroc: float
    image_ap: float
    image_f1_max: float
    pixel_auroc: float | None
    pixel_ap: float | None
    pixel_f1_max: float | None
    aupro: float | None
    false_reject_rate: float
    detection_rate: float
    latency_ms: dict[str, float]
    stability: Stability | None = left_out()

    @property
    def unstable(self) -> str:
        """Why the latencies do not count; empty if they do."""
        return self.stability.unstable if self.stability else ""


@dataclass(frozen=True)
class SweepRow:
    """A bundle of a cell.

    Attributes:
        key: of the cell.
        label, method, preset, settings, category, seed, precision: of the bundle.
        state: of the bundle.
        reason: of a failure.
        train_seconds: of the cell's training.
        size_bytes: of the bundle's files.
        bundle, report: folders, relative to the store.
        figures: None if the bundle is not done.
        measured, machine: when and on what.
    """

    key: str
    label: str
    method: str
    preset: str
    settings: tuple[str, ...]
    category: str
    seed: int
    precision: str
    state: CellState
    reason: str = ""
    train_seconds: float = 0.0
    size_bytes: int = 0
    bundle: str = ""
    report: str = ""
    figures: BundleFigures | None = left_out()
    measured: str | None = left_out()
    machine: Machine | None = left_out()


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over seeds; the deviation of one seed is None."""

    mean: float
    deviation: float | None


@dataclass(frozen=True)
class SeedAverage:
    """Means over rows that differ only in their seed.

    Attributes:
        seeds: of the rows with figures.
        failed: number of failed rows.
        image_auroc, pixel_auroc, aupro, p50_ms, size_bytes: None if no row has the figure; `p50_ms` also if the rows
            were measured on several engines or machines.
        unstable: why a latency in `p50_ms` does not count; empty if all do.
    """

    label: str
    category: str
    precision: str
    seeds: tuple[int, ...]
    failed: int
    image_auroc: Spread | None
    pixel_auroc: Spread | None
    aupro: Spread | None
    p50_ms: Spread | None
    size_bytes: Spread | None
    unstable: str = ""


def collect(store: Store, cells: Sequence[Cell], crashed: dict[str, str]) -> list[SweepRow]:
    """Return one row per bundle of the cells, in order.

    Args:
        store: of the sweep.
        cells: of the sweep.
        crashed: key ↦ reason, for cells that ended without a record of it.
    """
    return [_row(store, cell, precision, crashed) for cell in cells for precision in cell.precisions]


def _row(store: Store, cell: Cell, precision: str, crashed: dict[str, str]) -> SweepRow:
    record, training = store.load(cell), cell.training
    state, reason = store.state(cell, precision)
    if state not in (CellState.DONE, CellState.FAILED) and cell.key in crashed:
        state, reason = CellState.FAILED, crashed[cell.key]
    row = SweepRow(
        cell.key,
        cell.label,
        training.method,
        training.preset,
        cell.entry.settings,
        training.category,
        training.seed,
        precision,
        state,
        reason,
        record.train_seconds,
    )
    if state is not CellState.DONE:
        return row
    report = store.report(cell, precision)
    try:
        stored = _read_report(report / "results.json")
    except DataError as error:  # the other rows are still there
        return dataclasses.replace(row, state=CellState.FAILED, reason=str(error))
    return dataclasses.replace(
        row,
        size_bytes=record.outcomes[precision].size,
        bundle=str(store.bundle(cell, precision).relative_to(store.root)),
        report=str(report.relative_to(store.root)),
        figures=stored.rows[0],
        measured=stored.created,
        machine=stored.machine,
    )


@dataclass(frozen=True)
class _CellReport:
    """What a sweep reads from the report of a cell, which has one row."""

    created: str
    machine: Machine
    rows: tuple[BundleFigures, ...]


def _read_report(path: Path) -> _CellReport:
    try:
        found = schema.read(_CellReport, schema.load_json(path))
        if not found.rows:
            raise SchemaError("it has no rows")
        return found
    except (OSError, SchemaError) as error:
        raise DataError(f"{path} cannot be read: {error}.\nDelete the folder of its cell to run it again.") from error


def average(rows: Sequence[SweepRow]) -> list[SeedAverage]:
    """Return mean and spread over seeds, in the order of the rows."""
    return [_average(name, members) for name, members in _group_seeds(rows).items()]


def _group_seeds(rows: Sequence[SweepRow]) -> dict[tuple[str, str, str], list[SweepRow]]:
    """Group rows that differ only in their seed."""
    groups: dict[tuple[str, str, str], list[SweepRow]] = {}
    for row in rows:
        groups.setdefault((row.label, row.category, row.precision), []).append(row)
    return groups


def _average(name: tuple[str, str, str], rows: list[SweepRow]) -> SeedAverage:
    measured = [(row, row.figures) for row in rows if row.figures is not None]

    def spread(value: Callable[[SweepRow, BundleFigures], float | None]) -> Spread | None:
        found = [each for row, figures in measured if (each := value(row, figures)) is not None]
        if not found:
            return None
        return Spread(statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None)

    return SeedAverage(
        *name,
        seeds=tuple(row.seed for row, _ in measured),
        failed=sum(row.state is CellState.FAILED for row in rows),
        image_auroc=spread(lambda row, figures: figures.image_auroc),
        pixel_auroc=spread(lambda row, figures: figures.pixel_auroc),
        aupro=spread(lambda row, figures: figures.aupro),
        p50_ms=None if len(_places(rows)) > 1 else spread(lambda row, figures: figures.latency_ms["p50"]),
        size_bytes=spread(lambda row, figures: row.size_bytes),
        unstable=next((figures.unstable for _, figures in measured if figures.unstable), ""),
    )


def _places(rows: Sequence[SweepRow]) -> list[str]:
    """Return the engines and machines of the rows with figures: `auto` may take another one for each seed."""
    found = [
        (row.figures.engine, describe_device(vars(row.machine)) if row.machine else "") for row in rows if row.figures
    ]
    return sorted({" on ".join(filter(None, each)) for each in found})


def write_results(store: Store, file: Path, rows: Sequence[SweepRow]) -> str:
    """Write `RESULTS` and `TABLE`; return the table."""
    averages = average(rows)
    table = format_table(rows, averages)
    value = {
        "schema": RESULTS_VERSION,
        "created": utc_now(),
        "file": file.name,
        "versions": versions(),
        "rows": schema.write(list(rows)),
        "averages": schema.write(averages),
    }
    write_json(store.root / RESULTS, value)
    write_text(store.root / TABLE, table + "\n")
    return table


def format_table(rows: Sequence[SweepRow], averages: Sequence[SeedAverage]) -> str:
    """Format the averages as a table in plain text, with what was unstable and failures below it."""
    header = ["method", "category", "precision", "seeds", "image AUROC", "pixel AUROC", "AUPRO", "p50 ms", "MB"]
    cells = [header]
    for each in averages:
        shares = [_show(value, percent) for value in (each.image_auroc, each.pixel_auroc, each.aupro)]
        cost = [UNSTABLE if each.unstable else _show(each.p50_ms, "{:.1f}".format), _show(each.size_bytes, _megabytes)]
        seeds = f"{len(each.seeds)}" + (f" ({each.failed} failed)" if each.failed else "")
        cells.append([each.label, each.category, each.precision, seeds, *shares, *cost])
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in cells]
    failures = [
        f"Failed: {row.label}, {row.category}, seed {row.seed}, {row.precision}: {row.reason}"
        for row in rows
        if row.state is CellState.FAILED
    ]
    unstable = [
        f"{UNSTABLE}: {each.label}, {each.category}, {each.precision}: {each.unstable}."
        for each in averages
        if each.unstable
    ]
    mixed = [
        f"No mean time of {', '.join(name)}: measured on {' and on '.join(places)}."
        for name, members in _group_seeds(rows).items()
        if len(places := _places(members)) > 1
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], *unstable, *mixed, *failures])


def _show(value: Spread | None, write: Callable[[float], str]) -> str:
    if value is None:
        return "–"
    text = write(value.mean)
    return text if value.deviation is None else f"{text} ± {write(value.deviation)}"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.1f}"
