"""The bounded queue before the engine: the threads that capture put frames in, the one that infers takes them."""

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
    """One source's frames, and the reports on it between them. Frames of a file always wait."""

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
    """Frames on their way to the engine, in order for each source, the sources in turn.

    Reports on a source keep their place between its frames, but take no room: none of them makes a frame wait or drop.

    Args:
        ledger: told of every frame that enters or is dropped, and of every report.
        live: for each source, whether frames come whether or not someone takes them.
        on_full: what happens to a live source's frame when `capacity` older ones wait: the oldest of them makes way
            (``drop-oldest``), it is itself refused (``drop-newest``), or its source waits (``wait``).
        capacity: frames of one source that may wait.
        budget: frames that sources that wait may give together; 0 for no limit.
        on_drop: told of every dropped frame with the cause, by the thread that dropped it. It must not raise.
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
        """Enter a frame into the ledger. False where no more is wanted; the frame then was never captured."""
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

        Of a live source, one that repeats the last, which nobody has taken yet, is only counted.
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
        """This source gives no more."""
        with self._changed:
            self._sources[number].open = False
            self._changed.notify_all()

    def take(self, most: int, timeout: float | None) -> list[tuple[int, Prepared]]:
        """Return at most `most` of what waits, each with its source's number, the sources in turn.

        Nothing after `timeout` seconds without.
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
        """Whether nothing of this source waits or is being prepared."""
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
        """Let no more frames enter. What has entered can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def cut(self) -> None:
        """End at once: what waits, and what still comes, is dropped as ``stopped``."""
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
        """Return which frame has to be dropped so that this one fits, and why: an older one, or this one."""
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
