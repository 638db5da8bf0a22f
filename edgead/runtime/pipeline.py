"""Sources through a stream into sinks: capture, inference and sinks overlap. One thread per sink writes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgead.errors import SourceError
from edgead.runtime.frame_inspector import FrameInspector
from edgead.runtime.gate import Gate
from edgead.runtime.ledger import Ledger
from edgead.runtime.policy import Policy
from edgead.runtime.result import Result
from edgead.runtime.sink_worker import SinkWorker, close_all, hurry_all, raise_for, tell_apart
from edgead.runtime.sinks import Sink
from edgead.runtime.sources import Captured
from edgead.runtime.sources.overlap import refuse_own_pictures
from edgead.runtime.stream import Stream
from edgead.runtime.watch import Watch

_log = logging.getLogger(__name__)


def run_stream(
    inspector: FrameInspector,
    source: Any,
    sinks: Sequence[Sink | SinkWorker],
    ledger: Ledger,
    *,
    policy: Policy | None = None,
    max_frames: int = 0,
    keep_frames: bool = False,
    on_result: Callable[[Result], None] | None = None,
    on_start: Callable[[Stream], None] | None = None,
    gate: Gate | None = None,
    watch: Watch | None = None,
    say: Callable[[str], None] = _log.warning,
) -> list[SinkWorker]:
    """Inspect the frames of sources and pass each result to every sink, until the sources end.

    Args:
        inspector: the inspector.
        source: what `as_source` takes, a list of URIs, paths and open sources, or a mapping from names to sources.
        sinks: the sinks; closed at the end, also after an error.
        ledger: counts the frames; its equation holds at any moment.
        policy: the settings.
        max_frames: stop after that many results; 0 for no limit.
        keep_frames: keep each frame in its result, also if no sink needs it.
        on_result: called with each result, after it was queued for the sinks.
        gate: chooses the frames that are inspected and the results that the sinks get; closed at the end.
        watch: see `Stream`.
        on_start: called with the running stream, for instance to keep it for `Stream.stop`.
        say: see `Stream`.

    Returns:
        The workers of the sinks with their accounts. Their queues are empty.

    Raises:
        ConfigError: a sink saves frames in a folder that a source watches, or is none.
        SourceError: a source cannot be opened; or, at the end, a source has failed.
        SinkError: at the end, if a sink did not take some results.
    """
    several = isinstance(source, Mapping) or (
        isinstance(source, list | tuple) and all(isinstance(one, str | Path) or hasattr(one, "live") for one in source)
    )
    workers: list[SinkWorker] = []

    def drop(captured: Captured, cause: str) -> None:
        _tell_all(workers, captured, cause)
        if gate:
            gate.drop(captured, cause)

    def send(result: Result) -> None:
        for worker in workers:
            worker.offer(result, wait)
        if on_result:
            on_result(result)

    try:
        for sink in sinks:
            workers.append(sink if isinstance(sink, SinkWorker) else SinkWorker(sink))
        tell_apart(workers)
        stream = Stream(
            inspector,
            source if several else [source],
            policy,
            ledger,
            max_frames=max_frames,
            keep_frames=keep_frames or any(worker.wants_frames for worker in workers),
            on_drop=drop,
            admit=gate.admit if gate else None,
            choose=gate.inspector if gate else None,
            on_stop=lambda: hurry_all(workers),
            watch=watch,
            say=say,
        )
        refuse_own_pictures(stream.sources, [worker.sink for worker in workers])
        # A slow sink may make sources wait only if all of them can wait.
        wait = not any(opened.live for opened in stream.sources)
        if gate:
            gate.meet([worker.sink for worker in workers])
            gate.begin(stream, send)
        take = gate.take if gate else send
        with stream:
            for worker in workers:
                worker.follow(lambda: stream.inspector.recipe or stream.inspector.bundle.manifest.name)
                worker.begin(stream.idle)
            if on_start:
                on_start(stream)
            for result in stream:
                take(result)
    finally:
        try:
            if gate:
                gate.close()
        finally:
            close_all(workers)
    raise_for(workers)
    if stream.failed:
        raise SourceError("\n".join(f"The source {name} failed: {error}" for name, error in stream.failed.items()))
    return workers


def _tell_all(workers: Sequence[SinkWorker], captured: Captured, cause: str) -> None:
    for worker in workers:
        worker.drop(captured, cause)
