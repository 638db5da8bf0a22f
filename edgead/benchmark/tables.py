"""The figures of a report as tables in plain text, and as CSV. What decides stands first."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterator, Sequence

from edgead import text
from edgead.benchmark.figures import FailedRow, Range
from edgead.benchmark.operating import ALLOWED
from edgead.benchmark.report import Average, Row
from edgead.reports.benchmark_page import METRICS

DASH = "–"
"""Shown for a missing figure."""
UNSTABLE = "unstable"
"""Shown instead of latencies from a machine that was not quiet."""
TIMES = ("p50", "p90", "p99")
FOUND_AT = tuple(f"found at {100 * allowed:g} %" for allowed in ALLOWED)
"""Titles of the columns of defects found at a share of good parts rejected."""
ALIKE = "≈"
"""Beside an image AUROC that cannot be told from the best one on the same images."""
WIDTH = 100
"""Columns of a terminal that every table fits into."""
LONGEST_NAME = 18
"""Characters of a name in the first column; a longer name has its own line above its figures."""


def to_table(rows: Sequence[Row | Average], failed: Sequence[FailedRow] = ()) -> str:
    """Format rows and averages as tables in plain text: decisions, speed, kinds of defects, further metrics.

    Args:
        rows: of a report.
        failed: bundles and engines that could not be measured.
    """
    measured = [row for row in rows if isinstance(row, Row)]
    parts = [
        _decisions(rows, failed),
        _speed(measured),
        *_kinds(measured),
        _throughput(measured),
        _metrics(rows),
        "\n".join(map(_wrap, _notes(rows))),
    ]
    return "\n\n".join(part for part in parts if part)


def _names(rows: Sequence[Row | Average]) -> list[str]:
    """Return what tells rows apart: the bundle, its category if there are several, its engine if there are several."""
    measured = [row for row in rows if isinstance(row, Row)]
    categories = len({row.category for row in measured}) > 1
    engines = len({row.bundle for row in measured}) < len(measured)
    names = []
    for row in rows:
        name = row.bundle
        if isinstance(row, Row) and categories:
            name += f", {row.category}"
        if isinstance(row, Row) and engines:
            name += f", {row.engine}"
        names.append(name)
    return names


def _decisions(rows: Sequence[Row | Average], failed: Sequence[FailedRow]) -> str:
    """The table that a plant decides by."""
    lines = [["", "defects found", "good rejected", *FOUND_AT, "image AUROC"]]
    for name, row in zip(_names(rows), rows):
        lines.append([name, *own_threshold(row)[::-1], *at_allowed(row), auroc(row)])
    title = (
        "Decisions: percent, with 95 % intervals; defects found and good parts rejected by the bundle's own threshold"
    )
    reasons = [_wrap(f"{each.bundle} on {each.engine} failed: {each.reason}") for each in failed]
    return "\n".join([_wrap(title), _align(lines), *reasons])


def _speed(rows: Sequence[Row]) -> str:
    lines = [["", "p50 ms", "p90", "p99", "p99.9", "floor", "p50/floor", "first s", "MiB", "MB"]]
    for row in rows:
        floor, start = row.floor, row.start
        lines.append(
            [
                f"{row.bundle} on {row.engine}",
                *times(row),
                f"{floor.floor_ms:.1f}" if floor else DASH,
                DASH if not floor or row.latency.unstable else f"{floor.ratio:.1f}",
                f"{start.first_result_seconds:.1f}" if start else DASH,
                f"{start.peak_rss_mib:.0f}" if start else DASH,
                DASH if row.bundle_bytes is None else f"{row.bundle_bytes / 1e6:.1f}",
            ]
        )
    title = (
        "Speed: milliseconds of the whole call; the least time in which this machine can compute the graph (floor); "
        "seconds to the first result; peak memory; size of the bundle"
    )
    return f"{_wrap(title)}\n{_align(lines)}"


def _throughput(rows: Sequence[Row]) -> str:
    """Frames per second, and the latency by MLPerf's rule, of the rows that have them."""
    blocks = []
    for row in rows:
        name = f"{row.bundle} on {row.engine}"
        points = row.latency.throughput
        if points:
            each = "; ".join(f"{point.streams} × {point.batch}: {point.fps:.1f}" for point in points)
            blocks.append(f"Frames per second of {name}, sources × frames per inference: {each}.")
        single = row.latency.single_stream
        if single:
            blocks.append(
                f"Single stream of {name}: {single.p90_ms:.2f} ms at 90 % of {single.queries} queries in "
                f"{single.seconds:.0f} s (MLPerf's rule; not an MLPerf result)."
            )
    return "\n".join(map(_wrap, blocks))


