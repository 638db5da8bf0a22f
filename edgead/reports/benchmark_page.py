"""The page of a benchmark: decisions first, then accuracy, latency, the plot, and the worst misses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgead.reports import pareto
from edgead.reports.page import DASH, describe_device, milliseconds, percent, render
from edgead.reports.pictures import Group
from edgead.reports.points import points_of

Row = Mapping[str, Any]
Table = tuple[list[str], list[list[str]]]
METRICS = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1_max": "image F1-max",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_f1_max": "pixel F1-max",
    "aupro": "AUPRO 30 %",
}
"""Field of a row ↦ title, in the order of the tables."""


def is_benchmark(stored: Mapping[str, Any]) -> bool:
    """Tell whether a results.json is a benchmark's."""
    return {"rows", "averages", "conditions", "machine"} <= stored.keys()


def benchmark_page(stored: Mapping[str, Any], pictures: Sequence[Group], folder: Path) -> str:
    """Return the page of a benchmark.

    Args:
        stored: the content of its results.json; fields that older files lack are left out.
        pictures: of the worst misses.
        folder: of the report, for error messages.
    """
    rows, averages = stored["rows"], stored["averages"]
    points = points_of(stored, folder)
    first = pareto.first_category(points)
    shown = [point for point in points if point.category == first]
    categories = sorted({point.category for point in points if point.plotted})
    return render(
        "benchmark.html",
        kind="benchmark",
        title=_title(rows),
        created=stored["created"],
        device=describe_device(stored["machine"]),
        conditions=stored["conditions"],
        pixel_size=stored["conditions"].get("pixel_size"),
        warnings=_warnings(rows, averages),
        failed=[[row["bundle"], row["engine"], row["reason"]] for row in stored.get("failed") or ()],
        decisions=_decisions(rows),
        operating=_operating(rows),
        kinds=_kinds(rows),
        accuracy=_accuracy([*rows, *averages]),
        means=len(averages),
        latency=_latency(rows),
        cost=_cost(rows),
        plots=[pareto.draw(points, size, shown=shown) for size in (pareto.WIDE, pareto.NARROW)],
        points=points,
        visible={number for number, point in enumerate(points) if point.category == first},
        filters={"category": [(name, name, name == first) for name in categories]} if len(categories) > 1 else {},
        values=[{"category": point.category} for point in points],
        details=list(map(pareto.facts, points)),
        pictures=pictures,
        raw={name: stored[name] for name in ("command", "machine", "versions", "conditions") if name in stored},
        footer="Rebuild this page with: edgead report FOLDER",
    )


def _title(rows: Sequence[Row]) -> str:
    names = list(dict.fromkeys(str(row["bundle"]) for row in rows))
    categories = list(dict.fromkeys(str(row["category"]) for row in rows))
    return f"{_few(names)} on {_few(categories)}" if rows else "no rows"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _warnings(rows: Sequence[Row], averages: Sequence[Row]) -> list[tuple[str, str]]:
    found = [(_name(row), f"Warning: {text}") for row in rows if (text := (row.get("promise") or {}).get("warning"))]
    unstable = [(_name(row), (row.get("stability") or {}).get("unstable")) for row in rows]
    found += [(name, f"Unstable: {text}") for name, text in unstable if text]
    notes = [(_name(row), row["protocol"]) for row in [*rows, *averages] if row.get("protocol")]
    return found + notes


def _name(row: Row) -> str:
    return " · ".join(str(row[name]) for name in ("bundle", "engine") if row.get(name))


def _with_interval(rate: float | None, interval: Sequence[float] | None) -> str:
    if rate is None or not interval:
        return percent(rate)
    return f"{percent(rate)} ({percent(interval[0], 0)}–{percent(interval[1], 0)})"


def _decisions(rows: Sequence[Row]) -> Table:
    header = ["bundle · engine", "category", "defects found", "good rejected", "promised", "good", "defective"]
    lines = []
    for row in rows:
        promise, images = row.get("promise"), row.get("images") or {}
        limit = f"{percent(promise['average'])}, at most {percent(promise['limit'])}" if promise else DASH
        found = _with_interval(row.get("detection_rate"), row.get("detection_interval"))
        rejected = _with_interval(row.get("false_reject_rate"), row.get("false_reject_interval"))
        counts = [str(images.get(name, DASH)) for name in ("good", "defective")]
        lines.append([_name(row), str(row["category"]), found, rejected, limit, *counts])
    return header, lines


