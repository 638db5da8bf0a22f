"""Between the threads that capture and the one that infers: a short queue for each source, and what to do when full."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from edgead.runtime.inspector import Prepared
from edgead.runtime.ledger import Ledger
from edgead.runtime.sources.source import Captured

ON_FULL = ("drop-oldest", "drop-newest", "wait")
OnDrop = Callable[[Captured, str], None]


@dataclass
class _Lane:
    """One source's frames, and the reports on it between them. Frames of a file wait, whatever `Inbox.on_full` says."""

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


class Inbox:
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
        self._lanes = [_Lane(waits=not is_live or on_full == "wait", live=is_live) for is_live in live]
        self._limited, self._budget = budget > 0, budget
        self._changed = threading.Condition()
        self._turn = 0
        self._closed = self._cut = False

    def enter(self, lane_number: int, captured: Captured) -> bool:
        """Enter a frame into the ledger. False where no more is wanted; the frame then was never captured."""
        lane = self._lanes[lane_number]
        with self._changed:
            if self._closed:
                return False
            if self._limited and lane.waits:
                if not self._budget:
                    return False
                self._budget -= 1
            self._ledger.enter(captured.source_id)
            lane.entered += 1
            return True

    def put(self, lane_number: int, prepared: Prepared) -> None:
        """Queue a frame that was entered."""
        lane = self._lanes[lane_number]
        with self._changed:
            if lane.waits:
                self._changed.wait_for(lambda: lane.frames < self._capacity or self._cut)
            lane.entered -= 1
            dropped = self._make_room(lane, prepared)
            if dropped is None or dropped[0] is not prepared:
                lane.items.append(prepared)
                lane.frames += 1
            if dropped:
                self._ledger.drop(dropped[0].captured.source_id, dropped[1])
            self._changed.notify_all()
        if dropped:
            self._tell(*dropped)

    def report(self, lane_number: int, prepared: Prepared) -> None:
        """Queue a report on a source.

        Of a live source, one that repeats the last, which nobody has taken yet, is only counted.
        """
        lane, captured = self._lanes[lane_number], prepared.captured
        with self._changed:
            self._ledger.report(captured.source_id, captured.cause)
            last = lane.items[-1].captured if lane.items and lane.live else None
            if self._cut or (last and (last.cause, last.source_id) == (captured.cause, captured.source_id)):
                return
            lane.items.append(prepared)
            self._changed.notify_all()

    def close_lane(self, lane_number: int) -> None:
        """This source gives no more."""
        with self._changed:
            self._lanes[lane_number].open = False
            self._changed.notify_all()

    def take(self, most: int, timeout: float | None) -> list[tuple[int, Prepared]]:
        """Return at most `most` of what waits, each with its source's number, the sources in turn.

        Nothing after `timeout` seconds without.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting() or self._ended(), timeout)
            taken: list[tuple[int, Prepared]] = []
            while len(taken) < most and self._waiting():
                number, self._turn = self._turn, (self._turn + 1) % len(self._lanes)
                lane = self._lanes[number]
                if lane.items:
                    item = lane.items.popleft()
                    lane.frames -= not item.captured.about_source
                    taken.append((number, item))
            self._changed.notify_all()
            return taken

    def is_empty(self, lane_number: int) -> bool:
        """Whether nothing of this source waits or is being prepared."""
        with self._changed:
            lane = self._lanes[lane_number]
            return not lane.items and not lane.entered

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
            for lane in self._lanes:
                dropped += [item for item in lane.items if not item.captured.about_source]
                lane.items.clear()
                lane.frames = 0
            for prepared in dropped:
                self._ledger.drop(prepared.captured.source_id, "stopped")
            self._changed.notify_all()
        for prepared in dropped:
            self._tell(prepared, "stopped")

    def _make_room(self, lane: _Lane, prepared: Prepared) -> tuple[Prepared, str] | None:
        """Return which frame has to be dropped so that this one fits, and why: an older one, or this one."""
        if self._cut:
            return prepared, "stopped"
        if lane.frames < self._capacity:
            return None
        if self._on_full == "drop-newest":
            return prepared, "refused"
        return lane.pop_oldest_frame(), "overtaken"

    def _waiting(self) -> bool:
        return any(lane.items for lane in self._lanes)

    def _ended(self) -> bool:
        coming = any(lane.entered or (lane.open and not self._closed) for lane in self._lanes)
        return not self._waiting() and (self._cut or not coming)

    def _tell(self, prepared: Prepared, cause: str) -> None:
        if self._on_drop:
            self._on_drop(prepared.captured, cause)
