"""Frames per second by number of sources, and by number of frames per inference."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from edgead.benchmark.figures import ThroughputPoint
from edgead.benchmark.stream import decided
from edgead.bundle import Bundle
from edgead.console import Console
from edgead.images import Frame
from edgead.runtime.inspector import Inspector, load
from edgead.runtime.sources.python import IterableSource
from edgead.runtime.sources.source import Captured
from edgead.runtime.stream import Stream

STREAMS, BATCHES = (1, 2, 4), (1, 2, 4, 8)
ROUNDS = 5
FRAMES = 16
"""Frames in each measurement."""


def measure_throughput(
    bundle: Bundle, engine: str, frames: Sequence[Frame], console: Console
) -> tuple[ThroughputPoint, ...]:
    """Measure the frames per second, all numbers of sources and batches in turn.

    Args:
        bundle: the bundle.
        engine: see `edgead.load`.
        frames: at the camera's resolution.
        console: shows progress.

    Raises:
        EdgeadError: the engine cannot be opened for batches, or fails.
    """
    given = [frames[index % len(frames)] for index in range(FRAMES)]
    batches = (1,) if bundle.manifest.input.batch == 1 else BATCHES
    with load(bundle.path, engine=engine, batch=max(batches), console=console) as inspector:
        jobs: dict[tuple[int, int], Callable[[], None]] = {}
        for streams in STREAMS:
            jobs[streams, 1] = lambda streams=streams: _stream(inspector, given, streams)  # type: ignore[misc]
        for batch in batches[1:]:
            jobs[1, batch] = lambda batch=batch: _infer(inspector, given, batch)  # type: ignore[misc]
        seconds: dict[tuple[int, int], list[float]] = {key: [] for key in jobs}
        for number in console.track("throughput")(range(ROUNDS + 1)):
            for key, job in jobs.items():
                start = time.perf_counter()
                job()
                if number:  # the first round warms up
                    seconds[key].append(time.perf_counter() - start)
    return tuple(
        ThroughputPoint(streams, batch, round(FRAMES / float(np.median(times)), 2))
        for (streams, batch), times in seconds.items()
    )


def _stream(inspector: Inspector, frames: Sequence[Frame], streams: int) -> None:
    parts = [IterableSource(frames[index::streams], str(index)) for index in range(streams)]
    with Stream(inspector, parts) as stream:
        for _ in decided(stream):
            pass


def _infer(inspector: Inspector, frames: Sequence[Frame], batch: int) -> None:
    for start in range(0, len(frames), batch):
        now = time.monotonic()
        inspector.infer([inspector.prepare(Captured(frame, "", "", 0, now)) for frame in frames[start : start + batch]])
