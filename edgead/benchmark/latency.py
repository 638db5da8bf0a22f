"""Latency of bundles, interleaved in one run: percentiles of every stage, and of the bare engine.

Each round runs every bundle on one frame of its category: the whole `inspect` call, and the engine alone on the same
frame, already resized. A disturbance of the machine affects all bundles. A pause between engines keeps one engine
(spinning threads, full caches) from disturbing the next.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgead.benchmark.disturbance import ProcessorTimes, judge, processor_times
from edgead.benchmark.figures import LatencyIntervals, SingleStream
from edgead.benchmark.report import Latency, Percentiles, Stages
from edgead.benchmark.uncertainty import latency_interval
from edgead.console import Console
from edgead.errors import EdgeadError
from edgead.images import Frame, fit_frame, to_frame
from edgead.runtime.defects import mark_in_frame
from edgead.runtime.engines.auto import take_turn
from edgead.runtime.inspector import Inspector
from edgead.runtime.result import Result

STAGES = ("fit", "infer", "post", "total")
"""Keys of `Result.latency_ms` for a frame that did not wait."""
WARM_UP_ROUNDS = 3
FEWEST = 1000
"""Calls from which p99.9 is reported."""
MLPERF_QUERIES, MLPERF_SECONDS = 1024, 60.0
"""Least queries and duration of MLPerf Inference's single-stream scenario."""

Times = dict[str, list[float]]


def measure_latency(
    inspectors: Sequence[Inspector],
    frames: Sequence[Sequence[Frame]],
    rounds: int,
    console: Console,
    seconds: float | None = None,
) -> list[Latency | EdgeadError]:
    """Time every inspector on its own frames, in turn.

    Args:
        inspectors: are timed in turn.
        frames: for each of them, real frames at the camera's resolution; reused if there are more rounds.
        rounds: most measurements per inspector.
        console: shows progress.
        seconds: after which no further round begins; the first one always counts.

    Returns:
        The latency of each inspector, or the error of an engine that failed.
    """
    samples: list[Times] = [{name: [] for name in (*STAGES, "engine", "mask")} for _ in inspectors]
    errors: dict[int, EdgeadError] = {}
    began: ProcessorTimes | None = None
    end = math.inf
    for round_number in console.track("timing")(range(-WARM_UP_ROUNDS, rounds)):
        if round_number == 0:
            began, end = processor_times(), time.monotonic() + (seconds or math.inf)
        if round_number > 0 and time.monotonic() > end:
            break
        for index, (inspector, times) in enumerate(zip(inspectors, samples)):
            if index in errors:
                continue
            try:
                frame = frames[index][round_number % len(frames[index])]
                measured = _measure(inspector, frame, bool(round_number % 2), len(inspectors) > 1)
            except EdgeadError as error:
                errors[index] = error
                continue
            if round_number >= 0:
                for name, each in measured.items():
                    times[name].append(each)
    ended = processor_times()
    return [errors[index] if index in errors else _summary(each, began, ended) for index, each in enumerate(samples)]


def _measure(inspector: Inspector, frame: Frame, engine_first: bool, in_turn: bool) -> dict[str, float]:
    fitted = fit_frame(to_frame(frame, inspector.pixels), inspector.size, geometry=inspector.geometry)[None]
    if in_turn:
        take_turn(inspector.engine, fitted)
    # The order of the two alternates: the second one finds warmer caches.
    engine = _time(inspector.engine.infer, fitted) if engine_first else None
    result = inspector.inspect(frame)
    engine = engine if engine is not None else _time(inspector.engine.infer, fitted)
    return {**{name: result.latency_ms[name] for name in STAGES}, "engine": engine, "mask": _time(_make_mask, result)}


def measure_single_stream(inspector: Inspector, frames: Sequence[Frame], console: Console) -> SingleStream:
    """Send one frame after the other, drawn at random, until both minima are reached; return the 90th percentile."""
    order = np.random.default_rng(0).integers(0, len(frames), 4096)
    for _ in range(WARM_UP_ROUNDS):
        inspector.inspect(frames[0])
    times: list[float] = []
    start = time.monotonic()
    with console.clock("single stream") as tell:
        while len(times) < MLPERF_QUERIES or time.monotonic() - start < MLPERF_SECONDS:
            times.append(_time(inspector.inspect, frames[order[len(times) % len(order)]]))
            tell(f"{len(times)} queries")
    return SingleStream(len(times), round(time.monotonic() - start, 3), round(float(np.percentile(times, 90)), 4))


def _time(call: Callable[[Any], object], argument: Any) -> float:
    start = time.perf_counter()
    call(argument)
    return (time.perf_counter() - start) * 1e3


def _make_mask(result: Result) -> None:
    """Compute the mask as for a FAIL, whatever the verdict: a PASS has no mask and would take no time."""
    assert result.anomaly_map is not None
    mark_in_frame(result.anomaly_map, result.mask_threshold, result.region, result.frame_size, result.geometry)


def percentiles(times: Sequence[float]) -> Percentiles:
    """Return p50, p90 and p99 of times, and p99.9 of a thousand or more."""
    p50, p90, p99, p999 = (round(float(np.percentile(times, share)), 4) for share in (50, 90, 99, 99.9))
    return Percentiles(p50, p90, p99, p999 if len(times) >= FEWEST else None)


def _intervals(times: Sequence[float]) -> LatencyIntervals:
    def interval(share: float) -> tuple[float, float] | None:
        found = latency_interval(times, share)
        return found and (round(found[0], 4), round(found[1], 4))

    return LatencyIntervals(*map(interval, (50, 90, 99, 99.9)))


def _summary(times: Times, began: ProcessorTimes | None, ended: ProcessorTimes | None) -> Latency:
    total, engine = percentiles(times["total"]), percentiles(times["engine"])
    return Latency(
        latency_ms=total,
        stages_ms=Stages(percentiles(times["fit"]), percentiles(times["infer"]), percentiles(times["post"])),
        engine_ms=engine,
        mask_ms=percentiles(times["mask"]),
        inspect_over_engine=round(total.p50 / engine.p50, 4),
        rounds=len(times["total"]),
        latency_intervals_ms=_intervals(times["total"]),
        stability=judge(times["total"], began, ended),
    )