def _kinds(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the table of each row with several kinds of defects; engines that decide alike share one."""
    shown = set()
    for row in rows:
        if row.kinds and len(row.kinds) > 1 and (row.bundle, repr(row.kinds)) not in shown:
            shown.add((row.bundle, repr(row.kinds)))
            name = f"{row.bundle} on {row.engine}"
            yield f"Kinds of defects, {name}: percent found, with 95 % intervals\n{_align(kind_lines(row))}"


def kind_lines(row: Row) -> list[list[str]]:
    """Return the table of a row's kinds of defects, with its header."""
    lines = [["", "images", "own threshold", *FOUND_AT, "image AUROC"]]
    for each in row.kinds or ():
        found = [text.percent(each.at[f"{allowed:g}"]) for allowed in ALLOWED]
        own = with_interval(each.detection_rate, each.detection_interval)
        area = with_interval(each.image_auroc, each.image_auroc_interval)
        lines.append([each.kind, str(each.images), own, *found, area])
    return lines


def _metrics(rows: Sequence[Row | Average]) -> str:
    lines = [["", *METRICS]]
    lines += [[name, *map(percent, row.metrics.values())] for name, row in zip(_names(rows), rows)]
    return f"Metrics\n{_align(lines)}"


def _notes(rows: Sequence[Row | Average]) -> Iterator[str]:
    yield from operating_notes([row for row in rows if isinstance(row, Row)])
    for row in rows:
        if isinstance(row, Row) and row.latency.unstable:
            yield f"{UNSTABLE}: {row.bundle} on {row.engine}: {row.latency.unstable}."
        if row.protocol:
            yield f"{row.bundle}: {row.protocol}"


def operating_notes(rows: Sequence[Row]) -> list[str]:
    """Return what a reader of shares at allowed false rejects, and of ``≈``, must know; one line per category."""
    notes, limits = {}, dict[tuple[str, float], float]()
    for row in rows:
        for each in row.decisions.operating_points or ():  # equal scores of good images make the limits differ
            key = row.category, each.allowed
            limits[key] = max(limits.get(key, 0.0), each.false_reject_interval[1])
    for row in rows:
        allowed = [each.allowed for each in row.decisions.operating_points or ()]
        shares = " and ".join(f"{100 * each:g} %" for each in allowed)
        if allowed and row.category not in notes:
            most = " and ".join(percent(limits[row.category, each]) for each in allowed)
            notes[row.category] = (
                f"{row.category}: {row.images.good} good, {row.images.defective} defective test images. The thresholds "
                f"that reject at most {shares} of these good images may reject up to {most} of new ones."
            )
    if any(row.comparison and row.comparison.indistinguishable for row in rows):
        notes[""] = (
            f"{ALIKE}: indistinguishable from the best row on the same images (95 %, all pairs together, DeLong)."
        )
    return [*notes.values()]


def _align(lines: Sequence[Sequence[str]]) -> str:
    """Align columns below the header in `lines`. The first column is for names, see `LONGEST_NAME`."""
    short = [line[0] for line in lines if len(line[0]) <= LONGEST_NAME]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    widths[0] = max([2, *map(len, short)])

    def format_line(line: Sequence[str]) -> str:
        name, rest = line[0], line[1:]
        figures = "  ".join(cell.ljust(width) for cell, width in zip(rest, widths[1:])).rstrip()
        above = f"{name}\n" if len(name) > widths[0] else ""
        return f"{above}{('' if above else name).ljust(widths[0])}  {figures}".rstrip()

    header, *body = map(format_line, lines)
    return "\n".join([header, "-" * len(header), *body])


def _wrap(text: str) -> str:
    return "\n".join(textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False))


