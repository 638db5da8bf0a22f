"""A queue and a thread per sink, so that a slow sink never slows the engine."""

from __future__ import annotations

import itertools
import json
import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypedDict, cast

from edgead.errors import ConfigError, SinkError
from edgead.redaction import printable, redact
from edgead.runtime.result import Result
from edgead.runtime.sinks import open_sink, refuse_twice
from edgead.runtime.sinks.sink import LeftOut, Sink
from edgead.runtime.sources.source import Captured

AT_ONCE = 64
"""Maximum number of results before a flush."""
LARGEST_WAITING = 1 << 30
"""Bytes of maps and frames that may wait for a sink that needs no frames. Maps of tiled pictures are large."""
PATIENCE = 10.0
"""Seconds for waiting results at the end of a run."""
HURRY = 8.0
"""Seconds for waiting results after a request to end the run."""
GRACE = 2.0
"""Further seconds for a sink to return from a call; then it is abandoned."""
STEADY = 10.0
"""Seconds without a failure after which a sink counts as working again."""
_log = logging.getLogger("edgead")


class SinkAccount(TypedDict):
    """What became of a sink's results, as JSON. A sink's `details` add further keys."""

    sink: str
    offered: int
    taken: int
    failed: int
    dropped: int
    waiting: int
    dropped_by_cause: dict[str, int]
    last_error: str | None


