"""`edgead benchmark`: measure bundles on a labelled data set and write a report."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np

from edgead import schema
from edgead.benchmark.accuracy import FPR_LIMIT, Miss, measure_accuracy
from edgead.benchmark.disturbance import describe_state
from edgead.benchmark.figures import FailedRow
from edgead.benchmark.floor import measure_floor
from edgead.benchmark.latency import WARM_UP_ROUNDS, measure_latency, measure_single_stream
from edgead.benchmark.report import FILES, Conditions, Latency, Report, Row
from edgead.benchmark.rows import Candidate, average, compare, make_row, tell_apart
from edgead.benchmark.start import measure_start
from edgead.benchmark.tables import to_csv
from edgead.benchmark.throughput import measure_throughput
from edgead.bundle.manifest import DataRecord
from edgead.console import Console
from edgead.datasets import Category, open_categories
from edgead.datasets.frames import fingerprint_of
from edgead.datasets.repeats import check_labelled
from edgead.errors import ConfigError, DataError, EdgeadError, first_line, require
from edgead.files import new_folder, refuse_existing, refuse_unwritable, write_json, write_text
from edgead.images import COLOUR, Frame, PixelFormat, read_frame
from edgead.machine import describe_machine, versions
from edgead.reports.build import build_report
from edgead.reports.pictures import Group, Picture, picture, write_pictures
from edgead.runtime.inspector import Inspector, load
from edgead.schema import Within
from edgead.text import utc_now

T = TypeVar("T")
FOLDER = Path("runs", "benchmark")
"""Of reports without another one."""
TIMED_FRAMES = 32
"""Different images for timing, of all categories together; more would only need memory."""


@dataclass(frozen=True)
class Effort:
    """How much is measured; see `benchmark`.

    Raises:
        ConfigError: a number is wrong, or there is nothing to measure.
    """

    bundles: Sequence[str | Path]
    engines: Sequence[str]
    rounds: Annotated[int, Within(1, 100_000)]
    seconds: Annotated[float, Within(0, above=True)] | None
    pixel_size: Annotated[int, Within(32, 4096)]

    def __post_init__(self) -> None:
        schema.check(self)
        if isinstance(self.bundles, (str, Path)) or not self.bundles or not self.engines:
            raise ConfigError("bundles must be a list of one or more bundles, and engine one or more engines.")


def benchmark(
    bundles: Sequence[str | Path],
    data: str | Path,
    *,
    engine: str | Sequence[str] = "auto",
    rounds: int = 100,
    seconds: float | None = None,
    pixel_size: int = 256,
    quick: bool = False,
    throughput: bool = False,
    mlperf: bool = False,
    out: str | Path | None = None,
    force: bool = False,
    command: Sequence[str] = (),
    console: Console | None = None,
) -> Report:
    """Measure accuracy and latency of bundles, and write results.json, results.csv and report.html.

    Each bundle is measured on its own category. A data set with a single category is used for all bundles. Bundles and
    engines that fail are listed in `Report.failed` if another one can be measured.

    Args:
        bundles: folders of bundles.
        data: folder of one or several categories with labelled test images.
        engine: inference engine, see `edgead.load`, or several: each bundle is measured on each of them.
        rounds: largest number of timed calls per bundle.
        seconds: limit of the timing of all bundles together.
        pixel_size: side of maps and masks in pixel metrics, in pixels.
        quick: leave out what takes more time: floor, time to the first result, memory.
        throughput: measure frames per second with several sources, and several frames per inference.
        mlperf: measure each bundle for a minute by the rule of MLPerf's single-stream scenario.
        out: folder of the report; by default a new folder in ``runs/benchmark``.
        force: replace any report in `out`. A report of the same command is always replaced.
        command: the command line, stored in the report.
        console: shows progress and warnings.

    Returns:
        The report; its files are in `Report.folder`.

    Raises:
        ConfigError: `out` holds a report of another command, or a number is wrong.
        DataError: no bundle's category is in the data set, or it has no labelled images.
        MissingDependencyError: jinja2, which writes the page, is not installed.
        EdgeadError: of the first bundle, if none can be measured.
    """
    engines = [engine] if isinstance(engine, str) else [*dict.fromkeys(engine)]
    Effort(bundles, engines, rounds, seconds, pixel_size)
    require("jinja2", "benchmark")
    if out and not _is_repeated(Path(out), command):
        refuse_existing((Path(out, name) for name in FILES), force)
    refuse_unwritable(Path(out) if out else FOLDER)
    console, machine, before = console or Console(), describe_machine(), describe_state()
    failures = _Failures(console)
    with ExitStack() as stack:
        found = _open_all(bundles, engines, open_categories(data), pixel_size, stack, failures, console)
        frames = _frames_to_time(found, console)
        latencies = measure_latency(
            [each.inspector for each in found], [frames[each.category.name] for each in found], rounds, console, seconds
        )
        timed: list[tuple[Candidate, Latency]] = []
        for candidate, latency in zip(found, latencies):
            if isinstance(latency, EdgeadError):
                failures.add(candidate.path, candidate.requested, latency)
            else:
                timed.append((candidate, latency))
        after = describe_state()
        rows = tell_apart([make_row(*each) for each in timed], [candidate.path for candidate, _ in timed])
        for index, (candidate, _) in enumerate(timed):
            own = frames[candidate.category.name]
            rows[index] = _extend(rows[index], candidate, own, quick, throughput, mlperf, console)
    failures.raise_if_nothing(rows)
    rows = [*compare(rows, [candidate.accuracy for candidate, _ in timed])]
    for row in rows:
        if row.decisions.warning:
            console.say(f"Warning: {row.bundle}: {row.decisions.warning}")
    report = Report(
        created=utc_now(),
        command=shlex.join(command),
        machine=machine,
        versions=versions(),
        conditions=Conditions(
            rounds=rounds,
            pixel_size=pixel_size,
            fpr_limit=FPR_LIMIT,
            timed_frames=sum(map(len, frames.values())),
            frame_sizes=_sizes(frames.values()),
            seconds=seconds,
            warm_up_rounds=WARM_UP_ROUNDS,
            before=before,
            after=after,
        ),
        rows=tuple(rows),
        averages=average(rows),
        failed=tuple(failures.rows) or None,
        exit_code=failures.exit_code,
        folder=Path(out) if out else new_folder(FOLDER / f"{datetime.now():%Y%m%d-%H%M%S}"),
    )
    titles = [f"{row.bundle} · {row.engine} on {row.category}" for row in rows]
    write_report(report, [(title, candidate.accuracy.misses) for title, (candidate, _) in zip(titles, timed)])
    return report


class _Failures:
    """Bundles and engines that could not be measured."""

    def __init__(self, console: Console) -> None:
        self.rows: list[FailedRow] = []
        self.errors: list[EdgeadError] = []
        self._console = console

    @property
    def exit_code(self) -> int:
        """Exit code of the first error; 0 without one."""
        return self.errors[0].exit_code if self.errors else 0

    def add(self, bundle: Path, engine: str, error: EdgeadError) -> None:
        self.rows.append(FailedRow(bundle.name.removesuffix(".edgead"), engine, first_line(error)))
        self.errors.append(error)

    def raise_if_nothing(self, rows: Sequence[object]) -> None:
        """Raise the first error if no row could be measured; the others are said."""
        if rows or not self.errors:
            return
        for failed in self.rows[1:]:
            self._console.say(f"{failed.bundle} on {failed.engine} failed: {failed.reason}")
        raise self.errors[0]


def _open_all(
    bundles: Sequence[str | Path],
    engines: Sequence[str],
    categories: Sequence[Category],
    pixel_size: int,
    stack: ExitStack,
    failures: _Failures,
    console: Console,
) -> list[Candidate]:
    """Open every bundle on every engine and measure its accuracy."""
    found = []
    described: set[Path] = set()
    copies: dict[tuple[str, PixelFormat], int] = {}
    for path, engine in product(map(Path, bundles), engines):
        try:
            inspector = stack.enter_context(load(path, engine=engine, console=console))
            category = _category_of(inspector, categories)
            if path not in described:
                _describe_data(inspector, category, console)
                described.add(path)
            key = (category.name, inspector.pixels)
            if key not in copies:
                copies[key] = check_labelled(category, console, inspector.pixels)
            accuracy = measure_accuracy(inspector, category, pixel_size, console)
        except EdgeadError as error:
            failures.add(path, engine, error)
            continue
        found.append(Candidate(path, inspector, engine, category, copies[key], accuracy))
    failures.raise_if_nothing(found)
    return found


def _extend(
    row: Row,
    candidate: Candidate,
    frames: Sequence[Frame],
    quick: bool,
    throughput: bool,
    mlperf: bool,
    console: Console,
) -> Row:
    """Add what is measured after the latencies. A measurement that fails is left out with a warning."""
    bundle, engine, latency = candidate.inspector.bundle, candidate.engine, row.latency

    def attempt(what: str, measure: Callable[[], T]) -> T | None:
        try:
            return measure()
        except (EdgeadError, OSError) as error:
            console.say(f"Warning: {what} not measured for {row.bundle} on {row.engine}: {first_line(error)}")
            return None

    if not quick:
        floor = attempt("floor", lambda: measure_floor(bundle, engine, latency.latency_ms.p50))
        start = attempt("start", lambda: measure_start(candidate.path, engine, frames[0]))
        row = replace(row, floor=floor, start=start)
    if throughput:
        points = attempt("throughput", lambda: measure_throughput(bundle, engine, frames, console))
        latency = replace(latency, throughput=points)
    if mlperf:
        single = attempt("single stream", lambda: measure_single_stream(candidate.inspector, frames, console))
        latency = replace(latency, single_stream=single)
    return replace(row, latency=latency)


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


def _describe_data(inspector: Inspector, category: Category, console: Console) -> None:
    """Report doubts about the figures of a bundle on this data."""
    manifest, name = inspector.bundle.manifest, category.name
    if name != manifest.category:
        console.say(f"{manifest.name} was trained on '{manifest.category}' and is measured on '{name}'.")
    if category.without_mask:
        console.say(
            f"Warning: {category.without_mask} defective images of {name} have no mask; "
            "they count for the image metrics only."
        )
    if manifest.data.held_out_part == "test" or _is_threshold_data(manifest.data, category):
        console.say(
            f"Warning: the threshold of {manifest.name} was set on good test images. "
            "If they are measured here, the share of rejected good parts is not valid."
        )
    for note in category.notes:
        console.say(f"{name}: {note}")


def _is_threshold_data(data: DataRecord, category: Category) -> bool:
    """Return whether the threshold was set on the good test images, named as a folder of its own."""
    good = [sample.path for sample in category.test if not sample.anomalous]
    try:
        return data.held_out_part is not None and fingerprint_of(good) == data.held_out_fingerprint
    except OSError:  # an unreadable image has its own place in the report
        return False


def _frames_to_time(found: Sequence[Candidate], console: Console) -> dict[str, list[Frame]]:
    """Read the frames to time: by category, some of the images that all its bundles could read and find the part on.

    Raises:
        DataError: a category has no such image.
    """
    groups: dict[str, list[Candidate]] = {}
    for each in found:
        groups.setdefault(each.category.name, []).append(each)
    most, chosen = -(-TIMED_FRAMES // len(groups)), []
    for name, members in groups.items():
        # Bundles without depth drop it from the frames; the depth range does not change the time.
        inspectors = [each.inspector for each in members]
        pixels: PixelFormat = next((each.pixels for each in inspectors if each.depth_range), COLOUR)
        seen = [{sample.path for sample in each.accuracy.samples} for each in members]
        paths = [sample.path for sample in members[0].accuracy.samples if all(sample.path in each for each in seen)]
        if not paths:
            raise DataError(f"No image of {name} can be inspected by all of its bundles. Measure them one by one.")
        places = np.linspace(0, len(paths) - 1, min(most, len(paths))).round().astype(int)
        chosen += [(name, paths[place], pixels) for place in places]
    frames: dict[str, list[Frame]] = {name: [] for name in groups}
    for name, path, pixels in console.track("reading frames to time")(chosen):
        frames[name].append(read_frame(path, pixels))
    return frames


def _sizes(frames: Iterable[Sequence[Frame]]) -> tuple[str, ...]:
    return tuple(sorted({f"{frame.shape[1]}x{frame.shape[0]}" for own in frames for frame in own}))
