"""The results of a benchmark as frozen dataclasses, with the field names of results.json; see docs/benchmark.md."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from edgead import schema
from edgead.benchmark.figures import (
    Comparison,
    FailedRow,
    Floor,
    KindFigures,
    LatencyIntervals,
    MachineState,
    OperatingPoint,
    Shares,
    SingleStream,
    Stability,
    Start,
    ThroughputPoint,
)
from edgead.errors import DataError
from edgead.machine import Machine
from edgead.reports.benchmark_page import METRICS
from edgead.schema import Computed, Milliseconds, SchemaError, Within, left_out

VERSION = 1
"""Version of results.json, its field ``schema``."""
FILES = ("results.json", "results.csv", "report.html")
"""Files in a report's folder."""
FLAT = ("metrics", "decisions", "latency")
"""Sections of a row or average that results.json stores flat, in the row itself."""


@dataclass(frozen=True)
class Metrics:
    """Threshold-free figures from 0 to 1. Pixel metrics are None for data without masks; averages have no interval."""

    image_auroc: Computed
    image_ap: Computed
    image_f1_max: Computed
    pixel_auroc: Computed | None
    pixel_ap: Computed | None
    pixel_f1_max: Computed | None
    aupro: Computed | None
    image_auroc_interval: Shares | None = left_out()

    def values(self) -> list[float | None]:
        """Return the figures in the order of `METRICS`."""
        return [getattr(self, name) for name in METRICS]


@dataclass(frozen=True)
class Promise:
    """A threshold's promise on false rejects, compared with the good test images.

    Attributes:
        average, limit: promised share of good parts that fail: on average, and at most with 95 % confidence.
        held_out: number of images behind the promise.
        probability: of a count as extreme as the measured one, under the promise.
        warning: the contradiction; empty if there is none.
    """

    average: Computed
    limit: Computed
    held_out: int
    probability: Computed
    warning: str


@dataclass(frozen=True)
class Decisions:
    """Results of the bundle's own threshold: shares from 0 to 1 with 95 % Clopper–Pearson intervals.

    Attributes:
        false_reject_rate, false_reject_interval: good test images that fail.
        detection_rate, detection_interval: defective test images that fail.
        promise: None for a threshold without a promise.
        operating_points: decisions at other thresholds, see `OperatingPoint`.
    """

    false_reject_rate: Computed
    false_reject_interval: Shares
    detection_rate: Computed
    detection_interval: Shares
    promise: Promise | None
    operating_points: tuple[OperatingPoint, ...] | None = left_out()

    @property
    def warning(self) -> str:
        """The contradiction of the threshold's promise; empty if there is none."""
        return self.promise.warning if self.promise else ""


@dataclass(frozen=True)
class ImageCounts:
    """Numbers of labelled test images: good, defective, defective with a mask that is not empty, and unreadable."""

    good: int
    defective: int
    with_mask: int
    skipped: int


@dataclass(frozen=True)
class Percentiles:
    """Milliseconds (or ratios of them) at 50, 90 and 99 %; at 99.9 % only of a thousand calls or more."""

    p50: Milliseconds
    p90: Milliseconds
    p99: Milliseconds
    p999: Milliseconds | None = left_out("p99.9")

    def values(self) -> tuple[float, float, float]:
        """Return the first three."""
        return self.p50, self.p90, self.p99


@dataclass(frozen=True)
class Stages:
    """Latency of the stages of one call: resizing, inference, everything after it."""

    fit: Percentiles
    infer: Percentiles
    post: Percentiles


@dataclass(frozen=True)
class Latency:
    """Latency of one bundle, one frame at a time.

    Attributes:
        latency_ms: the whole `inspect` call.
        stages_ms: its stages.
        engine_ms: the engine alone on the same frame, already resized.
        mask_ms: the mask of a FAIL, at the frame's resolution; not included in the other figures.
        inspect_over_engine: ratio of the medians of `latency_ms` and `engine_ms`.
        rounds: timed calls.
        latency_intervals_ms: intervals of `latency_ms`.
        stability: whether the machine was quiet.
        throughput: with several sources, and several frames per inference.
        single_stream: by MLPerf's rule.
    """

    latency_ms: Percentiles
    stages_ms: Stages
    engine_ms: Percentiles
    mask_ms: Percentiles
    inspect_over_engine: float
    rounds: int
    latency_intervals_ms: LatencyIntervals | None = left_out()
    stability: Stability | None = left_out()
    throughput: tuple[ThroughputPoint, ...] | None = left_out()
    single_stream: SingleStream | None = left_out()

    @property
    def unstable(self) -> str:
        """Why the latencies do not count; empty if they do."""
        return self.stability.unstable if self.stability else ""


