"""The figures of a report as a table in plain text, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from edgead.benchmark.report import METRICS, Average, Row

DASH = "–"
"""Shown for a missing figure."""
TIMES = ("p50", "p90", "p99")


def to_table(rows: Sequence[Row | Average]) -> str:
    """Format rows, or averages, as a table in plain text."""
    names = ["bundle", "category", *METRICS, "good rejected", "defects found", *(f"{name} ms" for name in TIMES)]
    cells = [names, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells]
    notes = [f"{row.bundle}: {row.protocol}" for row in rows if row.protocol]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], *notes])


def _cells(row: Row | Average) -> list[str]:
    figures = [percent(value) for value in row.metrics.values()]
    times = row.latency.latency_ms if isinstance(row, Row) else row.latency_ms
    return [row.bundle, row.category, *figures, *own_threshold(row), *(f"{value:.1f}" for value in times.values())]


def percent(value: float | None) -> str:
    """Format a share in percent; a dash for None."""
    return DASH if value is None else f"{100 * value:.1f} %"


def own_threshold(row: Row | Average) -> tuple[str, str]:
    """Format the shares of good parts rejected and of defects found, in percent with their 95 % intervals.

    For instance ``50.0 (23–77)``; dashes for an average, which has no shares.
    """
    if isinstance(row, Average):
        return DASH, DASH
    found = row.decisions
    return (
        _with_interval(found.false_reject_rate, found.false_reject_interval),
        _with_interval(found.detection_rate, found.detection_interval),
    )


def _with_interval(rate: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{100 * rate:.1f} ({100 * low:.0f}–{100 * high:.0f})"


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
    return {
        "bundle": row.bundle,
        "method": row.method,
        "preset": row.preset,
        "category": row.category,
        "engine": row.engine,
        "precision": row.precision,
        **dict(zip(METRICS, row.metrics.values())),
        "false_reject_rate": decisions.false_reject_rate,
        "false_reject_low": rejected_low,
        "false_reject_high": rejected_high,
        "promised_average": promise.average if promise else "",
        "promised_limit": promise.limit if promise else "",
        "detection_rate": decisions.detection_rate,
        "detection_low": detected_low,
        "detection_high": detected_high,
        **{f"{name}_ms": value for name, value in zip(TIMES, row.latency.latency_ms.values())},
        "protocol": row.protocol,
        "warning": decisions.warning,
    }
