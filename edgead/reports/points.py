"""The points of a comparison, latency against AUROC, from results files of benchmarks, sweeps and peers."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from edgead import schema
from edgead.errors import DataError
from edgead.files import stays_below
from edgead.reports.page import RESULTS, describe_device, read_results
from edgead.schema import Computed, SchemaError, Within, section

MEASURED, PEER, PUBLISHED = "measured", "peer", "published"
"""Kinds of points: measured by edgead's benchmark, another library measured with it, quoted from a publication."""
ALL = "all"
"""Category of means over several categories."""


@dataclass(frozen=True)
class Point:
    """One configuration on one category.

    Attributes:
        name: label of the row.
        method, preset, size, precision, engine, device, category: of the configuration; empty if unknown.
        p50, p90, p99: latency, milliseconds.
        auroc, interval: image AUROC and its 95 % interval, from 0 to 1.
        aupro: from 0 to 1.
        seeds: trainings that the figures are means over.
        spread: sample standard deviation of the AUROC over them.
        kind: one of `MEASURED`, `PEER`, `PUBLISHED`.
        created: when it was measured, ISO 8601.
        where: machine, or publication.
        conditions: further facts, name ↦ text.
        unstable: why the machine was too busy for the latency to count; empty if it was not.
        unusable: why there is no figure; empty if there is one.
    """

    name: str
    method: str = ""
    preset: str = ""
    size: str = ""
    precision: str = ""
    engine: str = ""
    device: str = ""
    category: str = ""
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    auroc: float | None = None
    interval: tuple[float, float] | None = None
    aupro: float | None = None
    seeds: int = 1
    spread: float | None = None
    kind: str = MEASURED
    created: str = ""
    where: str = ""
    conditions: tuple[tuple[str, str], ...] = ()
    unstable: str = ""
    unusable: str = ""

    @property
    def configuration(self) -> tuple[str, ...]:
        """Everything but category and seed: points that differ in nothing else are averaged."""
        return self.kind, self.name, self.method, self.preset, self.size, self.precision, self.engine, self.device

    @property
    def plotted(self) -> bool:
        """Whether it has both figures."""
        return self.p50 is not None and self.p50 > 0 and self.auroc is not None

    @property
    def counts(self) -> bool:
        """Whether it may be in the front: its latency was measured here, on a machine that was not too busy."""
        return self.plotted and self.kind != PUBLISHED and not self.unstable


EFFICIENTAD = Point(
    name="EfficientAD-S",
    method="EfficientAD-S",
    size="256×256",
    device="NVIDIA RTX A6000",
    category=ALL,
    p50=2.2,
    auroc=0.988,
    kind=PUBLISHED,
    where="Batzner et al., WACV 2024",
    conditions=(("data", "MVTec AD, mean of 15 categories"), ("latency", "as the authors measured it")),
)
"""Published elsewhere, and not measured here."""


Time = Annotated[float, Within(1e-9, 1e12)]
"""Milliseconds that an axis of ratios can hold."""


@dataclass(frozen=True)
class _Latency:
    p50: Time | None = None
    p90: Time | None = None
    p99: Time | None = None


@dataclass(frozen=True)
class _Figures:
    """The numbers of a row; None for those that it lacks."""

    latency_ms: _Latency | None = section()
    image_auroc: Computed | None = None
    image_auroc_interval: tuple[Computed, Computed] | None = None
    aupro: Computed | None = None


@dataclass(frozen=True)
class _Row(_Figures):
    figures: _Figures | None = section()


@dataclass(frozen=True)
class _File:
    """What is checked before points are made: a file may be of others, as those of peers are."""

    rows: tuple[_Row, ...]
    failed: tuple[_Figures, ...] = ()


def read_points(paths: Iterable[Path]) -> list[Point]:
    """Read all points of results files, or of folders with `RESULTS`; a row that several files have counts once.

    Raises:
        DataError: a file has no rows of a benchmark, sweep or peer.
    """
    found: list[Point] = []
    known = set[tuple[object, ...]]()
    for path in paths:
        points = _read_file(path / RESULTS if path.is_dir() else path)
        # A sweep's row and the report of its cell are one measurement. Two rows of one file never are.
        found += [point for point in points if _measurement(point) not in known]
        known.update(map(_measurement, points))
    return found


def _measurement(point: Point) -> tuple[object, ...]:
    return point.method, point.category, point.created, point.p50, point.auroc, point.name


def _read_file(path: Path) -> list[Point]:
    return points_of(read_results(path), path)


def points_of(stored: Mapping[str, Any], path: Path) -> list[Point]:
    """Return the points of a file's content.

    Args:
        stored: the content.
        path: of the file, for errors; the reports of a sweep's cells are found beside it.

    Raises:
        DataError: it has no rows of a benchmark, sweep or peer.
    """
    rows = stored.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(
            f"{path} has no rows of a benchmark or a sweep.\n"
            "Give results.json of `edgead benchmark` or `edgead sweep`, or their folders."
        )
    try:
        schema.read(_File, {"rows": rows, "failed": stored.get("failed") or []})
    except SchemaError as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    try:
        if "file" in stored:  # a sweep
            return _average_seeds([_sweep_point(row, path.parent) for row in rows])
        failed = stored.get("failed") or []
        return [_point(row, stored) for row in [*rows, *failed]]
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise DataError(f"{path} cannot be read: {type(error).__name__}: {error}.") from error


