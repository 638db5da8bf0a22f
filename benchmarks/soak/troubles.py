"""What happened to the line, and when: only a fault excuses what would otherwise be an error."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass

SLACK = 1.0
"""Seconds by which a fault may be felt earlier or later than it was noted."""


@dataclass
class Trouble:
    """A fault that happened.

    Attributes:
        kind: of `lives.KINDS`, ``line starts``, ``line ends`` or ``machine is busy``.
        began, ended: `time.monotonic` seconds; infinity while it lasts.
    """

    kind: str
    began: float
    ended: float = math.inf


class Troubles:
    """The faults of a life and of the one before. Thread-safe."""

    def __init__(self) -> None:
        self._all: list[Trouble] = []
        self._lock = threading.Lock()

    def begin(self, kind: str) -> None:
        """A fault begins."""
        with self._lock:
            self._all.append(Trouble(kind, time.monotonic()))

    def note(self, kind: str, began: float) -> None:
        """A fault is over that was noticed only now."""
        with self._lock:
            self._all.append(Trouble(kind, began, time.monotonic()))

    def end(self, kind: str) -> None:
        """The faults of this kind are over."""
        with self._lock:
            for trouble in self._all:
                if trouble.kind == kind and trouble.ended == math.inf:
                    trouble.ended = time.monotonic()

    def excuse(self, kinds: tuple[str, ...], began: float, ended: float, slack: float = SLACK) -> bool:
        """Return whether a fault whose kind begins with one of `kinds` overlaps a time."""
        with self._lock:
            return any(
                trouble.kind.startswith(kinds) and trouble.began <= ended + slack and began <= trouble.ended + slack
                for trouble in self._all
            )

    def forget(self, before: float) -> None:
        """Forget what was over by then."""
        with self._lock:
            self._all = [trouble for trouble in self._all if trouble.ended > before]
