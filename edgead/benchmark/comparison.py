"""`edgead benchmark`: measure bundles on a labelled data set and write a report."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from edgead.benchmark.accuracy import FPR_LIMIT, Accuracy, Miss, measure_accuracy
from edgead.benchmark.latency import measure_latency
from edgead.benchmark.report import FILES, Average, Conditions, Latency, Metrics, Percentiles, Report, Row
from edgead.benchmark.tables import to_csv
from edgead.console import Console
from edgead.datasets import Category, open_categories
from edgead.datasets.copies import find_copies
from edgead.errors import DataError, require
from edgead.files import new_folder, refuse_existing, write_json, write_text
from edgead.images import COLOUR, Frame, PixelFormat, read_frame
from edgead.machine import describe_machine, versions
from edgead.reports.build import build_report
from edgead.reports.pictures import Group, Picture, picture, write_pictures
from edgead.runtime.inspector import Inspector, load

TIMED_FRAMES = 32
"""Different images for timing; more would only need memory."""


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
) -> Report:
    """Measure accuracy and latency of bundles, and write results.json, results.csv and report.html.

    Each bundle is measured on its own category. A data set with a single category is used for all bundles.

    Args:
        bundles: folders of bundles.
        data: folder of one or several categories with labelled test images.
        engine: inference engine, see `edgead.load`.
        rounds: timed calls per bundle.
        pixel_size: side of maps and masks in pixel metrics, in pixels.
        out: folder of the report; by default a new folder in ``runs/benchmark``.
        force: replace any report in `out`. A report of the same command is always replaced.
        command: the command line, stored in the report.
        console: shows progress and warnings.

    Returns:
        The report; its files are in `Report.folder`.

    Raises:
        ConfigError: `out` holds a report of another command.
        DataError: a bundle's category is not in the data set, or has no labelled images.
        MissingDependencyError: jinja2, which writes the page, is not installed.
    """
    require("jinja2", "benchmark")
    if out and not _is_repeated(Path(out), command):
        refuse_existing((Path(out, name) for name in FILES), force)
    console, machine = console or Console(), describe_machine()
    categories = open_categories(data)
    with ExitStack() as stack:
        inspectors = [stack.enter_context(load(bundle, engine=engine, console=console)) for bundle in bundles]
        chosen = [_category_of(inspector, categories) for inspector in inspectors]
        copies = [_check_data(inspector, category, console) for inspector, category in zip(inspectors, chosen)]
        accuracies = [
            measure_accuracy(inspector, category, pixel_size, console)
            for inspector, category in zip(inspectors, chosen)
        ]
        frames = _frames_to_time(inspectors, chosen, console)
        latencies = measure_latency(inspectors, frames, rounds, console)
    rows = tuple(map(_make_row, inspectors, chosen, copies, accuracies, latencies))
    for row in rows:
        if row.decisions.warning:
            console.say(f"Warning: {row.bundle}: {row.decisions.warning}")
    report = Report(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=shlex.join(command),
        machine=machine,
        versions=versions(),
        conditions=Conditions(rounds, pixel_size, FPR_LIMIT, len(frames), _sizes(frames)),
        rows=rows,
        averages=_average(rows),
        folder=Path(out) if out else new_folder(Path("runs", "benchmark", f"{datetime.now():%Y%m%d-%H%M%S}")),
    )
    titles = [f"{row.bundle} on {row.category}" for row in rows]
    write_report(report, [(title, accuracy.misses) for title, accuracy in zip(titles, accuracies)])
    return report


def write_report(report: Report, misses: Sequence[tuple[str, Sequence[Miss]]]) -> None:
    """Write `FILES` and the page's pictures to the report's folder. The page shows `misses` under their titles."""
    write_json(report.folder / FILES[0], report.to_dict())
    write_text(report.folder / FILES[1], to_csv(report.rows))
    write_pictures(report.folder, [Group(title, tuple(map(_picture, items))) for title, items in misses])
    build_report(report.folder)


def _picture(miss: Miss) -> Picture:
    return picture(f"{miss.sample.kind}, score {miss.score:.4g}, {miss.sample.path.name}", miss.picture)


def _is_repeated(folder: Path, command: Sequence[str]) -> bool:
    """Tell whether a folder holds the report of the same command, which may be replaced."""
    try:
        stored = json.loads((folder / FILES[0]).read_text(encoding="utf-8"))["command"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(command) and stored == shlex.join(command)


def _category_of(inspector: Inspector, categories: Sequence[Category]) -> Category:
    wanted = inspector.bundle.manifest.category
    for category in categories:
        if category.name == wanted or len(categories) == 1:
            return category
    known = ", ".join(category.name for category in categories)
    raise DataError(f"{inspector.bundle.path} was trained on '{wanted}'. Categories of the data set: {known}.")


def _check_data(inspector: Inspector, category: Category, console: Console) -> int:
    """Report doubts about the figures; return the number of labelled images that are copies of training images."""
    manifest, name = inspector.bundle.manifest, category.name
    if name != manifest.category:
        console.say(f"{manifest.name} was trained on '{manifest.category}' and is measured on '{name}'.")
    if category.without_mask:
        console.say(
            f"Warning: {category.without_mask} defective images of {name} have no mask; "
            "they count for the image metrics only."
        )
    if manifest.data.held_out_part == "test":
        console.say(
            f"Warning: the threshold of {manifest.name} was fitted to good test images. "
            "If they are measured here, the share of rejected good parts is not valid."
        )
    for note in category.notes:
        console.say(f"{name}: {note}")
    images = [sample.path for sample in category.labelled()]
    copies = len(find_copies(images, (*category.normals, *category.validation)))
    if copies:
        console.say(
            f"Warning: {copies} of {len(images)} labelled images of {name} are copies of training images; "
            "the figures are too optimistic."
        )
    return copies


def _make_row(inspector: Inspector, category: Category, copies: int, accuracy: Accuracy, latency: Latency) -> Row:
    manifest = inspector.bundle.manifest
    return Row(
        bundle=manifest.name,
        method=manifest.method,
        preset=manifest.preset,
        config=manifest.config,
        category=category.name,
        engine=inspector.engine.name,
        precision=manifest.precision,
        size=manifest.size,
        protocol=manifest.training.protocol or "",
        metrics=accuracy.metrics,
        decisions=accuracy.decisions,
        images=accuracy.images,
        copies_of_training=copies,
        latency=latency,
    )


def _frames_to_time(inspectors: Sequence[Inspector], categories: Sequence[Category], console: Console) -> list[Frame]:
    # Bundles without depth drop it from the frames; the depth range does not change the time.
    pixels: PixelFormat = next((inspector.pixels for inspector in inspectors if inspector.depth_range), COLOUR)
    paths = [sample.path for category in dict.fromkeys(categories) for sample in category.test]
    chosen = np.linspace(0, len(paths) - 1, min(TIMED_FRAMES, len(paths))).round().astype(int)
    frames = []
    for index in console.track("reading frames to time")(list(chosen)):
        try:
            frames.append(read_frame(paths[index], pixels))
        except DataError:  # already reported with the accuracy
            continue
    return frames


def _sizes(frames: Sequence[Frame]) -> tuple[str, ...]:
    return tuple(sorted({f"{frame.shape[1]}x{frame.shape[0]}" for frame in frames}))


def _average(rows: Sequence[Row]) -> tuple[Average, ...]:
    """Average bundles that differ only in their category, over different categories."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.method, row.preset, row.precision, row.engine, json.dumps(row.config)), []).append(row)
    return tuple(
        Average(
            bundle=f"{method} {preset} {precision}",
            category=f"mean of {len(members)}",
            engine=engine,
            protocol=next((member.protocol for member in members if member.protocol), ""),
            latency_ms=Percentiles(*_means(member.latency.latency_ms.values() for member in members)),
            metrics=Metrics(*_means(member.metrics.values() for member in members)),
        )
        for (method, preset, precision, engine, _), members in groups.items()
        if 1 < len(members) == len({member.category for member in members})
    )


def _means(rows: Iterable[Sequence[float | None]]) -> list[Any]:
    """Average each column over the rows with a figure; None if no row has one."""
    columns = [[value for value in column if value is not None] for column in zip(*rows)]
    return [float(np.mean(column)) if column else None for column in columns]
