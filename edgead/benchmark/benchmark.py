"""`edgead benchmark`: bundles on a labelled data set, as a table, results.json, results.csv and report.html."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from edgead.benchmark.accuracy import FPR_LIMIT, METRICS, OWN_THRESHOLD, Miss, measure_accuracy, share_with_interval
from edgead.benchmark.latency import measure_latency
from edgead.console import Console
from edgead.datasets import Category, open_categories
from edgead.datasets.copies import find_copies
from edgead.errors import DataError, require
from edgead.files import new_folder, refuse_existing, write_json, write_text
from edgead.images import COLOUR, Frame, PixelFormat, read_frame
from edgead.machine import describe_machine, versions
from edgead.runtime.inspector import Inspector, load

TIMED_FRAMES = 32
"""Different images that are timed; more would be decoded into memory for nothing."""

FILES = ("results.json", "results.csv", "report.html")
"""Of a report."""


@dataclass(frozen=True)
class Report:
    """What a benchmark found. `rows` has one dictionary per bundle and category; see docs/benchmark.md."""

    results: dict[str, Any]
    misses: tuple[tuple[str, tuple[Miss, ...]], ...]

    @property
    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.results["rows"]
        return rows


def benchmark(
    bundles: Sequence[str | Path],
    data: str | Path,
    *,
    engine: str = "auto",
    rounds: int = 100,
    pixel_size: int = 256,
    out: str | Path | None = None,
    force: bool = False,
    command: Sequence[str] = (),
    console: Console | None = None,
) -> tuple[Report, Path]:
    """Measure accuracy and latency of bundles.

    Each bundle is measured on the category that it was made for; where the data set has just one category, on that.

    Args:
        bundles: folders of bundles.
        data: folder of one or of several categories with labelled test images.
        engine: what runs them; see `edgead.load`.
        rounds: timed calls of each bundle.
        pixel_size: side at which pixel metrics are computed.
        out: folder of the report; a new one below ``runs/benchmark`` by default.
        force: replace any report in `out`. One of the same command is replaced in any case.
        command: the command line, for the record.
        console: shows progress.

    Returns:
        The report and the folder that it was written to.

    Raises:
        ConfigError: there is a report of another command in `out`.
        DataError: a bundle's category is not in the data set, or has no labelled images.
        MissingDependencyError: matplotlib, which draws the plot, is not installed.
    """
    require("matplotlib", "benchmark")
    if out and not _is_repeated(Path(out), command):
        refuse_existing((Path(out, name) for name in FILES), force)
    console = console or Console()
    machine = describe_machine()
    categories = open_categories(data)
    inspectors = [load(bundle, engine=engine, console=console) for bundle in bundles]
    chosen = [_category_of(inspector, categories) for inspector in inspectors]
    rows: list[dict[str, Any]] = []
    misses: list[tuple[str, tuple[Miss, ...]]] = []
    for inspector, category in zip(inspectors, chosen):
        manifest = inspector.bundle.manifest
        if category.name != manifest.category:
            console.say(f"{manifest.name} was made for '{manifest.category}' and is measured on '{category.name}'.")
        if category.without_mask:
            console.say(
                f"Warning: {category.without_mask} defective images of {category.name} have no mask; "
                "they count for the image metrics only."
            )
        for note in category.notes:
            console.say(f"{category.name}: {note}")
        copies = _copies(category)
        if copies:
            console.say(
                f"Warning: {copies} of {len(category.test)} labelled images of {category.name} are copies of images to "
                "train on; the figures are too good."
            )
        accuracy = measure_accuracy(inspector, category, pixel_size, console)
        rows.append(
            {
                "bundle": manifest.name,
                "method": manifest.method,
                "preset": manifest.preset,
                "config": manifest.config,
                "category": category.name,
                "engine": inspector.engine.name,
                "precision": manifest.precision,
                "size": list(manifest.size),
                "protocol": manifest.training.protocol or "",
                **accuracy.values,
                "copies_of_training": copies,
            }
        )
        if warning := _warning(rows[-1]):
            console.say(f"Warning: {manifest.name}: {warning}")
        misses.append((f"{manifest.name} on {category.name}", accuracy.misses))
    # Bundles without depth leave it out of the frames; those with other ranges are timed no differently.
    pixels = next((inspector.pixels for inspector in inspectors if inspector.depth_range), COLOUR)
    frames = _frames_to_time(chosen, pixels, console)
    for row, latency in zip(rows, measure_latency(inspectors, frames, rounds, console)):
        row.update(latency)
    for inspector in inspectors:
        inspector.close()
    results = {
        "schema": 1,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(command),
        "machine": machine,
        "versions": versions(),
        "conditions": {
            "rounds": rounds,
            "pixel_size": pixel_size,
            "fpr_limit": FPR_LIMIT,
            "timed_frames": len(frames),
            "frame_sizes": sorted({f"{frame.shape[1]}x{frame.shape[0]}" for frame in frames}),
        },
        "rows": rows,
        "averages": _averages(rows),
    }
    report = Report(results, tuple(misses))
    folder = Path(out) if out else new_folder(Path("runs", "benchmark", f"{datetime.now():%Y%m%d-%H%M%S}"))
    write_report(report, folder)
    return report, folder


def _is_repeated(folder: Path, command: Sequence[str]) -> bool:
    """Tell whether a folder holds the report of the same command, which may be replaced."""
    try:
        stored = json.loads((folder / FILES[0]).read_text(encoding="utf-8"))["command"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(command) and stored == shlex.join(command)


def write_report(report: Report, folder: Path) -> None:
    """Write `FILES`."""
    from edgead.benchmark.html import render  # matplotlib: a second to import, and only needed here

    results, table, page = (folder / name for name in FILES)
    write_json(results, report.results)
    write_text(table, _to_csv(report.rows))
    write_text(page, render(report.results, report.misses))


def to_table(rows: Sequence[dict[str, Any]]) -> str:
    """Format rows, or averages, as a table in plain text."""
    names = ["bundle", "category", *METRICS, *OWN_THRESHOLD.values(), "p50 ms", "p90 ms", "p99 ms"]
    cells = [names]
    for row in rows:
        figures = ["–" if row[name] is None else f"{100 * row[name]:.1f} %" for name in METRICS]
        shares = [share_with_interval(row, name) for name in OWN_THRESHOLD]
        times = [f"{row['latency_ms'][name]:.1f}" for name in ("p50", "p90", "p99")]
        cells.append([row["bundle"], row["category"], *figures, *shares, *times])
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells]
    # Some figures cannot be read without a word on how they came about.
    notes = [f"{row['bundle']}: {row['protocol']}" for row in rows if row["protocol"]]
    notes += [f"Warning: {row['bundle']}: {_warning(row)}" for row in rows if _warning(row)]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], *notes])


def _copies(category: Category) -> int:
    """Count labelled images that are, byte for byte, among those that the data set has for training."""
    images = [sample.path for sample in category.labelled()]
    return len(find_copies(images, (*category.normals, *category.validation)))


def _warning(row: dict[str, Any]) -> str:
    """Return what contradicts the threshold's promise in a row; averages have none."""
    return str((row.get("promise") or {}).get("warning", ""))


