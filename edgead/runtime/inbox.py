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


@dataclass
class _Lane:
    """One source's frames. Frames of a file wait, whatever `Inbox.on_full` says."""

    waits: bool
    frames: deque[Prepared] = field(default_factory=deque)
    open: bool = True


class Inbox:
    """Frames on their way to the engine, in order for each source, the sources in turn.

    Args:
        ledger: told of every frame that enters or is dropped.
        live: for each source, whether frames come whether or not someone takes them.
        on_full: what happens to a live source's frame when `capacity` older ones wait: the oldest of them makes way
            (``drop-oldest``), it is itself refused (``drop-newest``), or its source waits (``wait``).
        capacity: frames of one source that may wait.
        budget: frames that sources that wait may give together; 0 for no limit.
        on_drop: told of every dropped frame with the cause.
    """

    def __init__(
        self,
        ledger: Ledger,
        live: list[bool],
        on_full: str = "drop-oldest",
        capacity: int = 1,
        budget: int = 0,
        on_drop: Callable[[Captured, str], None] | None = None,
    ) -> None:
        self._ledger, self._on_full, self._capacity, self._on_drop = ledger, on_full, capacity, on_drop
        self._lanes = [_Lane(waits=not is_live or on_full == "wait") for is_live in live]
        self._limited, self._budget = budget > 0, budget
        self._changed = threading.Condition()
        self._turn = 0
        self._cut = False

    def enter(self, lane_number: int, captured: Captured) -> bool:
        """Enter a frame into the ledger. False where no more is wanted; the frame then was never captured."""
        with self._changed:
            if self._cut:
                return False
            if self._limited and self._lanes[lane_number].waits:
                if not self._budget:
                    return False
                self._budget -= 1
            self._ledger.enter(captured.source_id)
            return True

    def put(self, lane_number: int, prepared: Prepared) -> None:
        """Queue a frame that was entered."""
        lane = self._lanes[lane_number]
        with self._changed:
            if lane.waits:
                self._changed.wait_for(lambda: len(lane.frames) < self._capacity or self._cut)
            if self._cut:
                self._drop(prepared, "stopped")
                return
            if len(lane.frames) >= self._capacity:
                if self._on_full == "drop-newest":
                    self._drop(prepared, "refused")
                    return
                self._drop(lane.frames.popleft(), "overtaken")
            lane.frames.append(prepared)
            self._changed.notify_all()

    def close_lane(self, lane_number: int) -> None:
        """This source gives no more."""
        with self._changed:
            self._lanes[lane_number].open = False
            self._changed.notify_all()

    def take(self, most: int, timeout: float | None) -> list[Prepared]:
        """Return at most `most` of the frames that wait, the sources in turn; none after `timeout` seconds without."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting() or self._ended(), timeout)
            taken: list[Prepared] = []
            while len(taken) < most and self._waiting():
                lane = self._lanes[self._turn]
                self._turn = (self._turn + 1) % len(self._lanes)
                if lane.frames:
                    taken.append(lane.frames.popleft())
            self._changed.notify_all()
            return taken

    @property
    def ended(self) -> bool:
        """Whether every source has ended and nothing waits."""
        with self._changed:
            return self._ended()

    def cut(self) -> None:
        """End at once: what waits, and what still comes, is dropped as ``stopped``."""
        with self._changed:
            self._cut = True
            for lane in self._lanes:
                while lane.frames:
                    self._drop(lane.frames.popleft(), "stopped")
            self._changed.notify_all()

    def _waiting(self) -> bool:
        return any(lane.frames for lane in self._lanes)

    def _ended(self) -> bool:
        return not self._waiting() and (self._cut or not any(lane.open for lane in self._lanes))

    def _drop(self, prepared: Prepared, cause: str) -> None:
        self._ledger.drop(prepared.captured.source_id, cause)
        if self._on_drop:
            self._on_drop(prepared.captured, cause)