class SinkWorker:
    """Passes results to one sink, in order. ``offered = taken + failed + dropped + waiting`` at any moment.

    A result is *taken* when the sink has flushed it. It has *failed* if the sink raised. It is *dropped* for one of
    these causes, or a cause of the sink:

    * ``overflow``: the queue was full;
    * ``closed``: it still waited when the run ended;
    * ``unfinished``: the sink had not returned from writing it when the run ended.

    Args:
        sink: the sink. It is called and closed by one thread.
        name: of its account, without credentials.
        capacity: results that may wait; by default 1024, or 32 if the sink needs frames, because frames are large. For
            a sink that needs none, results that wait behind `LARGEST_WAITING` bytes are without map and frame; verdict,
            score and the requested shapes are as always.
        patience: seconds that `close` waits for the queue to empty.

    Raises:
        ConfigError: it is no sink.
    """

    def __init__(self, sink: Sink, name: str = "", capacity: int = 0, patience: float = PATIENCE) -> None:
        if not callable(getattr(sink, "write", None)):
            raise ConfigError(
                f"A sink needs a method write, and {type(sink).__name__} has none.\n"
                "Make one, in edgead.runtime.sinks:  open_sink(URI)  or  Callback(function)"
            )
        self.sink = sink
        self.name = printable(redact(str(name or getattr(sink, "name", None) or type(sink).__name__)))
        self.wants_frames: bool = getattr(sink, "wants_frames", False)
        self._may_miss: bool = getattr(sink, "may_miss", False)
        self._wants = _method(sink, "wants", lambda result: True)
        self._details = _method(sink, "details", dict)
        self._flush: Callable[[], None] | None = getattr(sink, "flush", None)
        self._capacity = capacity or (32 if self.wants_frames else 1024)
        self._patience, self._until = patience, math.inf
        self._changed = threading.Condition()
        self._queue: deque[Result | tuple[Captured, str]] = deque()
        self._offered = self._accepted = self._failed = self._busy = 0
        self._failed_at = -math.inf
        self._dropped: Counter[str] = Counter()
        self._last_error = ""
        self._failing = self._closing = self._stopped = self._abandoned = False
        self._thread = threading.Thread(target=self._work, name=f"sink-{self.name}", daemon=True)
        self._thread.start()

    def configure(self, configuration: Mapping[str, Any]) -> None:
        """Give the sink the settings of the run, if it has a method for that; see `BaseSink`. Before any result."""
        self._try(lambda: _method(self.sink, "configure", lambda configuration: None)(configuration))

    def begin(self, idle: Callable[[], float]) -> None:
        """Tell the sink that a stream runs, if it has a method for that; see `BaseSink`."""
        self._try(lambda: _method(self.sink, "begin", lambda idle: None)(idle))

    def follow(self, deciding: Callable[[], str]) -> None:
        """Tell the sink where it learns what decides, if it has a method for that; see `BaseSink`."""
        self._try(lambda: _method(self.sink, "follow", lambda deciding: None)(deciding))

    def offer(self, result: Result, wait: bool = False) -> None:
        """Queue a result. If the queue is full, wait for room or drop its oldest result."""
        try:
            if not self._wants(result):
                return
        except (Exception, SystemExit) as error:  # as in _give: the sink must not stop the line
            self._note(error)
        with self._changed:
            self._offered += 1
            while wait and len(self._queue) >= self._capacity and time.monotonic() < self._until:
                self._changed.wait(0.5)
            self._put(result)

    def drop(self, captured: Captured, cause: str) -> None:
        """Pass a dropped frame to the sink, if it has a method for that."""
        if hasattr(self.sink, "drop"):
            with self._changed:
                self._offered += 1
                self._put((captured, cause))

    def _put(self, item: Result | tuple[Captured, str]) -> None:
        if len(self._queue) >= self._capacity:
            self._queue.popleft()
            self._count_dropped("overflow", 1)
        if isinstance(item, Result) and not self.wants_frames:
            waiting = len(self._queue) + 1
            if waiting * item.size_bytes > LARGEST_WAITING:
                item = item.without_map()
        self._queue.append(item)
        self._changed.notify_all()

    def account(self) -> SinkAccount:
        """Return what became of the results at one moment."""
        try:
            details = dict(self._details())
            json.dumps(details)
        except (Exception, SystemExit) as error:  # a plug-in sink may do anything, and its account must not be lost
            details = {"details": f"{type(error).__name__}: {error}"}
        with self._changed:
            lost = getattr(self.sink, "lost", None)
            lost = Counter(lost) if isinstance(lost, Counter) else Counter()
            dropped = self._dropped + lost
            account: SinkAccount = {
                "sink": self.name,
                "offered": self._offered,
                "taken": self._accepted - lost.total(),
                "failed": self._failed,
                "dropped": dropped.total(),
                "waiting": len(self._queue) + self._busy,
                "dropped_by_cause": dict(dropped),
                "last_error": self._last_error or None,
            }
        return cast(SinkAccount, {**account, **{name: value for name, value in details.items() if name not in account}})

    @property
    def accepted(self) -> int:
        """Results that the sink took, including those that it discarded later."""
        return self._accepted

    def hurry(self, seconds: float) -> None:
        """Limit all waiting to `seconds` from now: then `offer` drops and `close` returns. Thread-safe."""
        with self._changed:
            self._until = min(self._until, time.monotonic() + seconds)
            self._changed.notify_all()

    def close(self) -> None:
        """Let the sink take the waiting results within `patience`, then drop the rest and close it.

        It returns after at most `patience` plus `GRACE` seconds, whatever the sink does.
        """
        close_all([self])

    def _begin_to_close(self) -> None:
        with self._changed:
            self._closing = True
            now = time.monotonic()
            self._until = max(min(self._until, now + self._patience), now + GRACE)
            self._changed.notify_all()

    def _end_waiting(self) -> None:
        """After the time limit, drop the waiting results and ask the sink to return from its call."""
        self._thread.join(max(self._until - time.monotonic(), 0.0))
        if not self._thread.is_alive() or self._abandoned:
            return
        with self._changed:
            self._stopped = True
            self._count_dropped("closed", len(self._queue))
            self._queue.clear()
        stop = _method(self.sink, "stop", lambda: None)
        threading.Thread(target=self._try, args=(stop,), daemon=True).start()  # it may hang as well

    def _abandon(self, until: float) -> None:
        """Wait for the sink's thread until `until`, then abandon it."""
        if not self._abandoned:
            self._thread.join(max(until - time.monotonic(), 0.0))
        with self._changed:
            if self._thread.is_alive() and not self._abandoned:
                self._abandoned = True
                self._count_dropped("unfinished", self._busy)
                self._busy = 0
                self._last_error = "it had not returned when the run ended"

    def lost(self) -> str:
        """Return how many results were not taken, and why, as a sentence; empty if all were."""
        account = self.account()
        missing = account["failed"] if self._may_miss else account["offered"] - account["taken"]
        if not missing:
            return ""
        causes = {cause: count for cause, count in account["dropped_by_cause"].items() if cause != "overflow"}
        by_cause = f" ({', '.join(f'{count} {cause}' for cause, count in causes.items())})" if causes else ""
        slow = "; it is too slow" if account["dropped_by_cause"].get("overflow") else ""
        why = f": {self._last_error}" if self._last_error else slow
        return f"The sink {self.name} did not take {missing} of {account['offered']} results{by_cause}{why}."

    def _work(self) -> None:
        while items := self._take():
            self._write(items)
        self._try(_method(self.sink, "close", lambda: None))

    def _take(self) -> list[Result | tuple[Captured, str]]:
        """Wait for items. Without a flush take one at a time."""
        most = AT_ONCE if self._flush else 1
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            items = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
            self._busy = len(items)
            self._changed.notify_all()
        return items

    def _write(self, items: list[Result | tuple[Captured, str]]) -> None:
        fates = Counter("closed" if self._stopped else self._give(item) for item in items)
        if fates["taken"] and self._flush and not self._try(self._flush):
            fates["failed"] += fates.pop("taken")
        with self._changed:
            if self._abandoned:  # they are already counted
                return
            accepted, failed = fates.pop("taken", 0), fates.pop("failed", 0)
            self._accepted += accepted
            self._failed += failed
            for cause, count in fates.items():
                self._count_dropped(cause, count)
            self._busy = 0
        self._tell(accepted, failed)

    def _give(self, item: Result | tuple[Captured, str]) -> str:
        """Pass one item to the sink and return ``taken``, ``failed``, or why it was dropped."""
        try:
            if isinstance(item, Result):
                self.sink.write(item)
            else:
                self.sink.drop(*item)  # type: ignore[attr-defined]
        except LeftOut as left:
            return left.cause
        except BaseException as error:  # even sys.exit() in a callback must not end this thread silently
            self._note(error)
            return "failed"
        return "taken"

    def _try(self, call: Callable[[], None]) -> bool:
        """Call the sink and return whether it succeeded. A plug-in may raise anything, which must not stop the line."""
        try:
            call()
        except BaseException as error:  # as in _give
            self._note(error)
            return False
        return True

    def _note(self, error: BaseException) -> None:
        with self._changed:
            self._last_error = printable(redact(_describe(error)))

    def _tell(self, accepted: int, failed: int) -> None:
        """Log when a sink begins to fail and when it works again: a run may take weeks.

        A sink that takes one result and fails at the next, as on a disk with room for small ones, is told once.
        """
        now = time.monotonic()
        if failed:
            self._failed_at = now
            if not self._failing:
                _log.warning("The sink %s does not take results: %s", self.name, self._last_error)
            self._failing = True
        elif accepted and self._failing and now - self._failed_at >= STEADY:
            _log.warning("The sink %s takes results again; %d have failed so far", self.name, self._failed)
            self._failing = False

    def _count_dropped(self, cause: str, count: int) -> None:
        if count and not self._dropped[cause] and not self._may_miss:
            _log.warning("The sink %s drops results: %s", self.name, cause)
        self._dropped[cause] += count


