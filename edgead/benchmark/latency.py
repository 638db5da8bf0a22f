"""Latency of bundles, interleaved in one run: percentiles of every stage, and of the bare engine.

Each round runs every bundle on one frame: the whole `inspect` call, and the engine alone on the same frame, already
resized. A disturbance of the machine affects all bundles. A pause between engines keeps one engine (spinning threads,
full caches) from disturbing the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgead.benchmark.report import Latency, Percentiles, Stages
from edgead.console import Console
from edgead.images import Frame, fit_frame, to_frame
from edgead.runtime.defects import mark_in_frame
from edgead.runtime.engines.auto import take_turn
from edgead.runtime.inspector import Inspector
from edgead.runtime.result import Result

STAGES = ("fit", "infer", "post", "total")
"""Keys of `Result.latency_ms` for a frame that did not wait."""
WARM_UP_ROUNDS = 3


def measure_latency(
    inspectors: Sequence[Inspector], frames: Sequence[Frame], rounds: int, console: Console
) -> list[Latency]:
    """Time every inspector on the same frames.

    Args:
        inspectors: are timed in turn.
        frames: real frames at the camera's resolution; reused if there are more rounds.
        rounds: measurements per inspector.
        console: shows progress.

    Returns:
        The latency of each inspector.
    """
    samples: list[dict[str, list[float]]] = [{name: [] for name in (*STAGES, "engine", "mask")} for _ in inspectors]
    for round_number in console.track("timing")(range(-WARM_UP_ROUNDS, rounds)):
        frame = frames[round_number % len(frames)]
        for inspector, times in zip(inspectors, samples):
            fitted = fit_frame(to_frame(frame, inspector.pixels), inspector.size)[None]
            if len(inspectors) > 1:
                take_turn(inspector.engine, fitted)
            # The order of the two alternates: the second one finds warmer caches.
            engine = _time(inspector.engine.infer, fitted) if round_number % 2 else None
            result = inspector.inspect(frame)
            engine = engine if engine is not None else _time(inspector.engine.infer, fitted)
            if round_number >= 0:
                for name in STAGES:
                    times[name].append(result.latency_ms[name])
                times["engine"].append(engine)
                times["mask"].append(_time(_make_mask, result))
    return [_summary(times) for times in samples]


def _time(call: Callable[[Any], object], argument: Any) -> float:
    start = time.perf_counter()
    call(argument)
    return (time.perf_counter() - start) * 1e3


def _make_mask(result: Result) -> None:
    """Compute the mask as for a FAIL, whatever the verdict: a PASS has no mask and would take no time."""
    assert result.anomaly_map is not None
    mark_in_frame(result.anomaly_map, result.mask_threshold, result.region, result.frame_size)


def percentiles(times: Sequence[float]) -> Percentiles:
    """Return p50, p90 and p99 of times."""
    return Percentiles(*(round(float(np.percentile(times, share)), 4) for share in (50, 90, 99)))


def _summary(times: dict[str, list[float]]) -> Latency:
    total, engine = percentiles(times["total"]), percentiles(times["engine"])
    return Latency(
        latency_ms=total,
        stages_ms=Stages(percentiles(times["fit"]), percentiles(times["infer"]), percentiles(times["post"])),
        engine_ms=engine,
        mask_ms=percentiles(times["mask"]),
        inspect_over_engine=round(total.p50 / engine.p50, 4),
        rounds=len(times["total"]),
    )
