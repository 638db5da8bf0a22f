"""Between the stream and a sink: a queue and a thread of its own, so that a slow sink never slows the engine."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from edgead.errors import SinkError
from edgead.redaction import printable, redact
from edgead.runtime.ledger import label
from edgead.runtime.result import Result
from edgead.runtime.sinks import open_sink
from edgead.runtime.sinks.sink import LeftOut, Sink
from edgead.runtime.sources.source import Captured

AT_ONCE = 64
"""Most results that a sink gets before it is asked to flush."""
PATIENCE = 10.0
"""Seconds that sinks get at the end of a run for what still waits."""
HURRY = 8.0
"""Seconds that they get after a request to end the run."""
GRACE = 2.0
"""Seconds more for a sink to return from what it is doing; after that it is left behind."""
_log = logging.getLogger("edgead")


class SinkWorker:
    """Hands results to one sink, in order. ``offered = taken + failed + dropped + waiting``, always.

    A result is *taken* when the sink has flushed it: it then survives what the sink promises to survive. It is *failed*
    where the sink raised, and *dropped* for one of these causes, or a cause of the sink's own:

    * ``overflow``: the queue was full;
    * ``closed``: it still waited when the run ended;
    * ``unfinished``: the sink had it, and had not returned when the run ended.

    Args:
        sink: takes the results. It is called and closed by one thread.
        name: of its account, without credentials.
        capacity: results that may wait; by default 1024, or 32 where the sink keeps frames, because frames are large.
        patience: seconds that `close` waits for the queue to empty.
    """

    def __init__(self, sink: Sink, name: str = "", capacity: int = 0, patience: float = PATIENCE) -> None:
        self.sink = sink
        self.name = printable(redact(name or getattr(sink, "name", type(sink).__name__)))
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
        self._dropped: Counter[str] = Counter()
        self._last_error = ""
        self._failing = self._closing = self._stopped = self._abandoned = False
        self._thread = threading.Thread(target=self._work, name=f"sink-{self.name}", daemon=True)
        self._thread.start()

    def offer(self, result: Result, wait: bool = False) -> None:
        """Queue a result. When the queue is full, wait for room, or drop the oldest one in it."""
        try:
            if not self._wants(result):
                return
        except Exception as error:  # as in _give: the sink must not stop the line
            self._note(error)
        with self._changed:
            self._offered += 1
            while wait and len(self._queue) >= self._capacity and time.monotonic() < self._until:
                self._changed.wait(0.5)
            self._put(result)

    def drop(self, captured: Captured, cause: str) -> None:
        """Tell the sink of a frame that got no result, if it wants to know."""
        if hasattr(self.sink, "drop"):
            with self._changed:
                self._offered += 1
                self._put((captured, cause))

    def _put(self, item: Result | tuple[Captured, str]) -> None:
        if len(self._queue) >= self._capacity:
            self._queue.popleft()
            self._count_dropped("overflow", 1)
        self._queue.append(item)
        self._changed.notify_all()

    def account(self) -> dict[str, Any]:
        """Return what became of the results at one moment, as JSON values."""
        try:
            details = self._details()
        except Exception as error:  # a sink may be anybody's code, and its account must not be lost
            details = {"details": f"{type(error).__name__}: {error}"}
        with self._changed:
            lost = getattr(self.sink, "lost", None)
            lost = Counter(lost) if isinstance(lost, Counter) else Counter()
            dropped = self._dropped + lost
            return {
                "sink": self.name,
                "offered": self._offered,
                "taken": self._accepted - lost.total(),
                "failed": self._failed,
                "dropped": dropped.total(),
                "waiting": len(self._queue) + self._busy,
                "dropped_by_cause": dict(dropped),
                "last_error": self._last_error or None,
                **details,
            }

    @property
    def accepted(self) -> int:
        """Results that the sink took, with those that it gave up later."""
        return self._accepted

    def hurry(self, seconds: float) -> None:
        """From `seconds` from now on wait for nothing: `offer` drops, and `close` gives up. Any thread may call it."""
        with self._changed:
            self._until = min(self._until, time.monotonic() + seconds)
            self._changed.notify_all()

    def close(self) -> None:
        """Let the sink take what waits, within `patience`, and close it. What then still waits is dropped.

        It returns after `patience` and `GRACE` seconds at the latest, whatever the sink does.
        """
        close_all([self])

    def _begin_to_close(self) -> None:
        with self._changed:
            self._closing = True
            now = time.monotonic()
            self._until = max(min(self._until, now + self._patience), now + GRACE)
            self._changed.notify_all()

    def _end_waiting(self) -> None:
        """Drop what waits, where the time is over, and have the sink return from what it is doing."""
        self._thread.join(max(self._until - time.monotonic(), 0.0))
        if not self._thread.is_alive() or self._abandoned:
            return
        with self._changed:
            self._stopped = True
            self._count_dropped("closed", len(self._queue))
            self._queue.clear()
        stop = _method(self.sink, "stop", lambda: None)
        threading.Thread(target=self._try, args=(stop,), daemon=True).start()  # it may hang, too

    def _leave_behind(self, until: float) -> None:
        """Wait for the sink's thread until then, and give it up."""
        if not self._abandoned:
            self._thread.join(max(until - time.monotonic(), 0.0))
        with self._changed:
            if self._thread.is_alive() and not self._abandoned:
                self._abandoned = True
                self._count_dropped("unfinished", self._busy)
                self._busy = 0
                self._last_error = "it had not returned when the run ended"

    def lost(self) -> str:
        """Return what of the results was not taken and why, as a sentence; nothing where all were."""
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
        self._try(self.sink.close)

    def _take(self) -> list[Result | tuple[Captured, str]]:
        """Wait for items. Without a flush they are taken one by one."""
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
            if self._abandoned:  # they are counted already
                return
            accepted, failed = fates.pop("taken", 0), fates.pop("failed", 0)
            self._accepted += accepted
            self._failed += failed
            for cause, count in fates.items():
                self._count_dropped(cause, count)
            self._busy = 0
            self._tell(accepted, failed)

    def _give(self, item: Result | tuple[Captured, str]) -> str:
        """Hand over one item and return what became of it: ``taken``, ``failed``, or why it was dropped."""
        try:
            if isinstance(item, Result):
                self.sink.write(item)
            else:
                self.sink.drop(*item)  # type: ignore[attr-defined]
        except LeftOut as left:
            return left.cause
        except BaseException as error:  # sys.exit() in a callback, too, would end this thread without a word
            self._note(error)
            return "failed"
        return "taken"

    def _try(self, call: Callable[[], None]) -> bool:
        """Call the sink and tell whether it raised nothing. It may be anybody's code, and none may stop the line."""
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
        """Log when a sink begins to fail and when it works again: a run may take weeks."""
        if failed and not self._failing:
            _log.warning("The sink %s does not take results: %s", self.name, self._last_error)
        elif accepted and not failed and self._failing:
            _log.warning("The sink %s takes results again; %d have failed so far", self.name, self._failed)
        self._failing = failed > 0

    def _count_dropped(self, cause: str, count: int) -> None:
        if count and not self._dropped[cause] and not self._may_miss:
            _log.warning("The sink %s drops results: %s", self.name, cause)
        self._dropped[cause] += count


