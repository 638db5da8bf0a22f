"""A second bundle beside the one that decides: it sees the same frames, and its disagreements are reported."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from edgead.runtime.inspector import Inspector
from edgead.runtime.result import Result


class Shadow:
    """A sink that inspects every frame it gets with another inspector. It never holds up the decision.

    When it is slower than the stream, frames are left out; the account of its outbox says how many.

    Args:
        inspector: the challenger.
        say: shows a line to a person, for each disagreement.
    """

    wants_frames = may_miss = True

    def __init__(self, inspector: Inspector, say: Callable[[str], None] = lambda text: None) -> None:
        self.name = f"shadow:{inspector.bundle.manifest.name}"
        self._inspector, self._say = inspector, say
        self._lock = threading.Lock()
        self._agreed = self._disagreed = 0

    def write(self, result: Result) -> None:
        # What the champion did not infer is no disagreement; and after an exchange its results may still come in.
        if result.frame is None or result.anomaly_map is None:
            return
        with self._lock:
            other = self._inspector.inspect(result.frame)
            same_bundle = other.bundle == result.bundle
        if same_bundle and other.threshold == result.threshold:
            return
        if other.verdict is result.verdict:
            self._agreed += 1
            return
        self._disagreed += 1
        self._say(
            f"Shadow: {result.source_id}#{result.frame_id}: {result.bundle} says {result.verdict.value} "
            f"({result.score:.6g}), {other.bundle} says {other.verdict.value} ({other.score:.6g})"
        )

    def exchange(self, champion: Inspector) -> Inspector:
        """Make the champion the shadow, and return what was the shadow."""
        with self._lock:
            challenger, self._inspector = self._inspector, champion
        return challenger

    def account(self) -> dict[str, Any]:
        """Return on how many frames the two agreed and disagreed."""
        return {"agreed": self._agreed, "disagreed": self._disagreed}

    def close(self) -> None:
        """The inspector belongs to whoever opened it."""