def _category_of(inspector: Inspector, categories: Sequence[Category]) -> Category:
    wanted = inspector.bundle.manifest.category
    for category in categories:
        if category.name == wanted or len(categories) == 1:
            return category
    known = ", ".join(category.name for category in categories)
    raise DataError(f"{inspector.bundle.path} was made for '{wanted}'; the data set has {known}.")


def _frames_to_time(categories: Sequence[Category], pixels: PixelFormat, console: Console) -> list[Frame]:
    paths = [sample.path for category in dict.fromkeys(categories) for sample in category.test]
    chosen = np.linspace(0, len(paths) - 1, min(TIMED_FRAMES, len(paths))).round().astype(int)
    frames = []
    for index in console.track("reading frames to time")(list(chosen)):
        try:
            frames.append(read_frame(paths[index], pixels))
        except DataError:  # named already when the accuracy was measured
            continue
    return frames


def _averages(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean over categories of bundles that differ in nothing else, where each has a category of its own."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        kind = (row["method"], row["preset"], row["precision"], row["engine"])
        groups.setdefault((*kind, json.dumps(row["config"])), []).append(row)
    averages = []
    for (method, preset, precision, engine, _), members in groups.items():
        if len(members) < 2 or len({row["category"] for row in members}) < len(members):
            continue
        average: dict[str, Any] = {
            "bundle": f"{method} {preset} {precision}",
            "category": f"mean of {len(members)}",
            "engine": engine,
            "protocol": next((member["protocol"] for member in members if member["protocol"]), ""),
            "latency_ms": {
                name: float(np.mean([member["latency_ms"][name] for member in members]))
                for name in ("p50", "p90", "p99")
            },
        }
        for name in METRICS:
            values = [member[name] for member in members if member[name] is not None]
            average[name] = float(np.mean(values)) if values else None
        averages.append(average)
    return averages


def _to_csv(rows: Sequence[dict[str, Any]]) -> str:
    stream = io.StringIO()
    names = [
        "bundle",
        "method",
        "preset",
        "category",
        "engine",
        "precision",
        *METRICS,
        "false_reject_rate",
        "false_reject_low",
        "false_reject_high",
        "promised_average",
        "promised_limit",
        "detection_rate",
        "detection_low",
        "detection_high",
        "p50_ms",
        "p90_ms",
        "p99_ms",
        "protocol",
        "warning",
    ]
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        flat = {**row, **{f"{name}_ms": value for name, value in row["latency_ms"].items()}}
        for name in OWN_THRESHOLD:
            flat[f"{name}_low"], flat[f"{name}_high"] = row[f"{name}_interval"]
        promise = row["promise"] or {}
        flat["warning"] = _warning(row)
        flat |= {f"promised_{name}": promise.get(name, "") for name in ("average", "limit")}
        writer.writerow([flat[name] for name in names])
    return stream.getvalue()
