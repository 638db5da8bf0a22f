"""Measures a profile with the real stream: sources that are paced like cameras, one engine."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgead.bundle import Bundle, read_bundle
from edgead.console import Console
from edgead.decision import Verdict
from edgead.errors import ConfigError, DeviceError, EdgeadError, first_line
from edgead.files import names_apart
from edgead.images import Frame, cv2
from edgead.machine import describe_machine, resident_mib, versions
from edgead.plan.profile import FORMAT, Candidate, Profile, Times
from edgead.runtime.engines.opening import usable_engines
from edgead.runtime.frame_inspector import FrameInspector
from edgead.runtime.inspector import load
from edgead.runtime.result import Result
from edgead.runtime.sources.source import Captured, FrameSource
from edgead.runtime.stream import Policy, Stream
from edgead.text import utc_now

FRAMES, SECONDS = 2000, 5.0
"""A pass of a measurement ends after so many results, or so many seconds."""
LARGEST_BYTES = 1 << 30
"""Of the frames that are measured with."""
LEAST = 20
"""Fewest disturbed inferences; with fewer, the undisturbed ones stand for both."""
WARM_UP = 5
LOAD = 0.9
"""Share of the engine's time that the sources of the second pass ask for."""
DRIFT = 0.02
"""Largest difference of a camera's period: real cameras drift, so that they meet in every phase."""


class PacedCamera(FrameSource):
    """A live source with a steady pace.

    Args:
        frames: ``(H, W, C) uint8`` each, delivered in turn.
        period: seconds between two.
        name: of the source.
        start: `time.monotonic` of the first.
        count: number of frames; 0 for no end.
    """

    live = True

    def __init__(self, frames: Sequence[Frame], period: float, name: str, start: float, count: int = 0) -> None:
        super().__init__(name)
        self._frames, self._period, self._start, self._count = frames, period, start, count

    def read(self) -> Iterator[Captured]:
        number = 0
        while not self._count or number < self._count:
            wait = self._start + number * self._period - time.monotonic()
            if self.stopped.wait(max(0.0, wait)):
                return
            yield Captured(self._frames[number % len(self._frames)], "", self.name, number, time.monotonic())
            number += 1


def measure_profile(
    bundles: Sequence[str | Path],
    engines: Sequence[str],
    streams: int,
    frame_size: tuple[int, int],
    console: Console,
) -> Profile:
    """Measure each bundle on each engine.

    Args:
        bundles: folders.
        engines: names; all that this machine can run if there are none.
        streams: sources at once, in the second pass.
        frame_size: (height, width) of the frames, pixels.
        console: shows progress, and why a bundle does not run on an engine.

    Raises:
        DeviceError: nothing could be measured.
    """
    machine, names = describe_machine(), list(engines) or usable_engines()
    found, reasons = [], []
    opened = [read_bundle(bundle) for bundle in bundles]
    titles = names_apart([(bundle.manifest.name, bundle.path) for bundle in opened])
    jobs = [(bundle, title, engine) for bundle, title in zip(opened, titles) for engine in names]
    with console.bar("measuring", len(jobs)) as step:
        for bundle, title, engine in jobs:
            try:
                found.append(replace(measure(bundle, engine, streams, frame_size), bundle=title))
            except EdgeadError as error:
                if len(jobs) == 1:
                    raise
                reasons.append(f"{title} on {engine}: {first_line(error)}")
            step(f"{title} on {engine}")
    for reason in reasons:
        console.say(f"Left out: {reason}")
    if not found:
        raise DeviceError("No bundle could be measured here.\n" + "\n".join(reasons[:2]))
    created = utc_now()
    return Profile(FORMAT, created, machine, versions(), frame_size, streams, tuple(found))


def measure(bundle: Bundle, engine: str, streams: int, frame_size: tuple[int, int]) -> Candidate:
    """Open a bundle on an engine and measure it."""
    before, started = resident_mib(), time.perf_counter()
    with closing(load(bundle.path, engine=engine)) as inspector:
        opened = time.perf_counter() - started
        if inspector.geometry.align is not None:
            raise ConfigError(
                f"{bundle.path} aligns frames, and plan has no frames that show its part.\n"
                "Measure it on pictures of the part:  edgead benchmark BUNDLE --data DIR"
            )
        times = measure_times(inspector, streams, frames_of(bundle, frame_size))
        grown = resident_mib() - before
        name = inspector.engine.name
    manifest = bundle.manifest
    return Candidate(manifest.name, manifest.precision, name, round(opened, 3), round(max(grown, 0.0), 1), times)


