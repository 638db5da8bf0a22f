"""Line charts, histograms and fitted power laws as SVG, drawn by templates/charts.html."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgead.reports.axes import Axis, fit_axis

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 66, 28, 12, 52
BINS = 24
MOST_POINTS = 400
"""Points of a line; more could not be told apart."""

XY = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A line through pixels, as SVG's `points`. `number` selects its colour."""

    name: str
    number: int
    points: str


@dataclass(frozen=True)
class Bar:
    """A bar in pixels, with the text that names it."""

    x: float
    y: float
    width: float
    height: float
    number: int
    title: str


@dataclass(frozen=True)
class Rule:
    """A vertical line with a text."""

    x: float
    label: str


@dataclass(frozen=True)
class Dot:
    """A point with the text that names it."""

    x: float
    y: float
    number: int
    title: str


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        title: for people who cannot see it, too.
        x, y: axes.
        lines, bars, rules, dots: what it shows.
        legend: names and numbers of colours.
    """

    title: str
    x: Axis
    y: Axis
    lines: tuple[Line, ...] = ()
    bars: tuple[Bar, ...] = ()
    rules: tuple[Rule, ...] = ()
    dots: tuple[Dot, ...] = ()
    legend: tuple[tuple[str, int], ...] = ()
    width: int = WIDTH
    height: int = HEIGHT


def curves(title: str, series: Mapping[str, Sequence[XY]], x_label: str, y_label: str) -> Chart:
    """Draw lines over steps, on a log axis if all values are above 0.

    Args:
        title: of the chart.
        series: name ↦ points (x, y), sorted by x.
        x_label, y_label: of the axes.
    """
    points = [point for line in series.values() for point in line]
    log = all(y > 0 for _, y in points)
    x = fit_axis(x_label, [x for x, _ in points], LEFT, WIDTH - RIGHT)
    y = fit_axis(y_label, [y for _, y in points], HEIGHT - BOTTOM, TOP, log=log, most=5)
    lines = tuple(Line(name, number, _path(_thinned(line), x, y)) for number, (name, line) in enumerate(series.items()))
    return Chart(title, x, y, lines, legend=tuple((line.name, line.number) for line in lines))


def histogram(title: str, groups: Mapping[str, Sequence[float]], x_label: str, rules: Mapping[str, float]) -> Chart:
    """Draw how often values occur, one colour for each group, with vertical lines at named values."""
    values = [value for group in groups.values() for value in group if math.isfinite(value)]
    x = fit_axis(x_label, [*values, *rules.values()], LEFT, WIDTH - RIGHT)
    bins = BINS if len(values) > BINS else max(8, len(values))
    step = (x.high - x.low) / bins
    counts = {name: [0] * bins for name in groups}
    for name, group in groups.items():
        for value in group:
            if math.isfinite(value):
                counts[name][min(int((value - x.low) / step), bins - 1)] += 1
    most = max((count for each in counts.values() for count in each), default=1)
    y = fit_axis("images", [0, most], HEIGHT - BOTTOM, TOP, low=0, high=max(most, 1) * 1.08, most=5, whole=True)
    bars = []
    for number, (name, each) in enumerate(counts.items()):
        for index, count in enumerate(each):
            if count:
                left, top = x.place(x.low + index * step), y.place(count)
                right = x.place(x.low + (index + 1) * step)
                span = f"{x.low + index * step:.4g} to {x.low + (index + 1) * step:.4g}"
                height = round(HEIGHT - BOTTOM - top, 2)
                bars.append(Bar(left, top, round(right - left - 1, 2), height, number, f"{name}: {count} at {span}"))
    lines = tuple(Rule(x.place(value), label) for label, value in rules.items())
    return Chart(title, x, y, bars=tuple(bars), rules=lines, legend=tuple((name, i) for i, name in enumerate(groups)))


def power_laws(
    title: str, series: Mapping[str, tuple[Sequence[XY], Sequence[XY]]], x_label: str, y_label: str
) -> Chart:
    """Draw measured points and fitted lines on log axes.

    Args:
        title: of the chart.
        series: name ↦ measured points, and points of the fitted line.
        x_label, y_label: of the axes.
    """
    points = [point for pair in series.values() for line in pair for point in line]
    x = fit_axis(x_label, [x for x, _ in points], LEFT, WIDTH - RIGHT, log=True)
    y = fit_axis(y_label, [y for _, y in points], HEIGHT - BOTTOM, TOP, log=True, most=5)
    lines, dots = [], []
    for number, (name, (measured, fitted)) in enumerate(series.items()):
        lines.append(Line(name, number, _path(fitted, x, y)))
        dots += [Dot(x.place(a), y.place(b), number, f"{name}: {a:g}, {b:.4g} {y_label}") for a, b in measured]
    legend = tuple((name, number) for number, name in enumerate(series))
    return Chart(title, x, y, tuple(lines), dots=tuple(dots), legend=legend)


def _path(points: Sequence[XY], x: Axis, y: Axis) -> str:
    return " ".join(f"{x.place(a)},{y.place(b)}" for a, b in points if math.isfinite(b) and (b > 0 or not y.log))


def _thinned(points: Sequence[XY]) -> list[XY]:
    """Return at most `MOST_POINTS` points: means of neighbours."""
    size = math.ceil(len(points) / MOST_POINTS)
    groups = (points[start : start + size] for start in range(0, len(points), size)) if points else ()
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]
