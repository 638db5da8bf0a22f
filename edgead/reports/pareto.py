"""The plot of latency against AUROC: marks in pixels, labels that do not overlap, the front."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from edgead.reports.axes import Axis, fit_axis
from edgead.reports.page import milliseconds, percent, when
from edgead.reports.points import ALL, PUBLISHED, Point, front

WIDE, NARROW = (960, 520), (390, 420)
"""Width and height of the plot on a screen and on a phone, pixels."""
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 14, 46
RADIUS = 6.0
LETTER = 6.9
"""Width of a letter of a label in the widest usual fonts, pixels."""
SHAPES = {"fp32": "circle", "fp16": "triangle", "bf16": "triangle", "int8": "square", "int8-fp16": "square"}
"""Precision ↦ shape of its mark; any other one is a diamond."""
PLACES = (
    (9, -8, "start"),
    (9, 17, "start"),
    (-9, -8, "end"),
    (-9, 17, "end"),
    (10, 4, "start"),
    (-10, 4, "end"),
    (0, -11, "middle"),
    (0, 20, "middle"),
)
"""Places of a label beside its mark: offset in pixels and SVG's `text-anchor`. First those that no whisker crosses."""


@dataclass(frozen=True)
class Mark:
    """A point of the plot.

    Attributes:
        number: index of the point in the table.
        point: it.
        x, y: pixels.
        x99: pixel of the 99 % latency.
        y_low, y_high: pixels of the AUROC's interval.
        colour: number of its colour, by method.
        shape: by precision.
        label, label_x, label_y, anchor: text beside it; empty if there is no room.
    """

    number: int
    point: Point
    x: float
    y: float
    x99: float | None
    y_low: float | None
    y_high: float | None
    colour: int
    shape: str
    label: str = ""
    label_x: float = 0.0
    label_y: float = 0.0
    anchor: str = "start"

    @property
    def path(self) -> str:
        """Outline of the mark."""
        x, y, r = self.x, self.y, RADIUS
        if self.shape == "circle":
            return f"M{x - r},{y}a{r},{r} 0 1,0 {2 * r},0a{r},{r} 0 1,0 {-2 * r},0z"
        if self.shape == "square":
            return f"M{x - r + 1},{y - r + 1}h{2 * r - 2}v{2 * r - 2}h{2 - 2 * r}z"
        if self.shape == "triangle":
            return f"M{x},{y - r - 1}l{r + 1},{2 * r}h{-2 * r - 2}z"
        return f"M{x},{y - r - 2}l{r + 1},{r + 2}l{-r - 1},{r + 2}l{-r - 1},{-r - 2}z"


@dataclass(frozen=True)
class Plot:
    """A plot of one size.

    Attributes:
        width, height: pixels.
        x, y: axes.
        marks: of all points with both figures.
        front: pixels of the front, as SVG's `points`.
    """

    width: int
    height: int
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    front: str

    @property
    def legend(self) -> list[tuple[str, int]]:
        """Methods and the numbers of their colours."""
        return list(dict.fromkeys((mark.point.method, mark.colour) for mark in self.marks))


