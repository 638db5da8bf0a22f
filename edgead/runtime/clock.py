"""Time that includes pauses of this process: suspended, stopped by a signal, or in a paused virtual machine."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

STALE_AFTER = 2.0
"""Longest transport delay of a live picture in seconds, where no other limit is set."""
SHORT_PAUSE = 0.5
"""Seconds of a pause in which more than one part may pass."""
TICK = 0.1
"""Seconds between two looks at the clock: a pause seems longer by up to as much."""

_BOOT = getattr(time, "CLOCK_BOOTTIME", None)


def elapsed() -> float:
    """Return seconds of a monotonic clock that includes time in suspend, where the system has such a clock.

    `time.monotonic` stands still while a Linux machine is suspended.
    """
    return time.monotonic() if _BOOT is None else time.clock_gettime(_BOOT)


class Standstill:
    """Detects that this process did not run for longer than `STALE_AFTER`, or `SHORT_PAUSE`. Thread-safe.

    A thread ticks during `watch`. The first call after a pause detects the missing ticks, in whichever thread it
    comes, so that no thread decides on an old picture before.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler of the host may ask while this is held
        self._watchers = 0
        self._stop = threading.Event()
        self._ticked_at = 0.0
        self._pauses: dict[float, tuple[float, float]] = {}  # length and end of the last one above each limit

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Watch for as long as the block runs."""
        with self._lock:
            self._watchers += 1
            if self._watchers == 1:
                self._ticked_at, self._stop = elapsed(), threading.Event()
                threading.Thread(target=self._run, args=(self._stop,), name="standstill", daemon=True).start()
        try:
            yield
        finally:
            with self._lock:
                self._watchers -= 1
                if not self._watchers:
                    self._stop.set()

    def since(self, moment: float, limit: float = STALE_AFTER) -> float:
        """Return how many seconds the process stood still, if that ended after a moment of `time.monotonic`; else 0.

        Args:
            moment: the moment.
            limit: seconds, `STALE_AFTER` or `SHORT_PAUSE`. Only pauses that are longer count.
        """
        self._tick()
        with self._lock:
            length, ended_at = self._pauses.get(limit, (0.0, -math.inf))
            return length if moment < ended_at else 0.0

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(TICK):
            self._tick()

    def _tick(self) -> None:
        with self._lock:
            now = elapsed()
            length, self._ticked_at = now - self._ticked_at, now
            for limit in (SHORT_PAUSE, STALE_AFTER):
                if self._watchers and length > limit:
                    self._pauses[limit] = length, time.monotonic()


standstill = Standstill()
"""The detector of this process."""
