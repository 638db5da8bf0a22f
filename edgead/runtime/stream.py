"""Sources through an inspector into sinks: capture, inference and sinks overlap, and every frame is accounted for.

One thread for each source captures and fits, so that a frame changes hands once before the engine. The thread that
iterates over the `Stream` infers: the engine has one owner, and what it raises or is interrupted by arrives where
the caller is. One thread for each sink writes.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgead.errors import ConfigError, SourceError
from edgead.images import Frame, to_frame
from edgead.runtime.clock import standstill
from edgead.runtime.frame_inspector import FrameInspector, Prepared, refuse_closed, refuse_other_depth
from edgead.runtime.frame_queue import FrameQueue
from edgead.runtime.freshness import Freshness
from edgead.runtime.health import Health, HealthLimits, limits_from
from edgead.runtime.ledger import Ledger
from edgead.runtime.policy import Policy
from edgead.runtime.result import Result
from edgead.runtime.sink_worker import SinkWorker, close_all, hurry_all, raise_for
from edgead.runtime.sinks import Sink
from edgead.runtime.sources import Captured, Source
from edgead.runtime.sources.opening import as_source, open_all

__all__ = ["Ledger", "Policy", "Stream", "as_source", "run_stream"]

TICK = 0.25
"""Most seconds between two looks at the clock while no frame comes."""
LEAVE_WITHIN = 2.0
"""Seconds in which sources may close at the end. What hangs longer is left behind in its daemon thread."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Successor:
    """An inspector that is to decide, and what the stream needs for it. `batch` is ``[N, h, w, C] uint8``, scratch."""

    inspector: FrameInspector
    limits: HealthLimits
    batch: Frame