def _method(sink: object, name: str, default: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that a sink may have. A foreign sink may use the name for something else."""
    method = getattr(sink, name, None)
    return method if callable(method) else default


def _describe(error: BaseException) -> str:
    try:
        text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    except Exception:  # anybody's exception
        return type(error).__name__
    return text if isinstance(error, Exception) else f"{type(error).__name__}: {text}"


def hurry_all(workers: Sequence[SinkWorker]) -> None:
    """Give sinks at most `HURRY` seconds more: the run is to end."""
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
        worker._leave_behind(until)


@contextmanager
def open_workers(sinks: Sequence[str | Sink | SinkWorker]) -> Iterator[list[SinkWorker]]:
    """Open several sinks, each with its worker; close all at the end, also where one of them cannot be opened.

    Raises:
        ConfigError: a URI that is not a sink's.
        SinkError: at the end of a block that raised nothing, where a sink did not take every result.
    """
    workers: list[SinkWorker] = []
    try:
        for sink in sinks:
            opened = open_sink(sink) if isinstance(sink, str) else sink
            workers.append(opened if isinstance(opened, SinkWorker) else SinkWorker(opened))
        yield workers
    finally:
        close_all(workers)
    raise_for(workers)


def raise_for(workers: Sequence[SinkWorker]) -> None:
    """Raise a SinkError that has a line for each sink which did not take all results."""
    lines = [line for worker in workers if (line := worker.lost())]
    if lines:
        raise SinkError("\n".join(lines))


def to_prometheus(workers: Sequence[SinkWorker]) -> str:
    """Return the accounts as Prometheus text.

    A counter never falls: what a sink gives up later than it took it counts as taken and as dropped.
    """
    accounts = [worker.account() for worker in workers]
    results, causes, waiting = [], [], []
    for worker, account in zip(workers, accounts):
        sink = label("sink", account["sink"])
        fates = {"taken": worker.accepted, "failed": account["failed"], "dropped": account["dropped"]}
        results += [
            f"edgead_sink_results_total{{{sink},{label('fate', fate)}}} {count}" for fate, count in fates.items()
        ]
        causes += [
            f"edgead_sink_dropped_total{{{sink},{label('cause', cause)}}} {count}"
            for cause, count in account["dropped_by_cause"].items()
        ]
        waiting.append(f"edgead_sink_waiting{{{sink}}} {account['waiting']}")
    lines = [
        "# HELP edgead_sink_results_total Results by what became of them at a sink.",
        "# TYPE edgead_sink_results_total counter",
        *results,
        "# HELP edgead_sink_dropped_total Dropped results by cause.",
        "# TYPE edgead_sink_dropped_total counter",
        *causes,
        "# HELP edgead_sink_waiting Results that wait for a sink.",
        "# TYPE edgead_sink_waiting gauge",
        *waiting,
    ]
    return "\n".join(lines) + "\n"
