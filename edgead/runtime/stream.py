"""Sources through an inspector into sinks: capture, inference and sinks overlap, and every frame is accounted for.

One thread for each source captures and fits, so that a frame changes hands once before the engine. The thread that
iterates over the `Stream` infers: the engine has one owner, and what it raises or is interrupted by arrives where
the caller is. One thread for each sink writes.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgead.decision import Verdict
from edgead.errors import ConfigError
from edgead.images import COLOUR, Frame, PixelFormat, to_frame
from edgead.runtime.health import Health, Limits, limits_from
from edgead.runtime.inbox import ON_FULL, Inbox
from edgead.runtime.inspector import Inspector, Prepared, refuse_other_depth
from edgead.runtime.ledger import Ledger
from edgead.runtime.outbox import Outbox, close_all, hurry_all, raise_for
from edgead.runtime.result import Result
from edgead.runtime.sinks import Sink
from edgead.runtime.sources import Captured, Source, open_source, refuse_without_depth
from edgead.runtime.sources.python import CallableSource, IterableSource

__all__ = ["Ledger", "Policy", "Stream", "as_source", "run_stream"]

HEALTH = ("live", "all", "off")
TICK = 0.25
"""Most seconds between two looks at the clock while no frame comes."""
LONGEST_STOP = 10.0
"""Seconds after `Stream.stop` in which a source may still end by itself."""


@dataclass(frozen=True)
class Policy:
    """How a stream treats its frames.

    Attributes:
        on_full: of a live source, when older frames wait: see `edgead.runtime.inbox.Inbox`. Files always wait.
        capacity: frames of one source that may wait.
        max_staleness: milliseconds since capture after which a frame is not inferred any more, but UNKNOWN.
        deadline: milliseconds since capture after which a decision is UNKNOWN.
        batch: most frames in one call of the engine. A batch is never waited for.
        silence: seconds without a frame after which a live source is reported as silent, again and again.
        health: sources whose frames are checked: ``"live"``, ``"all"`` or ``"off"``.
        blurred_below, frozen_after: see `edgead.runtime.health.Limits`.
        keep_warm: seconds without a frame after which the engine is run on nothing; 0 for never.
    """

    on_full: str = "drop-oldest"
    capacity: int = 1
    max_staleness: float | None = None
    deadline: float | None = None
    batch: int = 1
    silence: float = 5.0
    health: str = "live"
    blurred_below: float = 0.1
    frozen_after: float = 5.0
    keep_warm: float = 0.0

    def __post_init__(self) -> None:
        for name, allowed in (("on_full", ON_FULL), ("health", HEALTH)):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is one of {', '.join(allowed)}; not {getattr(self, name)}.")
        for name in ("capacity", "batch", "silence", "max_staleness", "deadline"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be positive, not {value}.")


def as_source(source: Any, pixels: PixelFormat = COLOUR) -> Source:
    """Return a source for its name, an iterable of frames, a function that gives frames, or itself.

    Raises:
        SourceError: it cannot be opened, or cannot give the depth that is wanted.
    """
    if isinstance(source, str):
        return open_source(source, pixels)
    if hasattr(source, "__enter__") and hasattr(source, "live"):
        return refuse_without_depth(source, pixels)
    if isinstance(source, Iterable):
        return IterableSource(source)
    if callable(source):
        return CallableSource(source)
    raise ConfigError(f"A source is a name, an iterable or a function, not {type(source).__name__}.")


class Stream:
    """Iterate over it to inspect; each frame that is not dropped gives one result, in order for each source.

    Args:
        inspector: decides. It is not closed.
        sources: what `as_source` takes.
        policy: how frames are treated.
        ledger: is kept true at every instant.
        max_frames: end after that many results; 0 for no limit.
        keep_frames: keep each frame in its result.
        on_drop: told of every dropped frame with the cause, by the thread that captured it.
        on_stop: called by `stop`.
    """

    def __init__(
        self,
        inspector: Inspector,
        sources: Sequence[Any],
        policy: Policy | None = None,
        ledger: Ledger | None = None,
        *,
        max_frames: int = 0,
        keep_frames: bool = False,
        on_drop: Callable[[Captured, str], None] | None = None,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_stop = on_stop
        self.inspector, self.policy = inspector, policy or Policy()
        self.ledger = ledger or Ledger()
        self.sources = [as_source(source, inspector.pixels) for source in sources]
        self._max_frames, self._keep_frames = max_frames, keep_frames
        live = [source.live for source in self.sources]
        self._inbox = Inbox(self.ledger, live, self.policy.on_full, self.policy.capacity, max_frames, on_drop)
        limits = self._limits_of(inspector)
        self._health = [Health(limits) if self._is_checked(source) else None for source in self.sources]
        self._heard = [math.inf] * len(
            self.sources
        )  # when each source was last heard; infinity while it is not awaited
        self._next_id = [0] * len(self.sources)
        self._stopped_at = math.inf
        self._buffers: deque[Frame] = deque()
        self._batch = np.empty((self.policy.batch, *inspector.shape), np.uint8)
        self._successor: tuple[Inspector, Callable[[Inspector], None] | None] | None = None
        self._patience = min(TICK, self.policy.silence / 2, self.policy.keep_warm / 2 or TICK)
        self._threads = [
            threading.Thread(target=self._capture, args=(number,), name=f"capture-{number}", daemon=True)
            for number in range(len(self.sources))
        ]

    def __enter__(self) -> Stream:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._inbox.cut()
        self.stop()
        for thread in self._threads:
            thread.join(timeout=1.0)  # one that hangs in a driver is left behind; it is a daemon

    def stop(self) -> None:
        """Capture no more. What is captured is still inspected, then the iteration ends. Any thread may call it."""
        self._stopped_at = time.monotonic()
        self._on_stop()
        for source in self.sources:
            source.stop()

    def swap(self, inspector: Inspector, retire: Callable[[Inspector], None] | None = None) -> None:
        """Let another inspector decide from the next frame on; any thread may call it. No frame is lost or waits.

        Args:
            inspector: warm already, as `edgead.load` gives it.
            retire: called with the old one when it decides no more, for instance to close it.

        Raises:
            ConfigError: it codes depth differently, so that the sources' frames would mean something else to it.
        """
        refuse_other_depth(inspector, self.inspector)
        self._successor = inspector, retire

    def __iter__(self) -> Iterator[Result]:
        given, last_frame = 0, time.monotonic()
        while not self._max_frames or given < self._max_frames:
            if self._successor:
                self._take_over(*self._successor)
            most = min(self.policy.batch, self._max_frames - given) if self._max_frames else self.policy.batch
            batch = self._inbox.take(most, self._patience)
            self._report_silence()
            if batch:
                for result in self._inspect(batch):
                    given += 1
                    yield result
                last_frame = time.monotonic()
            elif self._inbox.ended or time.monotonic() - self._stopped_at > LONGEST_STOP:
                return
            elif 0 < self.policy.keep_warm <= time.monotonic() - last_frame:
                self.inspector.keep_warm()
                last_frame = time.monotonic()

    def _take_over(self, inspector: Inspector, retire: Callable[[Inspector], None] | None) -> None:
        old, self.inspector, self._successor = self.inspector, inspector, None
        if retire:
            retire(old)
        self._batch = np.empty((self.policy.batch, *inspector.shape), np.uint8)
        limits = self._limits_of(inspector)
        for health in self._health:
            if health:
                health.limits = limits

    def _limits_of(self, inspector: Inspector) -> Limits:
        return limits_from(inspector.bundle.golden().frames, self.policy.blurred_below, self.policy.frozen_after)

    def _is_checked(self, source: Source) -> bool:
        return self.policy.health == "all" or (self.policy.health == "live" and source.live)

    def _inspect(self, batch: list[Prepared]) -> list[Result]:
        for prepared in batch:
            self._refuse_if_stale(prepared)
        results = self.inspector.try_to_infer(batch, self._batch)
        for prepared, result in zip(batch, results):
            self._mark_if_late(result)
            if self._keep_frames:
                result.frame = self._frame_of(prepared)
            if prepared.fitted is not None:
                self._buffers.append(prepared.fitted)
            self.ledger.count(result)
        return results

    def _refuse_if_stale(self, prepared: Prepared) -> None:
        limit, age = self.policy.max_staleness, (time.monotonic() - prepared.captured.t_capture) * 1e3
        if limit is not None and age > limit and prepared.fitted is not None:
            self._buffers.append(prepared.fitted)
            prepared.fitted = None
            prepared.cause, prepared.error = "stale", f"stale: waited {age:.0f} ms, allowed {limit:g} ms"

    def _mark_if_late(self, result: Result) -> None:
        limit, took = self.policy.deadline, result.latency_ms["total"]
        if limit is not None and took > limit and result.verdict is not Verdict.UNKNOWN:
            result.verdict, result.cause = Verdict.UNKNOWN, "late"
            result.reason = f"late: decided after {took:.0f} ms, allowed {limit:g} ms"

    def _frame_of(self, prepared: Prepared) -> Frame | None:
        image = prepared.captured.image
        return None if image is None or prepared.frame_size == (0, 0) else to_frame(image, self.inspector.pixels)

    def _capture(self, number: int) -> None:
        """Read one source until it ends. Runs in a thread of its own."""
        source = self.sources[number]
        self._heard[number] = time.monotonic()
        try:
            with source as frames:
                for captured in frames:
                    if not self._enter(number, captured):
                        break
        except Exception as error:  # a source may be anybody's code, and its end must not be silent
            self._enter_error(number, "lost", f"the source failed: {error}")
        finally:
            self._heard[number] = math.inf
            self._inbox.close_lane(number)

    def _enter(self, number: int, captured: Captured) -> bool:
        self._heard[number] = math.inf
        self._next_id[number] = captured.frame_id + 1
        if not self._inbox.enter(number, captured):
            return False
        inspector, health = self.inspector, self._health[number]
        prepared = inspector.try_to_prepare(captured, self._buffer(inspector.shape), health.check if health else None)
        self._inbox.put(number, prepared)
        self._heard[number] = time.monotonic()
        return True

    def _enter_error(self, number: int, cause: str, error: str) -> None:
        name = self.sources[number].name
        self._enter(number, Captured(None, error, name, self._next_id[number], time.monotonic(), cause=cause))
        self._next_id[number] -= 1

    def _buffer(self, shape: tuple[int, int, int]) -> Frame:
        """Return an array that a frame can be fitted into: one that was used before, where there is one."""
        try:
            buffer = self._buffers.pop()
        except IndexError:
            return np.empty(shape, np.uint8)
        return buffer if buffer.shape == shape else np.empty(shape, np.uint8)

    def _report_silence(self) -> None:
        for number, source in enumerate(self.sources):
            if source.live and time.monotonic() - self._heard[number] >= self.policy.silence:
                self._enter_error(number, "silent", f"camera {source.name} gave no frame for {self.policy.silence:g} s")


def run_stream(
    inspector: Inspector,
    source: Any,
    sinks: Sequence[Sink | Outbox],
    ledger: Ledger,
    *,
    policy: Policy | None = None,
    max_frames: int = 0,
    on_result: Callable[[Result], None] | None = None,
    on_start: Callable[[Stream], None] | None = None,
) -> list[Outbox]:
    """Inspect the frames of one or several sources and hand each result to every sink, until the sources end.

    Args:
        inspector: decides.
        source: what `as_source` takes, or a list of names and open sources.
        sinks: take results; closed at the end, also after an error.
        ledger: is kept true at every instant.
        policy: how frames are treated.
        max_frames: stop after that many results; 0 for no limit.
        on_result: called with each result after the sinks have it.
        on_start: called with the running stream, for instance to keep it for `Stream.stop`.

    Returns:
        The sinks' outboxes, drained, with their accounts.

    Raises:
        SinkError: at the end, where a sink could not take some results.
    """
    several = isinstance(source, list | tuple) and all(isinstance(one, str) or hasattr(one, "live") for one in source)
    sources = list(source) if several else [source]
    outboxes = [sink if isinstance(sink, Outbox) else Outbox(sink) for sink in sinks]
    try:
        stream = Stream(
            inspector,
            sources,
            policy,
            ledger,
            max_frames=max_frames,
            keep_frames=any(outbox.wants_frames for outbox in outboxes),
            on_drop=lambda captured, cause: _tell_all(outboxes, captured, cause),
            on_stop=lambda: hurry_all(outboxes),
        )
        # Only where all sources can wait may a slow sink make them wait.
        wait = not any(opened.live for opened in stream.sources)
        with stream:
            if on_start:
                on_start(stream)
            for result in stream:
                for outbox in outboxes:
                    outbox.offer(result, wait)
                if on_result:
                    on_result(result)
    finally:
        close_all(outboxes)
    raise_for(outboxes)
    return outboxes


def _tell_all(outboxes: Sequence[Outbox], captured: Captured, cause: str) -> None:
    for outbox in outboxes:
        outbox.drop(captured, cause)