def _point(row: Mapping[str, Any], file: Mapping[str, Any]) -> Point:
    """Read a row of a benchmark, or of a peer, which has a `name` in place of a bundle."""
    found = schema.read(_Figures, row)
    latency = found.latency_ms or _Latency()
    machine = row.get("machine") or file.get("machine")
    own = "bundle" in row
    general = file.get("conditions") or {}
    conditions = {name: general.get(name) for name in TIMING} | {name: row.get(name) for name in NOTED}
    conditions["unstable"] = unstable = str((row.get("stability") or {}).get("unstable") or "")
    return Point(
        name=str(row.get("name") or row.get("label") or row.get("bundle") or row.get("method") or "unnamed"),
        method=str(row.get("method") or row.get("name") or row.get("bundle") or ""),
        preset=str(row.get("preset") or ""),
        size=_size(row.get("size")),
        precision=str(row.get("precision") or ""),
        engine=str(row.get("engine") or ""),
        device=str(row.get("device") or describe_device(machine)),
        category=str(row.get("category") or ""),
        p50=latency.p50,
        p90=latency.p90,
        p99=latency.p99,
        auroc=found.image_auroc,
        interval=found.image_auroc_interval,
        aupro=found.aupro,
        kind=MEASURED if own else PEER,
        created=str(row.get("created") or file.get("created") or ""),
        where=describe_device(machine),
        conditions=tuple((name.replace("_", " "), _text(value)) for name, value in conditions.items() if value),
        unstable=unstable,
        unusable=str(row.get("reason") or ""),
    )


TIMING = ("rounds", "seconds", "timed_frames", "frame_sizes")
"""Conditions of a file that a reader of its figures wants to see."""
NOTED = ("protocol", "images", "copies_of_training", "training", "wall_time", "note")
"""Fields of a row that a reader of its figures wants to see."""


def _sweep_point(row: Mapping[str, Any], folder: Path) -> Point:
    """Read a row of a sweep. Machine and time are in the row, or in its cell's report."""
    figures = row.get("figures") or {}
    report: Mapping[str, Any] = {}
    named = row.get("report") and stays_below(str(row["report"]))
    if not row.get("machine") and named and (folder / str(row["report"]) / RESULTS).is_file():
        report = read_results(folder / str(row["report"]) / RESULTS)
    machine = row.get("machine") or report.get("machine")
    point = _point({**row, **figures, "bundle": row.get("label"), "machine": machine}, report)
    trained = row.get("train_seconds")
    noted = (("training", f"{trained / 60:.0f} min"),) if isinstance(trained, (int, float)) and trained else ()
    return replace(
        point,
        created=str(row.get("measured") or point.created),
        conditions=(*noted, *point.conditions),
        unusable="" if figures else str(row.get("reason") or row.get("state") or "no figures"),
    )


def _average_seeds(points: Sequence[Point]) -> list[Point]:
    """Return means over the points that differ only in their seed; those without figures stay."""
    groups: dict[tuple[object, ...], list[Point]] = {}
    for point in points:
        key = (*point.configuration, point.category) if not point.unusable else (len(groups), point)
        groups.setdefault(key, []).append(point)
    return [_mean(members) if len(members) > 1 else members[0] for members in groups.values()]


def _mean(members: Sequence[Point]) -> Point:
    """Return the mean of points; it lacks each figure that one of them lacks."""

    def mean(name: str) -> float | None:
        values = [getattr(each, name) for each in members]
        return None if None in values else statistics.fmean(values)

    aurocs = [each.auroc for each in members if each.auroc is not None]
    return replace(
        members[0],
        p50=mean("p50"),
        p90=mean("p90"),
        p99=mean("p99"),
        auroc=mean("auroc"),
        aupro=mean("aupro"),
        interval=None,
        unstable=next((each.unstable for each in members if each.unstable), ""),
        seeds=len(members),
        spread=statistics.stdev(aurocs) if len(aurocs) > 1 else None,
        created=max(each.created for each in members),
    )


def with_means(points: Sequence[Point]) -> list[Point]:
    """Add means over categories for configurations that were measured on every one of several categories.

    Means over different categories could not be compared.
    """
    categories = {point.category for point in points if point.kind == MEASURED and point.plotted}
    groups: dict[tuple[str, ...], list[Point]] = {}
    for point in points:
        if point.plotted and point.category in categories and point.kind != PUBLISHED:
            groups.setdefault(point.configuration, []).append(point)
    means = [
        replace(
            _mean(members),
            category=ALL,
            seeds=min(each.seeds for each in members),
            spread=None,
            conditions=(("data", f"mean of {', '.join(sorted(categories))}"),),
        )
        for members in groups.values()
        if len(categories) > 1 and len(members) == len({each.category for each in members}) == len(categories)
    ]
    return [*points, *means]


def front(points: Sequence[Point]) -> list[Point]:
    """Return the Pareto front, sorted by latency: points that no other one beats in latency and AUROC.

    Only points that count do (`Point.counts`); among equal ones the first.
    """
    found: list[Point] = []
    for point in sorted((each for each in points if each.counts), key=lambda each: (each.p50 or 0, -(each.auroc or 0))):
        if not found or (point.auroc or 0) > (found[-1].auroc or 0):
            found.append(point)
    return found


def _size(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "×".join(str(int(side)) for side in value)
    return f"{value}×{value}" if isinstance(value, int) else str(value or "")


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(each)}" for name, each in value.items())
    if isinstance(value, (list, tuple)):
        shown = [_text(each) for each in value[:4]]
        return ", ".join(shown) + (f" and {len(value) - 4} more" if len(value) > 4 else "")
    return f"{value:g}" if isinstance(value, float) else str(value)
