"""Limits on the age of pictures and on the time of decisions."""

from __future__ import annotations

import time

from edgead.decision import Verdict
from edgead.runtime.clock import STALE_AFTER, standstill
from edgead.runtime.policy import Policy
from edgead.runtime.result import Result
from edgead.runtime.sources.source import Captured


class Freshness:
    """Applies `Policy.max_staleness` and `Policy.deadline`. Ages count from the making of a picture."""

    def __init__(self, policy: Policy) -> None:
        self._stale, self._deadline = policy.max_staleness, policy.deadline

    def why_stale(self, captured: Captured, live: bool) -> str:
        """Return why a picture is too old to be judged; empty if it is not.

        Args:
            captured: the picture.
            live: whether its source is live. Then a pause of this process counts too.
        """
        if self._stale is not None:
            limit, age = self._stale, time.monotonic() - captured.made
        elif live:
            limit, age = STALE_AFTER * 1e3, captured.t_capture - captured.made
        else:
            return ""
        if age * 1e3 > limit:
            return f"stale: the picture is {age * 1e3:.0f} ms old, allowed {limit:g} ms"
        stood_still = standstill.since(captured.t_capture) if live else 0.0
        if stood_still * 1e3 > limit:
            return f"stale: this process was paused for {stood_still:.1f} s after the picture arrived"
        return ""

    def mark(self, result: Result, captured: Captured, live: bool) -> None:
        """Make a result UNKNOWN if the decision came too late."""
        if result.verdict is Verdict.UNKNOWN:
            return
        took = result.latency_ms["total"]
        if self._deadline is not None and took > self._deadline:
            result.verdict, result.cause = Verdict.UNKNOWN, "late"
            result.reason = f"late: decided after {took:.0f} ms, allowed {self._deadline:g} ms"
        elif live and standstill.since(captured.t_capture) and (reason := self.why_stale(captured, live)):
            result.verdict, result.cause, result.reason = Verdict.UNKNOWN, "stale", reason