@dataclass(frozen=True)
class Row:
    """One bundle on one category.

    Attributes:
        bundle, method, preset, config, category, precision: from the manifest; `category` is the one measured on.
        engine: the engine that was measured.
        size: (height, width) of the model's input, pixels.
        protocol: a note for reading the figures; empty for methods that train on good images only.
        metrics, decisions, latency: the figures.
        images: counts of test images.
        copies_of_training: labelled images with the same pixels as a training image.
        kinds: figures by kind of defect.
        comparison: with the row of the highest image AUROC on the same images.
        floor, start: see `Floor` and `Start`.
        bundle_bytes: of all files of the bundle.
    """

    bundle: str
    method: str
    preset: str
    config: dict[str, Any]  # JSON; each method has its own schema
    category: str
    engine: str
    precision: str
    size: tuple[int, int]
    protocol: str
    metrics: Metrics
    decisions: Decisions
    images: ImageCounts
    copies_of_training: int
    latency: Latency
    kinds: tuple[KindFigures, ...] | None = left_out()
    comparison: Comparison | None = left_out()
    floor: Floor | None = left_out()
    start: Start | None = left_out()
    bundle_bytes: int | None = left_out()

    def to_dict(self) -> dict[str, object]:
        """Return the JSON values of its row in results.json."""
        return _flatten(schema.write(self))


@dataclass(frozen=True)
class Average:
    """Means over bundles that differ only in their category; without latency where one of them is unstable."""

    bundle: str
    category: str
    engine: str
    protocol: str
    latency_ms: Percentiles | None
    metrics: Metrics


@dataclass(frozen=True)
class Conditions:
    """How it was measured.

    Attributes:
        rounds: largest number of timed calls of each bundle.
        pixel_size: side at which pixel metrics are computed, pixels.
        fpr_limit: false-positive rate at which AUPRO stops integrating.
        timed_frames: different frames that were timed.
        frame_sizes: their sizes, ``WIDTHxHEIGHT``.
        seconds: limit of the timing, seconds; None for none.
        warm_up_rounds: rounds before the timed ones.
        before, after: state of the machine.
    """

    rounds: int
    pixel_size: int
    fpr_limit: float
    timed_frames: int
    frame_sizes: tuple[str, ...]
    seconds: float | None = left_out()
    warm_up_rounds: int | None = left_out()
    before: MachineState | None = left_out()
    after: MachineState | None = left_out()


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a benchmark measured, on what and how.

    Attributes:
        schema: version of results.json.
        created: ISO 8601, UTC.
        command: the command line; empty where it was called from Python.
        machine, versions, conditions: what it was measured on, and how.
        rows: one for each bundle and engine.
        averages: over bundles that differ in nothing but their category.
        failed: bundles and engines that could not be measured.
        exit_code: 0, or that of the first failure; not stored.
        folder: where `FILES` are; not stored.
    """

    schema: Annotated[int, Within(VERSION, VERSION)] = VERSION
    created: str
    command: str
    machine: Machine
    versions: dict[str, str]
    conditions: Conditions
    rows: tuple[Row, ...]
    averages: tuple[Average, ...]
    failed: tuple[FailedRow, ...] | None = left_out()
    exit_code: int = 0
    folder: Path = Path()

    @property
    def table(self) -> tuple[Row | Average, ...]:
        """The rows, and the averages below them."""
        return (*self.rows, *self.averages)

    @property
    def page(self) -> Path:
        """The HTML page."""
        return self.folder / FILES[2]

    def to_dict(self) -> dict[str, object]:
        """Return the JSON values of results.json."""
        stored = schema.write(self)
        del stored["folder"], stored["exit_code"]
        rows, averages = ([_flatten(row) for row in stored[name]] for name in ("rows", "averages"))
        return {**stored, "rows": rows, "averages": averages}


def read_report(folder: str | Path) -> Report:
    """Read a report that `edgead.benchmark.benchmark` wrote.

    Raises:
        DataError: `folder` has no report of this version.
    """
    path = Path(folder, FILES[0])
    try:
        stored = schema.load_json(path)
        found = schema.read(Report, _unflatten(stored))
    except (OSError, SchemaError) as error:
        raise DataError(f"{path} is not a benchmark report: {error}.") from error
    return replace(found, folder=Path(folder))


def _flatten(row: dict[str, object]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in row.items():
        found |= value if name in FLAT and isinstance(value, dict) else {name: value}
    return found


def _unflatten(value: Any) -> Any:
    """Each section of a row reads its own fields of the row and ignores the others."""
    if isinstance(value, list):
        return [{**row, **dict.fromkeys(FLAT, row)} if isinstance(row, dict) else row for row in value]
    if isinstance(value, dict):
        return {name: _unflatten(each) if name in ("rows", "averages") else each for name, each in value.items()}
    return value
