"""The overhead of the stream over resizing and inference: capture to decision, throughput of several sources, memory.

The stream and the bare calls alternate in short blocks, so that a disturbance of the machine affects both.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgead import schema
from edgead.benchmark.latency import percentiles
from edgead.benchmark.report import Percentiles
from edgead.decision import Verdict
from edgead.errors import DeviceError
from edgead.files import write_json
from edgead.images import Frame, fit_frame
from edgead.machine import Machine, describe_measurement, resident_mib
from edgead.runtime.inspector import Inspector, load
from edgead.runtime.ledger import Ledger
from edgead.runtime.result import Result
from edgead.runtime.sources import VideoSource
from edgead.runtime.sources.python import IterableSource
from edgead.runtime.stream import Policy, Stream

Times = dict[str, list[float]]
"""Milliseconds of every frame: ``total`` and its stages."""
STREAMED, BARE = ("total", "queue", "fit", "infer", "post"), ("total", "fit", "infer")


@dataclass(frozen=True)
class StreamLatency:
    """Capture to decision in a stream, compared with resizing and inferring the same frames one by one.

    Attributes:
        stream_ms, fit_and_engine_ms: percentiles of both.
        stream_over_bare: their ratios.
        stages_ms: of the stream: ``queue`` (mainly the change of threads), ``fit``, ``infer`` and ``post``.
        bare_stages_ms: ``fit`` and ``infer`` of the bare calls.
        frames: number of frames behind each.
    """

    stream_ms: Percentiles
    fit_and_engine_ms: Percentiles
    stream_over_bare: Percentiles
    stages_ms: dict[str, Percentiles]
    bare_stages_ms: dict[str, Percentiles]
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


def measure_streams(
    inspectors: Mapping[str, Inspector], video: Path, rounds: int, pause: float
) -> dict[str, StreamLatency]:
    """Compare streams on a video, paced like a camera, with resizing and inferring the same frames one by one.

    Args:
        inspectors: take turns.
        video: is read again in every pass.
        rounds: each with one stream pass and one bare pass of every inspector; the first one warms up.
        pause: seconds before each frame, in both passes.

    Raises:
        DeviceError: an engine fails.
    """
    streamed: dict[str, Times] = {name: {stage: [] for stage in STREAMED} for name in inspectors}
    bare: dict[str, Times] = {name: {stage: [] for stage in BARE} for name in inspectors}
    for number in range(rounds):
        passes = [(_stream_pass, streamed), (_bare_pass, bare)]
        for name, inspector in inspectors.items():
            for one, kept in passes if number % 2 else reversed(passes):
                for times in one(inspector, video, pause):
                    for stage, found in kept[name].items() if number else ():
                        found.append(times[stage])
    return {name: _compared(streamed[name], bare[name]) for name in inspectors}


def _compared(streamed: Times, bare: Times) -> StreamLatency:
    stream_ms, bare_ms = ({stage: percentiles(found) for stage, found in each.items()} for each in (streamed, bare))
    stream, alone = stream_ms.pop("total"), bare_ms.pop("total")
    ratios = Percentiles(*(round(one / other, 4) for one, other in zip(stream.values(), alone.values())))
    return StreamLatency(stream, alone, ratios, stream_ms, bare_ms, len(streamed["total"]))


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


def _stream_pass(inspector: Inspector, video: Path, pause: float) -> list[dict[str, float]]:
    with Stream(inspector, [IterableSource(_paced(video, pause), live=True)], Policy(health="off")) as stream:
        return [result.latency_ms for result in decided(stream)]


def decided(results: Iterable[Result]) -> Iterator[Result]:
    """Yield the results. Refuse UNKNOWN: a failing engine would look fast.

    Raises:
        DeviceError: a result is UNKNOWN, with the reason.
    """
    for result in results:
        if result.verdict is Verdict.UNKNOWN:
            raise DeviceError(f"A frame is UNKNOWN, so the measurement is not valid: {result.reason}")
        yield result


def _bare_pass(inspector: Inspector, video: Path, pause: float) -> list[dict[str, float]]:
    times = []
    for frame in _paced(video, pause):
        start = time.perf_counter()
        fitted = fit_frame(frame, inspector.size, geometry=inspector.geometry)[None]
        fitted_at = time.perf_counter()
        inspector.engine.infer(fitted)
        done = time.perf_counter()
        spans = {"total": done - start, "fit": fitted_at - start, "infer": done - fitted_at}
        times.append({stage: seconds * 1e3 for stage, seconds in spans.items()})
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
    head = describe_measurement("-m edgead.benchmark.stream")
    with VideoSource(options.video) as captured:
        frames = [one.image for one in captured if one.image is not None]
    engines = {}
    for engine in options.engines or ["auto"]:
        start = time.perf_counter()
        with load(options.bundle, engine=engine) as inspector:
            bundle = StreamedBundle(inspector.bundle.manifest.name, inspector.size)
            engines[inspector.engine.name] = EngineFigures(
                load_seconds=round(time.perf_counter() - start, 3),
                latency=measure_streams({engine: inspector}, options.video, options.rounds, options.pause)[engine],
                throughput=measure_throughput(inspector, frames, 4, options.rounds),
                memory=measure_memory(inspector, frames[0], options.memory_frames),
            )
    report = StreamReport(
        schema=3,
        **vars(head),
        engines=engines,
        video=Video(len(frames), frames[0].shape[0], frames[0].shape[1]),
        bundle=bundle,
    )
    write_json(options.out, schema.write(report))


if __name__ == "__main__":
    main()
