"""The comparison page: latency against AUROC of all configurations in any number of results files, and its picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgead.errors import DataError
from edgead.reports import pareto
from edgead.reports.page import DASH, milliseconds, percent, render, when
from edgead.reports.points import ALL, EFFICIENTAD, MEASURED, PEER, PUBLISHED, Point, read_points, with_means

HEADER = (
    "name",
    "category",
    "input",
    "precision",
    "engine",
    "device",
    "AUROC",
    "95 % interval",
    "AUPRO",
    "p50",
    "p90",
    "p99",
    "source",
    "when",
)
NUMBERS = ("AUROC", "95 % interval", "AUPRO", "p50", "p90", "p99")
FILTERS = ("category", "method", "precision", "engine", "device", "source")
ANY = "*"
"""Value of a published point for filters that do not concern it: it stays visible."""
SOURCES = {
    MEASURED: "measured by edgead",
    PEER: "peer, measured here",
    PUBLISHED: "published elsewhere, not measured here",
}


@dataclass(frozen=True)
class TableRow:
    """A row of the table: values that the filters compare, texts, and whether it is visible at first."""

    data: dict[str, str]
    cells: tuple[str, ...]
    shown: bool


@dataclass(frozen=True)
class Comparison:
    """All points, and those to show first.

    Attributes:
        points: with means over categories and the published one.
        category: that is shown first.
        files: that the points are from.
    """

    points: tuple[Point, ...]
    category: str
    files: tuple[str, ...]

    @property
    def shown(self) -> list[Point]:
        """The points of the first category, and the published one."""
        return [point for point in self.points if point.category == self.category or point.kind == PUBLISHED]

    def page(self, title: str = "Latency against accuracy") -> str:
        """Return the page."""
        shown = {id(point) for point in self.shown}
        rows = [TableRow(_data(point), _cells(point), id(point) in shown) for point in self.points]
        return render(
            "comparison.html",
            kind="comparison",
            title=title,
            lead=self._lead(),
            plots=[pareto.draw(self.points, size, shown=self.shown) for size in (pareto.WIDE, pareto.NARROW)],
            points=self.points,
            visible={number for number, point in enumerate(self.points) if id(point) in shown},
            filters=self._filters(rows),
            details=list(map(pareto.facts, self.points)),
            header=HEADER,
            numbers=NUMBERS,
            rows=rows,
            files=self.files,
            footer="Written by edgead. This file needs no network.",
        )

    def picture(self) -> str:
        """Return the plot of the first category as SVG, for a document."""
        plot = pareto.draw(self.points, shown=self.shown)
        visible = {mark.number for mark in plot.marks if any(mark.point is point for point in self.shown)}
        return render("pareto.svg", title="Latency against image AUROC", plot=plot, visible=visible)

    def _lead(self) -> str:
        measured = [point for point in self.points if point.kind != PUBLISHED and point.category != ALL]
        devices = sorted({point.device for point in measured})
        files = "one file" if len(self.files) == 1 else f"{len(self.files)} files"
        return (
            f"{len(measured)} configurations from {files}, measured on {'; '.join(devices)}. Latency "
            "is the whole call on one frame, from the frame in memory to score and map in memory. Compare latencies of "
            "one device only: times of different runs on a shared machine differ."
        )

    def _filters(self, rows: Sequence[TableRow]) -> dict[str, list[tuple[str, str, bool]]]:
        """Return the filters' values, texts and which is chosen; a filter with one value is left out."""
        found: dict[str, list[tuple[str, str, bool]]] = {}
        for name in FILTERS:
            values = list(dict.fromkeys(row.data[name] for row in rows if row.data[name] not in ("", ANY)))
            if len(values) < 2:
                continue
            texts = SOURCES if name == "source" else {ALL: "mean of all"}
            chosen = self.category if name == "category" else ""
            every = [] if name == "category" else [("", "all", not chosen)]
            found[name] = every + [(value, texts.get(value, value), value == chosen) for value in sorted(values)]
        return found


def compare(paths: Sequence[Path]) -> Comparison:
    """Read the points of results files, or of folders with one.

    Raises:
        DataError: a file is not one of these, or none has a row.
    """
    points = with_means(read_points(paths))
    if not points:
        raise DataError(f"{', '.join(map(str, paths))}: no rows.")
    category = pareto.first_category(points)
    return Comparison(
        (*points, EFFICIENTAD), category, tuple(path.name if path.is_file() else path.resolve().name for path in paths)
    )


def _data(point: Point) -> dict[str, str]:
    own = {
        "category": point.category,
        "method": point.method,
        "precision": point.precision,
        "engine": point.engine,
        "device": point.device,
        "source": point.kind,
    }
    free = ("category", "precision", "engine", "device") if point.kind == PUBLISHED else ()
    return {name: ANY if name in free else value for name, value in own.items()}


def _category(point: Point) -> str:
    if point.category != ALL:
        return point.category or DASH
    return "MVTec AD" if point.kind == PUBLISHED else "mean of all"


def _cells(point: Point) -> tuple[str, ...]:
    interval = f"{percent(point.interval[0])} – {percent(point.interval[1])}" if point.interval else DASH
    if point.spread is not None:
        interval = f"± {percent(point.spread)} ({point.seeds} seeds)"
    name = " ".join(filter(None, (point.name, point.preset if point.preset not in point.name else "")))
    missing = "not measured" if point.auroc is None and point.p50 is None else ""
    source = point.where if point.kind == PUBLISHED else ""
    times = [milliseconds(value) for value in (point.p50, point.p90, point.p99)]
    if point.unstable:
        times = ["unstable", DASH, DASH]
    return (
        name,
        _category(point),
        point.size or DASH,
        point.precision or DASH,
        point.engine or DASH,
        point.device or DASH,
        percent(point.auroc),
        interval,
        percent(point.aupro),
        *times,
        ", ".join(filter(None, (SOURCES[point.kind], source, missing, point.unusable))),
        when(point.created) if point.created else DASH,
    )