def percent(value: float | None) -> str:
    """Format a share in percent; a dash for None."""
    return DASH if value is None else f"{text.percent(value)} %"


def times(row: Row) -> tuple[str, str, str, str]:
    """Format p50, p90, p99 and p99.9 in milliseconds; the word ``unstable`` where the machine was not quiet."""
    if row.latency.unstable:
        return UNSTABLE, DASH, DASH, DASH
    found = row.latency.latency_ms
    p50, p90, p99 = (f"{value:.1f}" for value in found.values())
    return p50, p90, p99, DASH if found.p999 is None else f"{found.p999:.1f}"


def auroc(row: Row | Average) -> str:
    """Format the image AUROC in percent with its interval, and ``≈`` where the best row is indistinguishable."""
    found = row.metrics
    text = with_interval(found.image_auroc, found.image_auroc_interval)
    alike = isinstance(row, Row) and row.comparison and row.comparison.indistinguishable
    return f"{text} {ALIKE}" if alike else text


def own_threshold(row: Row | Average) -> tuple[str, str]:
    """Format the shares of good parts rejected and of defects found, in percent with their 95 % intervals.

    For instance ``50.0 (23–77)``; dashes for an average, which has no shares.
    """
    if isinstance(row, Average):
        return DASH, DASH
    found = row.decisions
    return (
        with_interval(found.false_reject_rate, found.false_reject_interval),
        with_interval(found.detection_rate, found.detection_interval),
    )


def at_allowed(row: Row | Average) -> list[str]:
    """Format the share of defects found at each share of good parts in `ALLOWED`; dashes where it is unknown."""
    points = (row.decisions.operating_points if isinstance(row, Row) else None) or ()
    found = {each.allowed: with_interval(each.detection_rate, each.detection_interval) for each in points}
    return [found.get(allowed, DASH) for allowed in ALLOWED]


def with_interval(rate: float, interval: Range | None) -> str:
    """Format a share in percent with its interval: ``50.0 (23–77)``."""
    if interval is None:
        return text.percent(rate)
    low, high = interval
    return f"{text.percent(rate)} ({text.percent(low, 0)}–{text.percent(high, 0)})"


def to_csv(rows: Sequence[Row]) -> str:
    """Format rows as CSV with a header."""
    stream = io.StringIO()
    lines = [_csv_line(row) for row in rows]
    writer = csv.DictWriter(stream, lines[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _csv_line(row: Row) -> dict[str, object]:
    decisions, promise = row.decisions, row.decisions.promise
    (rejected_low, rejected_high), (detected_low, detected_high) = (
        decisions.false_reject_interval,
        decisions.detection_interval,
    )
    auroc_low, auroc_high = row.metrics.image_auroc_interval or ("", "")
    points = {each.allowed: each for each in decisions.operating_points or ()}
    return {
        "bundle": row.bundle,
        "method": row.method,
        "preset": row.preset,
        "category": row.category,
        "engine": row.engine,
        "precision": row.precision,
        "detection_rate": decisions.detection_rate,
        "detection_low": detected_low,
        "detection_high": detected_high,
        "false_reject_rate": decisions.false_reject_rate,
        "false_reject_low": rejected_low,
        "false_reject_high": rejected_high,
        **{f"detection_at_{each:g}": points[each].detection_rate if each in points else "" for each in ALLOWED},
        "promised_average": promise.average if promise else "",
        "promised_limit": promise.limit if promise else "",
        **dict(zip(METRICS, row.metrics.values())),
        "image_auroc_low": auroc_low,
        "image_auroc_high": auroc_high,
        "indistinguishable_from_best": row.comparison.indistinguishable if row.comparison else "",
        **{f"{name}_ms": value for name, value in zip(TIMES, row.latency.latency_ms.values())},
        "unstable": row.latency.unstable,
        "floor_ms": row.floor.floor_ms if row.floor else "",
        "protocol": row.protocol,
        "warning": decisions.warning,
    }