def _method(sink: object, name: str, default: Callable[..., Any]) -> Callable[..., Any]:
    """Return an optional method of a sink. A third-party sink may use the name for something else."""
    method = getattr(sink, name, None)
    return method if callable(method) else default


def _describe(error: BaseException) -> str:
    try:
        text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    except Exception:  # a third-party exception may fail here
        return type(error).__name__
    return text if isinstance(error, Exception) else f"{type(error).__name__}: {text}"


def hurry_all(workers: Sequence[SinkWorker]) -> None:
    """Give sinks at most `HURRY` more seconds, because the run ends."""
    for worker in workers:
        worker.hurry(HURRY)


def close_all(workers: Sequence[SinkWorker]) -> None:
    """Close several workers at the same time, so that slow sinks do not add up."""
    for worker in workers:
        worker._begin_to_close()
    for worker in workers:
        worker._end_waiting()
    until = time.monotonic() + GRACE
    for worker in workers:
        worker._abandon(until)


def tell_apart(workers: Sequence[SinkWorker]) -> None:
    """Give sinks of one name different ones: without credentials, addresses may be equal that are not."""
    names = set[str]()
    for worker in workers:
        name, numbers = worker.name, itertools.count(2)
        while worker.name in names:
            worker.name = f"{name} ({next(numbers)})"
        names.add(worker.name)


@contextmanager
def open_workers(sinks: Sequence[str | Sink | SinkWorker]) -> Iterator[list[SinkWorker]]:
    """Open several sinks with their workers; close all at the end, also if one of them cannot be opened.

    Raises:
        ConfigError: a sink cannot be opened, or is given twice.
        SinkError: at the end of a block without an error, if a sink did not take every result.
    """
    refuse_twice(sinks)
    workers: list[SinkWorker] = []
    try:
        for sink in sinks:
            opened = open_sink(sink) if isinstance(sink, str) else sink
            workers.append(opened if isinstance(opened, SinkWorker) else SinkWorker(opened))
        tell_apart(workers)
        yield workers
    finally:
        close_all(workers)
    raise_for(workers)


def raise_for(workers: Sequence[SinkWorker]) -> None:
    """Raise a SinkError with a line for each sink that did not take all results."""
    lines = [line for worker in workers if (line := worker.lost())]
    if lines:
        raise SinkError("\n".join(lines))
