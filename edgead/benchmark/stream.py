"""The overhead of the stream over resizing and inference: capture to decision, throughput of several sources, memory.

The stream and the bare calls alternate in short blocks, so that a disturbance of the machine affects both.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from edgead import schema
from edgead.benchmark.latency import percentiles
from edgead.benchmark.report import Percentiles
from edgead.decision import Verdict
from edgead.errors import DeviceError
from edgead.files import write_json
from edgead.images import Frame, fit_frame
from edgead.machine import Machine, describe_machine, resident_mib, versions
from edgead.runtime.inspector import Inspector, load
from edgead.runtime.ledger import Ledger
from edgead.runtime.result import Result
from edgead.runtime.sources import VideoSource
from edgead.runtime.sources.python import IterableSource
from edgead.runtime.stream import Policy, Stream


@dataclass(frozen=True)
class StreamLatency:
    """Capture to decision in a stream, compared with resizing and inferring the same frames one by one.

    Attributes:
        stream_ms, fit_and_engine_ms: percentiles of both.
        stream_over_bare: their ratios.
        frames: number of frames behind each.
    """

    stream_ms: Percentiles
    fit_and_engine_ms: Percentiles
    stream_over_bare: Percentiles
    frames: int


@dataclass(frozen=True)
class Throughput:
    """Frames per second of one source and of several, on one engine."""

    sources: int
    one_source_fps: float
    several_sources_fps: float
    several_over_one: float


@dataclass(frozen=True)
class Memory:
    """Resident memory of the process, MiB: samples, and how much it grew after the first two."""

    frames: int
    rss_mib: tuple[float, ...]
    growth_mib: float


@dataclass(frozen=True)
class EngineFigures:
    """Figures of one engine."""

    load_seconds: float
    latency: StreamLatency
    throughput: Throughput
    memory: Memory


@dataclass(frozen=True)
class Video:
    """The streamed video."""

    frames: int
    height: int
    width: int


@dataclass(frozen=True)
class StreamedBundle:
    """The bundle. `size` is (height, width) of the model's input in pixels."""

    name: str
    size: tuple[int, int]


@dataclass(frozen=True)
class StreamReport:
    """The results file. `schema` is its version; `engines` maps an engine's name to its figures."""

    schema: int
    created: str
    command: str
    machine: Machine
    versions: dict[str, str]
    engines: dict[str, EngineFigures]
    video: Video
    bundle: StreamedBundle


def measure_stream(inspector: Inspector, video: Path, rounds: int, pause: float) -> StreamLatency:
    """Compare a stream on a video, paced like a camera, with resizing and inferring the same frames one by one.

    Args:
        inspector: runs the bundle.
        video: is read again in every round.
        rounds: each with one stream pass and one bare pass.
        pause: seconds before each frame, in both passes.

    Returns:
        Percentiles of both, and their ratios.
    """
    streamed: list[float] = []
    bare: list[float] = []
    for number in range(rounds):
        passes = (_stream_pass, _bare_pass) if number % 2 else (_bare_pass, _stream_pass)
        for one in passes:
            times = one(inspector, video, pause)
            if number:  # the first round warms up
                (streamed if one is _stream_pass else bare).extend(times)
    stream_ms, bare_ms = percentiles(streamed), percentiles(bare)
    ratios = Percentiles(*(round(one / other, 4) for one, other in zip(stream_ms.values(), bare_ms.values())))
    return StreamLatency(stream_ms, bare_ms, ratios, len(streamed))


def _paced(video: Path, pause: float) -> Iterator[Frame]:
    """Yield a video's frames with a pause before each is decoded, like a camera that is slower than the engine."""
    with VideoSource(video) as frames:
        while True:
            time.sleep(pause)
            captured = next(frames, None)
            if captured is None:
                return
            assert captured.image is not None
            yield captured.image


def _stream_pass(inspector: Inspector, video: Path, pause: float) -> list[float]:
    with Stream(inspector, [IterableSource(_paced(video, pause), live=True)], Policy(health="off")) as stream:
        return [result.latency_ms["total"] for result in decided(stream)]


def decided(results: Iterable[Result]) -> Iterator[Result]:
    """Yield the results. Refuse UNKNOWN: a failing engine would look fast.

    Raises:
        DeviceError: a result is UNKNOWN, with the reason.
    """
    for result in results:
        if result.verdict is Verdict.UNKNOWN:
            raise DeviceError(f"A frame is UNKNOWN, so the measurement is not valid: {result.reason}")
        yield result


def _bare_pass(inspector: Inspector, video: Path, pause: float) -> list[float]:
    times = []
    for frame in _paced(video, pause):
        start = time.perf_counter()
        inspector.engine.infer(fit_frame(frame, inspector.size, geometry=inspector.geometry)[None])
        times.append((time.perf_counter() - start) * 1e3)
    return times


def measure_throughput(inspector: Inspector, frames: Sequence[Frame], sources: int, rounds: int) -> Throughput:
    """Compare frames per second of several sources on one engine with one source, alternating."""
    seconds: dict[int, list[float]] = {1: [], sources: []}
    for _ in range(rounds):
        for count, times in seconds.items():
            share = len(frames) // count
            parts = [IterableSource(frames[i * share : (i + 1) * share], str(i)) for i in range(count)]
            start = time.perf_counter()
            with Stream(inspector, parts) as stream:
                given = sum(1 for _ in decided(stream))
            times.append((time.perf_counter() - start) / given)
    one, several = (float(np.median(seconds[count])) for count in (1, sources))
    return Throughput(sources, round(1 / one, 2), round(1 / several, 2), round(one / several, 4))


def measure_memory(inspector: Inspector, frame: Frame, count: int, samples: int = 20) -> Memory:
    """Return the resident memory, MiB, while a stream inspects `count` frames."""
    ledger, resident = Ledger(), []
    step = max(1, count // samples)
    with Stream(inspector, [IterableSource(frame for _ in range(count))], ledger=ledger) as stream:
        for number, _ in enumerate(decided(stream)):
            if number % step == 0:
                resident.append(round(resident_mib(), 2))
    return Memory(ledger.inferred, tuple(resident), round(resident[-1] - resident[2], 2))


def main() -> None:
    """Measure and write a results file: ``python -m edgead.benchmark.stream BUNDLE VIDEO --out FILE``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("video", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--engine", action="append", dest="engines", help="repeatable; by default the fastest")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--pause", type=float, default=0.03, help="seconds between two frames")
    parser.add_argument("--memory-frames", type=int, default=100_000)
    options = parser.parse_args()
    machine = describe_machine()
    with VideoSource(options.video) as captured:
        frames = [one.image for one in captured if one.image is not None]
    engines = {}
    for engine in options.engines or ["auto"]:
        start = time.perf_counter()
        with load(options.bundle, engine=engine) as inspector:
            bundle = StreamedBundle(inspector.bundle.manifest.name, inspector.size)
            engines[inspector.engine.name] = EngineFigures(
                load_seconds=round(time.perf_counter() - start, 3),
                latency=measure_stream(inspector, options.video, options.rounds, options.pause),
                throughput=measure_throughput(inspector, frames, 4, options.rounds),
                memory=measure_memory(inspector, frames[0], options.memory_frames),
            )
    report = StreamReport(
        schema=2,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=shlex.join(["python", "-m", "edgead.benchmark.stream", *map(os.path.basename, sys.argv[1:])]),
        machine=machine,
        versions=versions(),
        engines=engines,
        video=Video(len(frames), frames[0].shape[0], frames[0].shape[1]),
        bundle=bundle,
    )
    write_json(options.out, schema.write(report))


if __name__ == "__main__":
    main()