def _operating(rows: Sequence[Row]) -> Table:
    """Defects found where a share of the good test images is rejected; empty for older files."""
    shares = sorted({point["allowed"] for row in rows for point in row.get("operating_points") or ()})
    header = ["bundle · engine", "category", *(f"at {percent(share, 0)} % false rejects" for share in shares)]
    lines = []
    for row in rows if shares else ():
        at = {point["allowed"]: point for point in row.get("operating_points") or ()}
        cells = [
            _with_interval(at[share]["detection_rate"], at[share]["detection_interval"]) if share in at else DASH
            for share in shares
        ]
        lines.append([_name(row), str(row["category"]), *cells])
    return header, lines


def _kinds(rows: Sequence[Row]) -> Table:
    header = ["bundle · engine", "category", "kind of defect", "images", "image AUROC", "found at own threshold"]
    lines = [
        [
            _name(row),
            str(row["category"]),
            str(kind["kind"]),
            str(kind["images"]),
            _with_interval(kind["image_auroc"], kind.get("image_auroc_interval")),
            _with_interval(kind["detection_rate"], kind.get("detection_interval")),
        ]
        for row in rows
        for kind in row.get("kinds") or ()
    ]
    return header, lines


def _accuracy(rows: Sequence[Row]) -> Table:
    header = ["bundle · engine", "category", *METRICS.values()]
    compared = any(row.get("comparison") for row in rows)
    header += ["against the best"] if compared else []
    lines = []
    for row in rows:
        cells = [percent(row.get(name)) for name in METRICS]
        cells[0] = _with_interval(row.get("image_auroc"), row.get("image_auroc_interval"))
        lines.append([_name(row), str(row["category"]), *cells, *([_against(row)] if compared else [])])
    return header, lines


def _against(row: Row) -> str:
    comparison = row.get("comparison")
    if not comparison:
        return DASH
    low, high = comparison["interval"]
    text = f"{100 * comparison['difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
    return f"{text}, indistinguishable" if comparison["indistinguishable"] else text


def _latency(rows: Sequence[Row]) -> Table:
    header = ["bundle · engine", "category", "p50", "p90", "p99", "fit", "infer", "post", "engine alone", "ratio"]
    header += ["mask", "calls"]
    lines = []
    for row in rows:
        times = row.get("latency_ms") or {}
        stages = row.get("stages_ms") or {}
        if (row.get("stability") or {}).get("unstable"):
            lines.append([_name(row), str(row["category"]), "unstable", *[DASH] * 8, str(row.get("rounds", DASH))])
            continue
        cells = [milliseconds(times.get(name)) for name in ("p50", "p90", "p99")]
        if interval := (row.get("latency_intervals_ms") or {}).get("p50"):
            cells[0] += f" ({milliseconds(interval[0])}–{milliseconds(interval[1])})"
        cells += [milliseconds((stages.get(name) or {}).get("p50")) for name in ("fit", "infer", "post")]
        cells.append(milliseconds((row.get("engine_ms") or {}).get("p50")))
        ratio = row.get("inspect_over_engine")
        cells += [DASH if ratio is None else f"{ratio:.3f}", milliseconds((row.get("mask_ms") or {}).get("p50"))]
        lines.append([_name(row), str(row["category"]), *cells, str(row.get("rounds", DASH))])
    return header, lines


def _cost(rows: Sequence[Row]) -> Table:
    """Floor, memory, size and start; empty for older files."""
    header = [
        "bundle · engine",
        "category",
        "floor, ms",
        "p50 over floor",
        "bundle, MB",
        "memory, MiB",
        "first result, s",
    ]
    lines = []
    for row in rows:
        floor, start = row.get("floor") or {}, row.get("start") or {}
        if not (floor or start):
            continue
        size = row.get("bundle_bytes")
        lines.append(
            [
                _name(row),
                str(row["category"]),
                milliseconds(floor.get("floor_ms")),
                DASH if not floor or (row.get("stability") or {}).get("unstable") else f"{floor['ratio']:.2f}",
                DASH if size is None else f"{size / 1e6:.1f}",
                DASH if not start else f"{start['peak_rss_mib']:.0f}",
                DASH if not start else f"{start['first_result_seconds']:.1f}",
            ]
        )
    return header, lines