class Stream:
    """Iterate over it, once, to inspect; each frame that is not dropped gives one result, in order for each source.

    Captures from the first result until the iteration ends, for whatever reason; in a ``with`` block, during the block.

    Args:
        inspector: decides. It is not closed.
        sources: what `as_source` takes; a mapping names them. A camera that cannot be opened is tried again while
            another one runs.
        policy: how frames are treated.
        ledger: is kept true at every instant.
        max_frames: end after that many results; 0 for no limit.
        keep_frames: keep each frame in its result.
        on_drop: told of every dropped frame with the cause, by the thread that dropped it.
        on_stop: called by `stop`.
        say: told in a line what was noticed: a picture's changed size, a callback that raises.

    Attributes:
        failed: sources that ended for good because of an error, with the error.

    Raises:
        ConfigError: two sources have one name.
        SourceError: a source cannot be opened.
    """

    def __init__(
        self,
        inspector: FrameInspector,
        sources: Sequence[Any] | Mapping[str, Any],
        policy: Policy | None = None,
        ledger: Ledger | None = None,
        *,
        max_frames: int = 0,
        keep_frames: bool = False,
        on_drop: Callable[[Captured, str], None] | None = None,
        on_stop: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = _log.warning,
    ) -> None:
        refuse_closed(inspector)
        self._on_stop = on_stop
        self.inspector, self.policy = inspector, policy or Policy()
        self.ledger = ledger or Ledger()
        self.sources = open_all(sources, inspector.pixels)
        self.failed: dict[str, str] = {}
        self._freshness = Freshness(self.policy)
        self._max_frames, self._keep_frames = max_frames, keep_frames
        self._on_drop, self._say, self._said = on_drop, say, set[object]()
        live = [source.live for source in self.sources]
        self._queue = FrameQueue(
            self.ledger, live, self.policy.on_full, self.policy.capacity, max_frames, self._tell_drop
        )
        self._limits = self._limits_of(inspector)
        self._health: dict[tuple[int, str], Health] = {}  # a replay brings the frames of several cameras
        self._heard = [math.inf] * len(self.sources)  # when each was last heard; infinity while it is not awaited
        self._buffers: deque[Frame] = deque()
        self._batch = self._make_batch(inspector)
        self._requests: deque[Callable[[], object]] = deque()
        self._patience = min(TICK, self.policy.silence / 2, self.policy.keep_warm / 2 or TICK)
        self._running: ExitStack | None = None
        self._iterated = False
        self._threads = [
            threading.Thread(target=self._capture, args=(number,), name=f"capture-{number}", daemon=True)
            for number in range(len(self.sources))
        ]

    def __enter__(self) -> Stream:
        if self._running is not None:
            raise ConfigError("A stream runs once. Make another one.")
        self._running = ExitStack()
        if any(source.live for source in self.sources):
            self._running.enter_context(standstill.watch())
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._running
        self._queue.cut()
        self._stop_sources()
        until = time.monotonic() + LEAVE_WITHIN
        for thread in set(self._threads) - {threading.current_thread()}:
            thread.join(max(0.0, until - time.monotonic()))
        self._running.close()

    def stop(self) -> None:
        """Capture no more. What is captured is still inspected, then the iteration ends. Any thread may call it."""
        self._on_stop()
        self._stop_sources()

    def _stop_sources(self) -> None:
        self._queue.close()
        threads = [threading.Thread(target=self._stop, args=(source,), daemon=True) for source in self.sources]
        for thread in threads:
            thread.start()
        for thread in threads:  # a source is anybody's code: it may hang, but mostly this takes no time
            thread.join(TICK)

    def _stop(self, source: Source) -> None:
        try:
            source.stop()
        except Exception as error:  # as above
            self._say(f"The source {source.name} cannot be stopped: {error}")

    def swap(self, inspector: FrameInspector, retire: Callable[[FrameInspector], None] | None = None) -> None:
        """Let another inspector decide from the next frame on; any thread may call it. No frame is lost or waits.

        Whatever can fail is done before this returns. Several calls take effect one after the other.

        Args:
            inspector: warm already, as `edgead.load` gives it.
            retire: called with the old one when it decides no more, for instance to close it. What it raises is logged.

        Raises:
            ConfigError: it is closed, or codes depth or 16-bit images differently, so that the sources' frames would
                mean something else to it.
        """
        successor = self._successor(inspector)

        def exchange() -> None:
            old = self._take_over(successor)
            if retire:
                retire(old)

        self.call_soon(exchange)

    def call_soon(self, action: Callable[[], object]) -> None:
        """Do something between two frames, in the thread that iterates: then nothing is being inferred.

        Any thread and any signal handler may call it. Actions are done in order; what one raises is logged.
        """
        self._requests.append(action)

    def take_over(self, inspector: FrameInspector) -> FrameInspector:
        """Let another inspector decide at once, and return the old one. Only for actions of `call_soon`.

        Raises:
            ConfigError: see `swap`; the old one then still decides.
        """
        return self._take_over(self._successor(inspector))

    def __iter__(self) -> Iterator[Result]:
        if self._iterated:
            raise ConfigError("A stream is iterated over once. Make another one.")
        self._iterated = True
        return self._results()

    def _results(self) -> Iterator[Result]:
        with ExitStack() as stack:
            if self._running is None:
                stack.enter_context(self)
            yield from self._decide()

    def _decide(self) -> Iterator[Result]:
        given, last_frame = 0, time.monotonic()
        reported_at = [-math.inf] * len(self.sources)
        while not self._max_frames or given < self._max_frames:
            self._do_requests()
            most = min(self.policy.batch, self._max_frames - given) if self._max_frames else self.policy.batch
            batch = self._queue.take(most, self._patience)
            for result in self._counted(self._inspect(batch) if batch else []):
                given += 1
                yield result
            for result in self._report_silence(reported_at):
                given += 1
                yield result
                if self._max_frames and given >= self._max_frames:
                    return
            if batch:
                last_frame = time.monotonic()
            elif self._queue.ended:
                return
            elif 0 < self.policy.keep_warm <= time.monotonic() - last_frame:
                self._keep_warm()
                last_frame = time.monotonic()

    def _counted(self, results: list[Result]) -> Iterator[Result]:
        """Give results one by one, and count each as it is given: what the caller leaves is dropped by name."""
        left = deque(results)
        try:
            while left:
                result = left.popleft()
                if result.frame_id is not None:
                    self.ledger.count(result)
                yield result
        finally:
            for result in left:
                if result.frame_id is not None:
                    self.ledger.drop(result.source_id, "stopped")

    def _do_requests(self) -> None:
        while self._requests:
            action = self._requests.popleft()
            try:
                action()
            except Exception as error:  # it may be anybody's code, and must not end the stream
                self._say(f"Between two frames something failed, the stream goes on: {error}")

    def _successor(self, inspector: FrameInspector) -> _Successor:
        """Do all for an inspector that is to decide that can fail.

        Raises:
            ConfigError: see `swap`.
        """
        refuse_other_depth(inspector, self.inspector)
        return _Successor(inspector, self._limits_of(inspector), self._make_batch(inspector))

    def _take_over(self, successor: _Successor) -> FrameInspector:
        """Nothing here can fail."""
        old, self.inspector, self._batch = self.inspector, successor.inspector, successor.batch
        self._limits = successor.limits
        for health in list(self._health.values()):
            health.limits = successor.limits
        return old

    def _make_batch(self, inspector: FrameInspector) -> Frame:
        return np.empty((self.policy.batch, *inspector.shape), np.uint8)

    def _keep_warm(self) -> None:
        try:
            self.inspector.keep_warm()
        except Exception as error:  # beside a line a failure is a verdict: the next frame's
            self._say_once(f"The engine cannot be kept warm: {error}", "keep warm")

    def _limits_of(self, inspector: FrameInspector) -> HealthLimits:
        policy, bundle = self.policy, inspector.bundle
        return dataclasses.replace(
            limits_from(bundle.golden().frames, policy.blurred_below, policy.frozen_after),
            aspects=bundle.manifest.aspects,
            refuse_untrained=policy.untrained_aspect == "unknown",
        )

    def _is_checked(self, source: Source) -> bool:
        return self.policy.health == "all" or (self.policy.health == "live" and source.live)

    def _inspect(self, batch: list[tuple[int, Prepared]]) -> list[Result]:
        for number, prepared in batch:
            reason = self._freshness.why_stale(prepared.captured, self.sources[number].live)
            if reason and prepared.fitted is not None:
                self._buffers.append(prepared.fitted)
                prepared.fitted, prepared.cause, prepared.error = None, "stale", reason
        results = self.inspector.try_to_infer([prepared for _, prepared in batch], self._batch)
        for (number, prepared), result in zip(batch, results):
            self._freshness.mark(result, prepared.captured, self.sources[number].live)
            if self._keep_frames:
                result.frame = self._frame_of(prepared)
            if prepared.fitted is not None:
                self._buffers.append(prepared.fitted)
        return results

    def _frame_of(self, prepared: Prepared) -> Frame | None:
        image = prepared.captured.image
        return None if image is None or prepared.frame_size == (0, 0) else to_frame(image, self.inspector.pixels)

    def _capture(self, number: int) -> None:
        """Read one source until it ends. Runs in a thread of its own."""
        source = self.sources[number]
        self._heard[number] = time.monotonic()
        lost = ""
        try:
            with source as frames:
                for captured in frames:
                    own = captured.source_id == source.name  # a replay repeats the reports of others
                    lost = captured.error if own and captured.cause == "lost" else ""
                    if captured.about_source:
                        self._report(number, captured)
                    elif not self._enter(number, captured):
                        return
            if lost and not self._queue.closed:
                self.failed[source.name] = lost
        except BaseException as error:  # a source may be anybody's code, and its end must not be silent
            reason = str(error) or type(error).__name__
            text = f"the source failed: {reason}"
            if not self._queue.closed:
                self.failed[source.name] = reason
            self._report(number, Captured(None, text, source.name, None, time.monotonic(), cause="lost"))
        finally:
            self._heard[number] = math.inf
            self._queue.close_source(number)

    def _enter(self, number: int, captured: Captured) -> bool:
        self._heard[number] = math.inf
        if not self._queue.enter(number, captured):
            return False
        prepared = _without_image(captured, "failed", "the frame could not be prepared")
        try:
            prepared = self._prepare(number, captured)
        finally:  # whatever happens: what has entered is accounted for
            self._queue.put(number, prepared)
        self._heard[number] = time.monotonic()
        return True

    def _prepare(self, number: int, captured: Captured) -> Prepared:
        reason = self._freshness.why_stale(captured, self.sources[number].live)
        if reason:  # not worth fitting: a backlog has to be worked off quickly
            return _without_image(captured, "stale", reason)
        inspector = self.inspector
        health = self._health.get((number, captured.source_id))
        if health is None:
            notice = functools.partial(self._notice, captured.source_id)
            health = Health(self._limits, notice, self._is_checked(self.sources[number]))
            self._health[number, captured.source_id] = health
        return inspector.try_to_prepare(captured, self._buffer(inspector.shape), health.check)

    def _report(self, number: int, captured: Captured) -> None:
        self._queue.report(number, _without_image(captured, captured.cause, captured.error))

    def _buffer(self, shape: tuple[int, int, int]) -> Frame:
        """Return an array that a frame can be fitted into: one that was used before, where there is one."""
        try:
            buffer = self._buffers.pop()
        except IndexError:
            return np.empty(shape, np.uint8)
        return buffer if buffer.shape == shape else np.empty(shape, np.uint8)

    def _report_silence(self, reported: list[float]) -> Iterator[Result]:
        """Give a result for each live source that has given nothing for long, and was not reported for as long."""
        now = time.monotonic()
        for number, source in enumerate(self.sources):
            silent = now - max(self._heard[number], reported[number]) >= self.policy.silence
            if source.live and silent and self._queue.is_empty(number):
                reported[number] = now
                text = f"camera {source.name} gave no frame for {self.policy.silence:g} s"
                captured = Captured(None, text, source.name, None, now, cause="silent")
                self.ledger.report(source.name, "silent")
                yield self.inspector.judge(captured)

    def _notice(self, source_id: str, name: str, text: str) -> None:
        """Note something about a source's frames, in its thread."""
        self.ledger.report(source_id, name)
        self._say_once(f"{source_id}: {text}", (source_id, name))

    def _tell_drop(self, captured: Captured, cause: str) -> None:
        try:
            if self._on_drop:
                self._on_drop(captured, cause)
        except (Exception, SystemExit) as error:  # anybody's code, in the thread of a source that must go on
            self._say_once(f"on_drop raised {type(error).__name__}: {error}", ("on_drop", type(error)))

    def _say_once(self, text: str, about: object) -> None:
        """Say the first of several lines about the same; each may be different."""
        if about not in self._said:
            self._said.add(about)
            self._say(text)