def measure_times(inspector: FrameInspector, streams: int, frames: Sequence[Frame], seconds: float = SECONDS) -> Times:
    """Measure the times of single frames, first with one slow source, then with several that load the engine."""
    for number in range(WARM_UP):
        inspector.inspect(frames[number % len(frames)])
    took = [inspector.inspect(frames[number % len(frames)]).latency_ms["total"] for number in range(WARM_UP)]
    slow = run_pass(inspector, frames, 1, max(2 * float(np.median(took)) / 1e3, 0.01), seconds)
    service = float(np.mean([_service(result) for result in slow]))
    results = run_pass(inspector, frames, streams, streams * service / LOAD / 1e3, seconds)
    disturbed, undisturbed = split_by_disturbance(results)
    undisturbed = [_service(result) for result in slow] + undisturbed
    return Times(
        fit=_rounded([result.latency_ms["fit"] for result in results]),
        hand_over=_rounded([result.latency_ms["queue"] for result in slow]),
        undisturbed=_rounded(undisturbed),
        disturbed=_rounded(disturbed if len(disturbed) >= LEAST else undisturbed),
    )


def run_pass(
    inspector: FrameInspector,
    frames: Sequence[Frame],
    cameras: int,
    period: float,
    seconds: float = SECONDS,
) -> list[Result]:
    """Stream from paced cameras with random phases; return the results after the first few.

    Raises:
        DeviceError: a frame is UNKNOWN: a failing engine would look fast.
    """
    rng, start = np.random.default_rng(0), time.monotonic() + 0.05
    sources = [
        PacedCamera(frames, each, f"camera {number}", start + rng.uniform(0, each))
        for number, each in enumerate(drifting_periods(period, cameras))
    ]
    results: list[Result] = []
    with Stream(inspector, sources, Policy(silence=60.0), say=lambda text: None) as stream:
        for result in stream:
            if result.verdict is Verdict.UNKNOWN:
                raise DeviceError(f"A frame is UNKNOWN, so the measurement is not valid: {result.reason}")
            result.anomaly_map = None  # not needed, and large
            results.append(result)
            if len(results) >= FRAMES + WARM_UP or (time.monotonic() > start + seconds and len(results) > 2 * WARM_UP):
                break
    return results[WARM_UP:]


def drifting_periods(period: float, cameras: int) -> list[float]:
    """Return the periods of cameras that differ by up to `DRIFT`; that of one camera is exact."""
    shares = np.linspace(-DRIFT, DRIFT, cameras) if cameras > 1 else np.zeros(1)
    return [period * (1 + float(share)) for share in shares]


def split_by_disturbance(results: Sequence[Result]) -> tuple[list[float], list[float]]:
    """Return the service times of inferences during which a frame was fitted, and of the others."""
    began = sorted(result.t_capture for result in results)
    ended = sorted(result.t_capture + result.latency_ms["fit"] / 1e3 for result in results)
    disturbed: list[float] = []
    undisturbed: list[float] = []
    for result in results:
        end = result.t_capture + result.latency_ms["total"] / 1e3
        start = end - _service(result) / 1e3
        overlapping = bisect_left(began, end) - bisect_right(ended, start)
        (disturbed if overlapping > 0 else undisturbed).append(_service(result))
    return disturbed, undisturbed


def _service(result: Result) -> float:
    return result.latency_ms["infer"] + result.latency_ms["post"]


def _rounded(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(max(value, 0.0), 4) for value in values)


def frames_of(bundle: Bundle, frame_size: tuple[int, int]) -> list[Frame]:
    """Return golden frames at a camera's size, `LARGEST_BYTES` at most. Repeated pixels keep them sharp."""
    (height, width), frames = frame_size, bundle.golden().frames
    lib, most = cv2(), max(1, LARGEST_BYTES // (height * width * frames.shape[3]))
    return [lib.resize(frame, (width, height), interpolation=lib.INTER_NEAREST) for frame in frames[:most]]
