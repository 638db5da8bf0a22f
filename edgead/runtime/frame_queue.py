"""The bounded queue before the engine: capture threads put frames in, the inference thread takes them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from edgead.runtime.frame_inspector import Prepared
from edgead.runtime.ledger import Ledger
from edgead.runtime.sources.source import Captured

ON_FULL = ("drop-oldest", "drop-newest", "wait")
OnDrop = Callable[[Captured, str], None]


@dataclass
class _SourceQueue:
    """The frames of one source and the reports between them. A file's source always waits."""

    waits: bool
    live: bool
    items: deque[Prepared] = field(default_factory=deque)
    frames: int = 0
    entered: int = 0
    open: bool = True

    def pop_oldest_frame(self) -> Prepared:
        index = next(i for i, item in enumerate(self.items) if not item.captured.about_source)
        frame = self.items[index]
        del self.items[index]
        self.frames -= 1
        return frame


class FrameQueue:
    """Frames on their way to the engine: in order for each source, the sources in turn.

    Reports on a source keep their place between its frames but do not count towards the capacity: no frame waits or is
    dropped for a report.

    Args:
        ledger: counts every frame that enters or is dropped, and every report.
        live: for each source, whether it delivers frames without waiting for the reader.
        on_full: what happens to a live source's frame if `capacity` older ones wait: the oldest one is dropped
            (``drop-oldest``), the new one is dropped (``drop-newest``), or the source waits (``wait``).
        capacity: frames of one source that may wait.
        budget: total number of frames from sources that wait; 0 for no limit.
        on_drop: called with every dropped frame and the cause, in the thread that dropped it. It must not raise.
    """

    def __init__(
        self,
        ledger: Ledger,
        live: list[bool],
        on_full: str = "drop-oldest",
        capacity: int = 1,
        budget: int = 0,
        on_drop: OnDrop | None = None,
    ) -> None:
        self._ledger, self._on_full, self._capacity, self._on_drop = ledger, on_full, capacity, on_drop
        self._sources = [_SourceQueue(waits=not is_live or on_full == "wait", live=is_live) for is_live in live]
        self._limited, self._budget = budget > 0, budget
        self._changed = threading.Condition()
        self._turn = 0
        self._closed = self._cut = False

    def enter(self, number: int, captured: Captured) -> bool:
        """Enter a frame into the ledger. Return False if no more frames are accepted; the frame then does not count."""
        source = self._sources[number]
        with self._changed:
            if self._closed:
                return False
            if self._limited and source.waits:
                if not self._budget:
                    return False
                self._budget -= 1
            self._ledger.enter(captured.source_id)
            source.entered += 1
            return True

    def turn_away(self, number: int, captured: Captured, cause: str) -> None:
        """Drop a frame that was entered instead of queueing it. It takes nothing of the budget."""
        source = self._sources[number]
        with self._changed:
            source.entered -= 1
            if self._limited and source.waits:
                self._budget += 1
            self._ledger.drop(captured.source_id, cause)
            self._changed.notify_all()
        if self._on_drop:
            self._on_drop(captured, cause)

    def put(self, number: int, prepared: Prepared) -> None:
        """Queue a frame that was entered."""
        source = self._sources[number]
        with self._changed:
            if source.waits:
                self._changed.wait_for(lambda: source.frames < self._capacity or self._cut)
            source.entered -= 1
            dropped = self._make_room(source, prepared)
            if dropped is None or dropped[0] is not prepared:
                source.items.append(prepared)
                source.frames += 1
            if dropped:
                self._ledger.drop(dropped[0].captured.source_id, dropped[1])
            self._changed.notify_all()
        if dropped:
            self._tell(*dropped)

    def report(self, number: int, prepared: Prepared) -> None:
        """Queue a report on a source.

        If a live source repeats its last report before that was taken, the new one is only counted.
        """
        source, captured = self._sources[number], prepared.captured
        with self._changed:
            self._ledger.report(captured.source_id, captured.cause)
            last = source.items[-1].captured if source.items and source.live else None
            if self._cut or (last and (last.cause, last.source_id) == (captured.cause, captured.source_id)):
                return
            source.items.append(prepared)
            self._changed.notify_all()

    def close_source(self, number: int) -> None:
        """Note that this source has ended."""
        with self._changed:
            self._sources[number].open = False
            self._changed.notify_all()

    def take(self, most: int, timeout: float | None) -> list[tuple[int, Prepared]]:
        """Return at most `most` waiting items, each with its source's number, the sources in turn.

        The list is empty if nothing came within `timeout` seconds.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting() or self._ended(), timeout)
            taken: list[tuple[int, Prepared]] = []
            while len(taken) < most and self._waiting():
                number, self._turn = self._turn, (self._turn + 1) % len(self._sources)
                source = self._sources[number]
                if source.items:
                    item = source.items.popleft()
                    source.frames -= not item.captured.about_source
                    taken.append((number, item))
            self._changed.notify_all()
            return taken

    def is_empty(self, number: int) -> bool:
        """Return whether no frame of this source waits or is being prepared."""
        with self._changed:
            source = self._sources[number]
            return not source.items and not source.entered

    @property
    def ended(self) -> bool:
        """Whether nothing waits and nothing will come."""
        with self._changed:
            return self._ended()

    @property
    def closed(self) -> bool:
        """Whether no more frames may enter."""
        with self._changed:
            return self._closed

    def close(self) -> None:
        """Accept no more frames. Those that have entered can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def cut(self) -> None:
        """End at once: all frames that wait or still come are dropped as ``stopped``."""
        dropped: list[Prepared] = []
        with self._changed:
            self._closed = self._cut = True
            for source in self._sources:
                dropped += [item for item in source.items if not item.captured.about_source]
                source.items.clear()
                source.frames = 0
            for prepared in dropped:
                self._ledger.drop(prepared.captured.source_id, "stopped")
            self._changed.notify_all()
        for prepared in dropped:
            self._tell(prepared, "stopped")

    def _make_room(self, source: _SourceQueue, prepared: Prepared) -> tuple[Prepared, str] | None:
        """Return the frame to drop so that the capacity is kept, and the cause; None if there is room."""
        if self._cut:
            return prepared, "stopped"
        if source.frames < self._capacity:
            return None
        if self._on_full == "drop-newest":
            return prepared, "refused"
        return source.pop_oldest_frame(), "overtaken"

    def _waiting(self) -> bool:
        return any(source.items for source in self._sources)

    def _ended(self) -> bool:
        coming = any(source.entered or (source.open and not self._closed) for source in self._sources)
        return not self._waiting() and (self._cut or not coming)

    def _tell(self, prepared: Prepared, cause: str) -> None:
        if self._on_drop:
            self._on_drop(prepared.captured, cause)
