"""Decides on the frames of sources: capture and inference overlap, and the ledger counts every frame.

One thread per source captures and fits (`edgead.runtime.capture`), so that a frame changes threads only once before the
engine. The thread that iterates over the `Stream` infers: the engine has one owner, and errors and interrupts arrive in
the caller's thread. `edgead.runtime.pipeline` adds sinks.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from edgead.errors import ConfigError
from edgead.images import Frame, to_frame
from edgead.runtime.capture import Admit, Buffers, Capture, Choose, Deciding, Numbering, Shared
from edgead.runtime.clock import standstill
from edgead.runtime.frame_inspector import FrameInspector, Prepared, refuse_closed, refuse_other_depth
from edgead.runtime.frame_queue import FrameQueue
from edgead.runtime.freshness import Freshness
from edgead.runtime.handover import Active, Requests, activate
from edgead.runtime.ledger import Ledger
from edgead.runtime.policy import Policy
from edgead.runtime.result import Result
from edgead.runtime.saying import SayOnce, harmless
from edgead.runtime.sources import Captured, Source
from edgead.runtime.sources.opening import open_all
from edgead.runtime.watch import Watch
from edgead.settings import check_count

__all__ = ["Ledger", "Policy", "Stream"]

TICK = 0.25
"""Longest time in seconds between two checks of the clock while no frame comes."""
LEAVE_WITHIN = 2.0
"""Seconds for sources to close at the end. A source that hangs longer stays in its daemon thread."""
_log = logging.getLogger(__name__)


class Stream:
    """Iterate over it, once: each frame that is not dropped has one result, in order for each source.

    Capture lasts from the first result to the end of the iteration, or as long as a ``with`` block.

    Args:
        inspector: the inspector. It is not closed.
        sources: each is what `edgead.runtime.sources.opening.as_source` takes; a mapping names them. A single URI or
            path is one source. Opening a camera is retried while another source runs.
        policy: the settings.
        ledger: counts the frames; its equation holds at any moment.
        max_frames: end after that many results; 0 for no limit.
        keep_frames: keep each frame in its result.
        on_drop: called with every dropped frame and the cause, in the thread that dropped it.
        admit: called with the source's name and every captured frame, in the thread of the source; returns why the
            frame is dropped, one word, or empty text if it is inspected.
        choose: called with each admitted frame, in the thread of the source; returns one of the inspectors that `warm`
            has prepared, or None for the stream's own.
        on_stop: called by `stop`.
        watch: looks at every inferred frame, and may report about its source; see `edgead.runtime.watch`.
        say: shows a line, for instance about a changed frame size or a callback that raises.

    Attributes:
        paused: nothing is inferred. Frames of cameras become UNKNOWN, cause ``paused``; without a camera, frames wait.
            Any thread may set it.

    Raises:
        ConfigError: two sources have the same name, or `max_frames` is below 0.
        SourceError: a source cannot be opened.
    """

    def __init__(
        self,
        inspector: FrameInspector,
        sources: str | Path | Sequence[Any] | Mapping[str, Any],
        policy: Policy | None = None,
        ledger: Ledger | None = None,
        *,
        max_frames: int = 0,
        keep_frames: bool = False,
        on_drop: Callable[[Captured, str], None] | None = None,
        admit: Admit | None = None,
        choose: Choose | None = None,
        on_stop: Callable[[], None] = lambda: None,
        watch: Watch | None = None,
        say: Callable[[str], None] = _log.warning,
    ) -> None:
        refuse_closed(inspector)
        check_count("max_frames", max_frames, 0, " (no limit)")
        self._on_stop = on_stop
        self.policy = policy or Policy()
        self._deciding = Deciding(activate(inspector, self.policy))
        self.ledger = ledger or Ledger()
        self.sources = open_all(sources, inspector.pixels)
        self.paused = False
        self._may_wait = not any(source.live for source in self.sources)
        self._freshness = Freshness(self.policy)
        self._max_frames, self._keep_frames = max_frames, keep_frames
        self._on_drop, self._say = on_drop, harmless(say)
        self._say_once = SayOnce(self._say)
        self._watch, self._noted = watch, deque[Result]()
        live = [source.live for source in self.sources]
        self._queue = FrameQueue(
            self.ledger, live, self.policy.on_full, self.policy.capacity, max_frames, self._tell_drop
        )
        self._buffers = Buffers()
        shared = Shared(
            deciding=self._deciding,
            queue=self._queue,
            ledger=self.ledger,
            freshness=self._freshness,
            buffers=self._buffers,
            admit=admit,
            choose=choose,
            say_once=self._say_once,
            numbering=Numbering(self._say_once),
        )
        self._captures = [
            Capture(number, source, self._is_checked(source), shared) for number, source in enumerate(self.sources)
        ]
        self._requests = Requests(self._say)
        self._patience = min(TICK, self.policy.silence / 2, self.policy.keep_warm / 2 or TICK)
        self._turned_at = time.monotonic()
        self._running: ExitStack | None = None
        self._iterated, self._ended, self._process = False, False, os.getpid()

    @property
    def inspector(self) -> FrameInspector:
        """The inspector that decides now."""
        return self._deciding.active.inspector

    @property
    def failed(self) -> dict[str, str]:
        """Sources that ended because of an error, with the error."""
        return {capture.source.name: capture.failed for capture in self._captures if capture.failed}

    def __enter__(self) -> Stream:
        if self._running is not None:
            raise ConfigError("A stream runs only once. Create another one.")
        self._running = ExitStack()
        atexit.register(self.__exit__)  # an iterator that is still held would end when threads can no longer start
        if any(source.live for source in self.sources):
            self._running.enter_context(standstill.watch())
        for capture in self._captures:
            capture.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._running
        atexit.unregister(self.__exit__)
        self._ended = True
        if os.getpid() != self._process or sys.is_finalizing():  # no threads are left
            return
        self._queue.cut()
        self._requests.close()
        self._stop_sources()
        until = time.monotonic() + LEAVE_WITHIN
        for thread in {capture.thread for capture in self._captures} - {threading.current_thread()}:
            thread.join(max(0.0, until - time.monotonic()))
        self._running.close()

    def stop(self) -> None:
        """End the capture. Captured frames are still inspected, then the iteration ends. Thread-safe."""
        try:
            self._on_stop()
        finally:
            self.paused = False  # frames that wait are still inspected
            self._stop_sources()

    def _stop_sources(self) -> None:
        self._queue.close()
        threads = [threading.Thread(target=self._stop, args=(source,), daemon=True) for source in self.sources]
        for thread, source in zip(threads, self.sources):
            try:
                thread.start()
            except RuntimeError:  # the interpreter ends
                self._stop(source)
        for thread in threads:  # a plug-in source may hang; usually this takes no time
            if thread.ident:
                thread.join(TICK)

    def _stop(self, source: Source) -> None:
        try:
            source.stop()
        except Exception as error:  # as above
            self._say(f"The source {source.name} cannot be stopped: {error}")

    def idle(self) -> float:
        """Return the seconds since the thread that decides began its last turn: more than a second means that it hangs.

        A turn is a batch with all that the caller does with its results, or at most `TICK` without a frame. Once the
        stream has ended, nothing hangs: it is 0, and results that still wait for a sink hold.
        """
        return 0.0 if self._ended else time.monotonic() - self._turned_at

    def swap(self, inspector: FrameInspector, retire: Callable[[FrameInspector], None] | None = None) -> None:
        """Let another inspector decide from the next frame on. No frame is lost or delayed. Thread-safe.

        Anything that can fail is done before this returns. Several calls take effect in their order.

        Args:
            inspector: the new one, warm as from `edgead.load`.
            retire: called with the old one when it no longer decides, for instance to close it. Its errors are logged.

        Raises:
            ConfigError: it is closed, or reads depth or 16-bit images differently, so that the sources' frames would
                have another meaning; or the stream has ended.
        """
        successor = self._successor(inspector)

        def exchange() -> None:
            old = self._exchange(successor)
            if retire:
                retire(old)

        if not self.call_soon(exchange):
            raise ConfigError("The stream has ended: nothing is decided any more, and the old inspector stays.")

    def warm(self, inspector: FrameInspector) -> None:
        """Prepare an inspector that `choose` may return. Call it before the stream runs. It is not closed.

        Raises:
            ConfigError: see `swap`.
        """
        self._deciding.warm[inspector] = self._successor(inspector)

    def call_soon(self, action: Callable[[], object]) -> bool:
        """Run an action between two frames, in the thread that iterates, while nothing is being inferred.

        Any thread and any signal handler may call it. Actions run in order, and before the stream ends; their errors
        are logged.

        Returns:
            False if the stream has ended: the action is not run.
        """
        return self._requests.add(action)

    def take_over(self, inspector: FrameInspector) -> FrameInspector:
        """Let another inspector decide at once, and return the old one. Only for actions of `call_soon`.

        Raises:
            ConfigError: see `swap`; the old one then still decides.
        """
        return self._exchange(self._successor(inspector))

    def _successor(self, inspector: FrameInspector) -> Active:
        refuse_other_depth(inspector, self.inspector)
        return activate(inspector, self.policy)

    def _exchange(self, successor: Active) -> FrameInspector:
        """Make the successor active and return the old inspector. Nothing here can fail."""
        old, self._deciding.active = self._deciding.active, successor
        for capture in self._captures:
            capture.set_limits(successor.limits)
        return old.inspector

    def __iter__(self) -> Iterator[Result]:
        if self._iterated:
            raise ConfigError("A stream can be iterated over only once. Create another one.")
        self._iterated = True
        return self._results()

    def _results(self) -> Iterator[Result]:
        with ExitStack() as stack:
            if self._running is None:
                stack.enter_context(self)
            stack.callback(self._requests.close)
            yield from self._decide()

    def _decide(self) -> Iterator[Result]:
        given, last_frame = 0, time.monotonic()
        reported_at = [-math.inf] * len(self.sources)
        while not self._max_frames or given < self._max_frames:
            self._turned_at = time.monotonic()
            if os.getpid() != self._process:  # no frame would ever come
                raise ConfigError("The stream runs in the process that this one was forked from. Start one here.")
            self._requests.run()
            if self.paused and self._may_wait:
                time.sleep(self._patience)
                continue
            most = min(self.policy.batch, self._max_frames - given) if self._max_frames else self.policy.batch
            batch = self._queue.take(most, self._patience)
            for result in self._counted(batch):
                given += 1
                yield result
            while self._noted:
                yield self._noted.popleft()
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

    def _counted(self, batch: list[tuple[int, Prepared]]) -> Iterator[Result]:
        """Inspect a batch, yield its results and count each one.

        Frames whose results the caller does not take, also because of Ctrl-C during the inference, are dropped as
        ``stopped``.
        """
        left = deque(prepared.captured for _, prepared in batch)
        try:
            for result in self._inspect(batch) if batch else []:
                if not left.popleft().about_source:
                    self.ledger.count(result)
                yield result
        finally:
            for captured in left:
                if not captured.about_source:
                    self.ledger.drop(captured.source_id, "stopped")
                    self._tell_drop(captured, "stopped")

    def _keep_warm(self) -> None:
        try:
            self.inspector.keep_warm()
        except Exception as error:  # the next frame's verdict shows the failure
            self._say_once(f"Keeping the engine warm failed: {error}", "keep warm")

    def _is_checked(self, source: Source) -> bool:
        return self.policy.health == "all" or (self.policy.health == "live" and source.live)

    def _inspect(self, batch: list[tuple[int, Prepared]]) -> list[Result]:
        for number, prepared in batch:
            if prepared.fitted is None:
                continue
            reason = self._freshness.why_stale(prepared.captured, self.sources[number].live)
            if reason or self.paused:
                self._buffers.give(prepared.fitted)
                cause = ("stale", reason) if reason else ("paused", "the inspection is paused")
                prepared.fitted, (prepared.cause, prepared.error) = None, cause
            else:
                self._captures[number].check_again(prepared)
        results: list[Result] = []
        for inspector, group in itertools.groupby(batch, lambda item: item[1].inspector):
            active = self._deciding.find(inspector)
            results += active.inspector.try_to_infer([prepared for _, prepared in group], active.batch)
        for (number, prepared), result in zip(batch, results):
            self._freshness.mark(result, prepared.captured, self.sources[number].live)
            if self._keep_frames:
                result.frame = self._frame_of(prepared)
            if prepared.fitted is not None:
                self._look(number, prepared, result)
                self._buffers.give(prepared.fitted)
        return results

    def _look(self, number: int, prepared: Prepared, result: Result) -> None:
        """Let the watch see an inferred frame, and keep what it reports."""
        inspector = prepared.inspector or self.inspector
        if self._watch is None or prepared.fitted is None or prepared.fitted.shape != inspector.shape:
            return
        try:
            text = self._watch.see(inspector, result, prepared.fitted, self.sources[number].live)
        except (Exception, SystemExit) as error:  # the decision is made; nothing may change it
            self._say_once(f"The watch for drift failed: {error}", ("watch", type(error)))
            return
        if text:
            self.ledger.report(result.source_id, "drift")
            captured = Captured(None, text, result.source_id, None, time.monotonic(), cause="drift")
            self._noted.append(inspector.judge(captured))
            self._say(f"{result.source_id}: {text}")

    def _frame_of(self, prepared: Prepared) -> Frame | None:
        image = prepared.captured.image
        return None if image is None or prepared.frame_size == (0, 0) else to_frame(image, self.inspector.pixels)

    def _report_silence(self, reported: list[float]) -> Iterator[Result]:
        """Yield a result for each live source without a frame or report within `Policy.silence`."""
        now = time.monotonic()
        for number, (source, capture) in enumerate(zip(self.sources, self._captures)):
            silent = now - max(capture.heard, reported[number]) >= self.policy.silence
            if source.live and silent and self._queue.is_empty(number):
                reported[number] = now
                text = f"camera {source.name} delivered no frame for {self.policy.silence:g} s"
                captured = Captured(None, text, source.name, None, now, cause="silent")
                self.ledger.report(source.name, "silent")
                yield self.inspector.judge(captured)

    def _tell_drop(self, captured: Captured, cause: str) -> None:
        try:
            if self._on_drop:
                self._on_drop(captured, cause)
        except (Exception, SystemExit) as error:  # the caller's code, in the thread of a source that must continue
            self._say_once(f"on_drop raised {type(error).__name__}: {error}", ("on_drop", type(error)))
