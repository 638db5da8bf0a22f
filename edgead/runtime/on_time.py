"""Whether a run decides, and decides on time: what `/healthz` and a service manager's watchdog ask."""

from __future__ import annotations

import time

from edgead.runtime.result import Result
from edgead.runtime.stream import Stream

STALL = 2.0
"""Seconds without a turn of the thread that decides, after which a run hangs."""
MEMORY = 5.0
"""Seconds that a decision which came too late counts."""
UNTIMELY = ("late", "stale")
"""Causes of results that came too late."""


class OnTime:
    """Watches a run. Thread-safe."""

    def __init__(self) -> None:
        self._stream: Stream | None = None
        self._untimely_at = -MEMORY
        self._cause = ""

    def begin(self, stream: Stream) -> None:
        """The stream runs."""
        self._stream = stream

    def end(self) -> None:
        """It runs no longer."""
        self._stream = None

    def see(self, result: Result) -> None:
        """Take note of a result."""
        if result.cause in UNTIMELY:
            self._untimely_at, self._cause = time.monotonic(), result.cause

    @property
    def decides(self) -> bool:
        """The thread that decides turns."""
        stream = self._stream
        return stream is not None and stream.idle() < STALL

    def why_not(self) -> str:
        """Return why decisions are not on time, as a sentence; empty if they are."""
        stream = self._stream
        if stream is None:
            return "The stream does not run."
        if not self.decides:
            return f"The inference thread has hung for {stream.idle():.1f} s."
        ago = time.monotonic() - self._untimely_at
        return f"A decision came too late {ago:.1f} s ago: {self._cause}." if ago < MEMORY else ""
