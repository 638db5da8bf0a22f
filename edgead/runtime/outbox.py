"""Between the stream and a sink: a queue and a thread of its own, so that a slow sink never slows the engine."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from edgead.errors import SinkError
from edgead.runtime.ledger import label
from edgead.runtime.result import Result
from edgead.runtime.sinks import Sink
from edgead.runtime.sources.source import Captured

AT_ONCE = 64
"""Most results that a sink gets before it is asked to flush."""


class Outbox:
    """Gives results to one sink, in order. ``offered = taken + failed + dropped + waiting``, always.

    A result is *taken* when the sink has flushed it: it then survives what the sink promises to survive.

    Args:
        sink: what takes the results. Called by one thread, and closed by it.
        name: what its account is called, without credentials.
        capacity: results that may wait; of a sink that keeps frames 32, because frames are large.
        patience: seconds that `close` waits for the queue to empty.
    """

    def __init__(self, sink: Sink, name: str = "", capacity: int = 0, patience: float = 10.0) -> None:
        self.sink, self.name = sink, name or getattr(sink, "name", type(sink).__name__)
        self.wants_frames: bool = getattr(sink, "wants_frames", False)
        self._wants_drops = hasattr(sink, "drop")
        self._capacity = capacity or (32 if self.wants_frames else 1024)
        self._patience = patience
        self._changed = threading.Condition()
        self._queue: deque[Result | tuple[Captured, str]] = deque()
        self._offered = self._taken = self._failed = self._dropped = self._busy = 0
        self._last_error = ""
        self._closing = False
        self._thread = threading.Thread(target=self._work, name=f"sink-{self.name}", daemon=True)
        self._thread.start()

    def offer(self, result: Result, wait: bool = False) -> None:
        """Queue a result. When the queue is full, wait for room, or drop the oldest one in it."""
        with self._changed:
            self._offered += 1
            if wait:
                self._changed.wait_for(lambda: len(self._queue) < self._capacity)
            self._put(result)

    def drop(self, captured: Captured, cause: str) -> None:
        """Tell the sink of a frame that got no result, if it wants to know."""
        if self._wants_drops:
            with self._changed:
                self._offered += 1
                self._put((captured, cause))

    def _put(self, item: Result | tuple[Captured, str]) -> None:
        if len(self._queue) >= self._capacity:
            self._queue.popleft()
            self._dropped += 1
        self._queue.append(item)
        self._changed.notify_all()

    def account(self) -> dict[str, Any]:
        """Return what became of the results, at one instant."""
        with self._changed:
            return {
                "sink": self.name,
                "offered": self._offered,
                "taken": self._taken,
                "failed": self._failed,
                "dropped": self._dropped,
                "waiting": len(self._queue) + self._busy,
                "last_error": self._last_error or None,
            }

    def close(self) -> None:
        """Let the sink take what waits, within `patience`, and close it. What then still waits is dropped."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(self._patience)
        with self._changed:
            self._dropped += len(self._queue)
            self._queue.clear()

    def raise_if_failed(self) -> None:
        """Raise a SinkError where a result was not taken, unless the sink is one that may miss some."""
        account = self.account()
        lost = account["offered"] - account["taken"]
        if lost and not getattr(self.sink, "may_miss", False):
            why = f": {self._last_error}" if self._last_error else "; it is too slow"
            raise SinkError(f"The sink {self.name} did not take {lost} of {account['offered']} results{why}.")

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing)
                items = [self._queue.popleft() for _ in range(min(AT_ONCE, len(self._queue)))]
                self._busy = len(items)
                self._changed.notify_all()
            if not items:
                break
            written = self._write(items)
            with self._changed:
                self._taken += written
                self._failed += len(items) - written
                self._busy = 0
        try:
            self.sink.close()
        except Exception as error:  # as in _write
            self._note(error)

    def _write(self, items: list[Result | tuple[Captured, str]]) -> int:
        """Return how many of the items the sink has for good."""
        written = 0
        for item in items:
            try:
                if isinstance(item, Result):
                    self.sink.write(item)
                else:
                    self.sink.drop(*item)  # type: ignore[attr-defined]
                written += 1
            except Exception as error:  # a sink may be anybody's code, and none may stop the line
                self._note(error)
        try:
            getattr(self.sink, "flush", _nothing)()
        except Exception as error:
            self._note(error)
            return 0
        return written

    def _note(self, error: Exception) -> None:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        with self._changed:
            self._last_error = text


def _nothing() -> None:
    """The flush of a sink that has none."""


def to_prometheus(outboxes: list[Outbox]) -> str:
    """Return the accounts as Prometheus text."""
    lines = [
        "# HELP edgead_sink_results_total Results by what became of them at a sink.",
        "# TYPE edgead_sink_results_total counter",
    ]
    accounts = [outbox.account() for outbox in outboxes]
    for account in accounts:
        sink = label("sink", account["sink"])
        lines += [
            f"edgead_sink_results_total{{{sink},{label('fate', fate)}}} {account[fate]}"
            for fate in ("taken", "failed", "dropped")
        ]
    lines += ["# HELP edgead_sink_waiting Results that wait for a sink.", "# TYPE edgead_sink_waiting gauge"]
    lines += [f"edgead_sink_waiting{{{label('sink', account['sink'])}}} {account['waiting']}" for account in accounts]
    return "\n".join(lines) + "\n"