def _without_image(captured: Captured, cause: str, reason: str) -> Prepared:
    now = time.monotonic()
    return Prepared(captured, None, (0, 0), captured.error or reason, captured.cause or cause, now, now)


def run_stream(
    inspector: FrameInspector,
    source: Any,
    sinks: Sequence[Sink | SinkWorker],
    ledger: Ledger,
    *,
    policy: Policy | None = None,
    max_frames: int = 0,
    on_result: Callable[[Result], None] | None = None,
    on_start: Callable[[Stream], None] | None = None,
    say: Callable[[str], None] = _log.warning,
) -> list[SinkWorker]:
    """Inspect the frames of one or several sources and hand each result to every sink, until the sources end.

    Args:
        inspector: decides.
        source: what `as_source` takes, a list of names and open sources, or a mapping from names to sources.
        sinks: take results; closed at the end, also after an error.
        ledger: is kept true at every instant.
        policy: how frames are treated.
        max_frames: stop after that many results; 0 for no limit.
        on_result: called with each result after the sinks have it.
        on_start: called with the running stream, for instance to keep it for `Stream.stop`.
        say: see `Stream`.

    Returns:
        The sinks' workers, drained, with their accounts.

    Raises:
        SourceError: a source cannot be opened, or, at the end, where one failed for good.
        SinkError: at the end, where a sink could not take some results.
    """
    several = isinstance(source, Mapping) or (
        isinstance(source, list | tuple) and all(isinstance(one, str) or hasattr(one, "live") for one in source)
    )
    workers = [sink if isinstance(sink, SinkWorker) else SinkWorker(sink) for sink in sinks]
    try:
        stream = Stream(
            inspector,
            source if several else [source],
            policy,
            ledger,
            max_frames=max_frames,
            keep_frames=any(worker.wants_frames for worker in workers),
            on_drop=lambda captured, cause: _tell_all(workers, captured, cause),
            on_stop=lambda: hurry_all(workers),
            say=say,
        )
        # Only where all sources can wait may a slow sink make them wait.
        wait = not any(opened.live for opened in stream.sources)
        with stream:
            if on_start:
                on_start(stream)
            for result in stream:
                for worker in workers:
                    worker.offer(result, wait)
                if on_result:
                    on_result(result)
    finally:
        close_all(workers)
    raise_for(workers)
    if stream.failed:
        raise SourceError("\n".join(f"The source {name} failed: {error}" for name, error in stream.failed.items()))
    return workers


def _tell_all(workers: Sequence[SinkWorker], captured: Captured, cause: str) -> None:
    for worker in workers:
        worker.drop(captured, cause)