def draw(points: Sequence[Point], size: tuple[int, int] = WIDE, *, shown: Sequence[Point] | None = None) -> Plot:
    """Draw points.

    Args:
        points: all of them; those without both figures are left out.
        size: width and height, pixels.
        shown: those that are visible at first, and have labels and the front; None for all.
    """
    width, height = size
    plotted = [(number, point) for number, point in enumerate(points) if point.plotted]
    latencies = [value for _, each in plotted for value in (each.p50, each.p99) if value]
    aurocs = [100 * value for _, each in plotted for value in (each.auroc, *(each.interval or ())) if value is not None]
    x = fit_axis("latency, ms (median; whisker to p99)", latencies, LEFT, width - RIGHT, log=True, most=width // 90)
    y = fit_axis("image AUROC, %", [*aurocs, 100.0], height - BOTTOM, TOP, high=100.6, most=8)
    colours = {name: number for number, name in enumerate(dict.fromkeys(each.method for _, each in plotted))}
    marks = [_mark(number, point, x, y, colours[point.method]) for number, point in plotted]
    visible = {id(point) for point in (points if shown is None else shown)}
    best = front([mark.point for mark in marks if id(mark.point) in visible])
    corners = [(x.place(each.p50 or 0), y.place(100 * (each.auroc or 0))) for each in best]
    steps = _staircase(corners, width - RIGHT)
    labelled = _label(marks, visible, {id(point) for point in best}, steps, width)
    line = " ".join(f"{px},{py}" for px, py in steps)
    return Plot(width, height, x, y, tuple(labelled), line)


def _mark(number: int, point: Point, x: Axis, y: Axis, colour: int) -> Mark:
    low, high = point.interval or (None, None)
    return Mark(
        number,
        point,
        x.place(point.p50 or 1),
        y.place(100 * (point.auroc or 0)),
        x.place(point.p99) if point.p99 else None,
        None if low is None else y.place(100 * low),
        None if high is None else y.place(100 * high),
        colour,
        SHAPES.get(point.precision, "diamond"),
    )


def _staircase(corners: Sequence[tuple[float, float]], right: float) -> list[tuple[float, float]]:
    """Return the border of what the front beats, up to the right edge."""
    steps: list[tuple[float, float]] = []
    for px, py in corners:
        if steps:
            steps.append((px, steps[-1][1]))
        steps.append((px, py))
    if steps:
        steps.append((right, steps[-1][1]))
    return steps


def _label(
    marks: Sequence[Mark], visible: set[int], best: set[int], steps: Sequence[tuple[float, float]], width: int
) -> list[Mark]:
    """Put labels where they overlap neither marks, nor the front, nor each other; the front's come first."""
    taken = [(mark.x - 8, mark.y - 8, mark.x + 8, mark.y + 8) for mark in marks if id(mark.point) in visible]
    taken += [(x1, min(y1, y2) - 1, x2, max(y1, y2) + 1) for (x1, y1), (x2, y2) in pairwise(steps)]
    found = {mark.number: mark for mark in marks}
    names = short_names([mark.point for mark in marks if id(mark.point) in visible])
    order = sorted(marks, key=lambda mark: (id(mark.point) not in best, mark.point.kind != PUBLISHED, mark.x))
    for mark in order:
        if id(mark.point) not in visible:
            continue
        text = names[id(mark.point)]
        own = (mark.x - 8, mark.y - 8, mark.x + 8, mark.y + 8)
        for dx, dy, anchor in PLACES:
            length = LETTER * len(text)
            left = mark.x + dx - {"start": 0, "middle": length / 2, "end": length}[anchor]
            box = (left, mark.y + dy - 10, left + length, mark.y + dy + 3)
            if box[0] < LEFT or box[2] > width - 2 or box[1] < 0:
                continue
            if not any(_overlap(box, other) for other in taken if other != own):
                taken.append(box)
                at_x, at_y = round(mark.x + dx, 2), round(mark.y + dy, 2)
                found[mark.number] = replace(mark, label=text, anchor=anchor, label_x=at_x, label_y=at_y)
                break
    return [found[mark.number] for mark in marks]


def _overlap(one: tuple[float, float, float, float], two: tuple[float, float, float, float]) -> bool:
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]


def short_names(points: Sequence[Point]) -> dict[int, str]:
    """Return the texts beside the marks, by `id`; with the engine where two points would have the same one."""
    names = {id(point): _short_name(point) for point in points}
    often = Counter(names.values())
    for point in points:
        name = names[id(point)]
        text = f"{name}, {point.engine}" if often[name] > 1 and point.engine else name
        names[id(point)] = text if len(text) <= 34 else text[:33] + "…"
    return names


def _short_name(point: Point) -> str:
    parts = [point.method or point.name, point.preset, point.precision if point.precision != "fp32" else ""]
    return " ".join(part for part in parts if part)


def facts(point: Point) -> list[tuple[str, str]]:
    """Return what a reader sees about a point: name ↦ text, without empty ones."""
    auroc = percent(point.auroc) + (" %" if point.auroc is not None else "")
    if point.interval:
        auroc += f" (95 % interval {percent(point.interval[0])} to {percent(point.interval[1])})"
    if point.spread is not None:
        auroc += f" ± {percent(point.spread)} over {point.seeds} seeds"
    times = f"{milliseconds(point.p50)} ms"
    times += f", p90 {milliseconds(point.p90)}" if point.p90 else ""
    times += f", p99 {milliseconds(point.p99)}" if point.p99 else ""
    source = "published elsewhere, not measured here" if point.kind == PUBLISHED else ""
    found = [
        ("source", source),
        ("image AUROC", auroc),
        ("AUPRO", f"{percent(point.aupro)} %" if point.aupro is not None else ""),
        ("latency", times),
        ("category", "" if point.kind == PUBLISHED else "mean of all" if point.category == ALL else point.category),
        ("method", " ".join(filter(None, (point.method, point.preset)))),
        ("input", point.size),
        ("precision", point.precision),
        ("engine", point.engine),
        ("device", point.device),
        ("publication", point.where if point.kind == PUBLISHED else ""),
        ("when", when(point.created) if point.created else ""),
        *point.conditions,
    ]
    return [(name, text) for name, text in found if text]


def first_category(points: Sequence[Point]) -> str:
    """Return the category to show first: the means if there are several points with one, else the fullest."""
    counts: dict[str, int] = {}
    for point in points:
        if point.plotted and point.kind != PUBLISHED:
            counts[point.category] = counts.get(point.category, 0) + 1
    if counts.get(ALL, 0) > 1:
        return ALL
    return max(counts, key=lambda name: counts[name], default="")
