"""Smaller records of results.json: decisions at other thresholds, kinds of defects, floor, start, disturbance."""

from __future__ import annotations

from dataclasses import dataclass

from edgead.schema import Computed, Milliseconds, left_out

Range = tuple[float, float]
"""A 95 % interval: (low, high)."""
Shares = tuple[Computed, Computed]
"""A 95 % interval of a share."""
Times = tuple[Milliseconds, Milliseconds]
"""A 95 % interval of a latency."""


@dataclass(frozen=True)
class OperatingPoint:
    """Decisions at the lowest threshold that rejects at most a share of the good test images.

    The threshold is chosen on the good test images, so this is no result of the bundle's own threshold. Both intervals
    hold: the detection rate's because defective images did not choose the threshold, the upper limit of the
    false-reject rate because it is the one of an order statistic.

    Attributes:
        allowed: share of good test images that may be rejected.
        threshold: a higher score fails.
        false_reject_rate, false_reject_interval: good test images that fail, and new good images that may fail.
        detection_rate, detection_interval: defective test images that fail.
    """

    allowed: Computed
    threshold: float
    false_reject_rate: Computed
    false_reject_interval: Shares
    detection_rate: Computed
    detection_interval: Shares


@dataclass(frozen=True)
class KindFigures:
    """One kind of defect, a folder of `test`.

    Attributes:
        kind: its name.
        images: their number.
        image_auroc, image_auroc_interval: of these defective images against all good ones.
        detection_rate, detection_interval: at the bundle's own threshold.
        at: share of good test images that may be rejected (as text, "0.01") ↦ share of these defective images found.
    """

    kind: str
    images: int
    image_auroc: Computed
    image_auroc_interval: Shares
    detection_rate: Computed
    detection_interval: Shares
    at: dict[str, Computed]


@dataclass(frozen=True)
class Comparison:
    """A row compared with the row of the highest image AUROC on the same images, DeLong's paired test.

    The best of several bundles leads by chance alone: the intervals hold together for all pairs of bundles.

    Attributes:
        best: bundle and engine of that row.
        difference, interval: this row's image AUROC minus the best row's.
        indistinguishable: the interval contains 0.
    """

    best: str
    difference: float
    interval: Range
    indistinguishable: bool


@dataclass(frozen=True)
class LatencyIntervals:
    """95 % intervals of the whole call's percentiles, milliseconds. A percentile with too few calls has none."""

    p50: Times | None = left_out()
    p90: Times | None = left_out()
    p99: Times | None = left_out()
    p999: Times | None = left_out("p99.9")


@dataclass(frozen=True)
class Floor:
    """The least time in which this machine can compute a graph, and how far the engine is from it.

    Attributes:
        multiply_adds: of one frame, in convolutions and matrix products.
        bytes: that one frame moves at least: weights once, the frame and the outputs.
        peak_per_second: multiply-adds per second, measured on this engine in this precision.
        bandwidth_per_second: bytes per second of a large copy; None on a GPU, where it is not measured.
        compute_ms, memory_ms: the two quotients; the second one is None on a GPU.
        floor_ms: the larger one.
        ratio: p50 of the whole call over the floor.
    """

    multiply_adds: int
    bytes: int
    peak_per_second: float
    bandwidth_per_second: float | None
    compute_ms: float
    memory_ms: float | None
    floor_ms: float
    ratio: float


@dataclass(frozen=True)
class Start:
    """A start in a process of its own, with the operating system's file cache warm.

    Attributes:
        first_result_seconds: from the start of the process to the first result, with imports and validation.
        load_seconds: of `edgead.load` alone.
        first_call_ms: of the first `inspect`.
        peak_rss_mib: highest resident memory, MiB.
    """

    first_result_seconds: float
    load_seconds: float
    first_call_ms: Milliseconds
    peak_rss_mib: float


@dataclass(frozen=True)
class ThroughputPoint:
    """Frames per second with this many sources or frames per inference; each frame is resized too."""

    streams: int
    batch: int
    fps: float


@dataclass(frozen=True)
class SingleStream:
    """Latency by the rule of MLPerf Inference's single-stream scenario; it is no MLPerf result.

    Attributes:
        queries, seconds: of the run, at least 1,024 and 60.
        p90_ms: 90th percentile.
    """

    queries: int
    seconds: float
    p90_ms: Milliseconds


@dataclass(frozen=True)
class Stability:
    """How steady the machine was while a row was timed.

    Attributes:
        drift: median of the second half of the calls over that of the first half, minus 1.
        others: share of the processors' time that other processes took; None if the system does not tell.
        steal: share that the hypervisor took.
        unstable: why the latencies do not count; empty if they do.
    """

    drift: float
    others: float | None
    steal: float | None
    unstable: str


@dataclass(frozen=True)
class MachineState:
    """What changes on a machine. Fields that the system does not tell are None or empty.

    Attributes:
        load: average number of running processes over the last minute.
        governor: of the processors' clocks.
        clocks_mhz: lowest and highest clock of the processors.
        temperatures: sensor ↦ degrees Celsius.
        power_mode: of a Jetson.
        accelerator_clocks_mhz: device ↦ clock, of a Jetson's GPU and accelerators.
    """

    load: float
    governor: str | None = left_out()
    clocks_mhz: Range | None = left_out()
    temperatures: dict[str, float] | None = left_out()
    power_mode: str | None = left_out()
    accelerator_clocks_mhz: dict[str, float] | None = left_out()


@dataclass(frozen=True)
class FailedRow:
    """A bundle on an engine that could not be measured, and why."""

    bundle: str
    engine: str
    reason: str
