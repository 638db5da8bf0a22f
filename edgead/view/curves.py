"""What the page remembers of a camera's results: scores, latencies, rate, counts per hour."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from edgead.decision import Verdict
from edgead.runtime.ledger import Figures
from edgead.view.seen import Fact

SHOWN_SCORES = 200
LATENCIES = 1000
SAMPLES = 500
"""Results that the threshold panel looks back on."""
HOURS = 12
RATE_SECONDS = 10.0

Point = tuple[float, str]
"""A score, and P, F or U for its verdict."""


@dataclass(frozen=True)
class Latency:
    """Percentiles over the last `frames` results, milliseconds."""

    p50: float
    p99: float
    frames: int


@dataclass(frozen=True)
class Hour:
    """Counts of one hour; `began` in seconds since 1970, UTC."""

    began: int
    passed: int
    failed: int
    unknown: int
    dropped: int


class Curves:
    """The recent results of one camera."""

    def __init__(self) -> None:
        self.scores: deque[Point] = deque(maxlen=SHOWN_SCORES)
        self._latencies: deque[float] = deque(maxlen=LATENCIES)
        self._model = "", ""

    def add(self, fact: Fact) -> None:
        """Add a result. Scores of another model cannot be compared: they begin again."""
        if not fact.is_frame:
            return
        if math.isfinite(fact.score):
            if fact.model != self._model:
                self.scores.clear()
                self._model = fact.model
            self.scores.append((float(f"{fact.score:.5g}"), fact.verdict.value[0]))
        if math.isfinite(fact.total_ms):
            self._latencies.append(fact.total_ms)

    def latency(self) -> Latency | None:
        """Return the percentiles of the last results; None if there are none."""
        if not self._latencies:
            return None
        p50, p99 = np.percentile(np.array(self._latencies), (50, 99))
        return Latency(round(float(p50), 2), round(float(p99), 2), len(self._latencies))


class Hours:
    """Counts per hour of one camera, from the ledger: exact, also if the page missed results."""

    def __init__(self) -> None:
        self._last: Counter[str] = Counter()
        self._hours: dict[int, Counter[str]] = {}

    def update(self, figures: Figures, now: float) -> None:
        """Count what has happened since the last call in the present hour.

        Args:
            figures: of the camera.
            now: seconds since 1970.
        """
        totals = Counter({name: figures[name] for name in ("passed", "failed", "unknown", "dropped")})
        began = int(now // 3600) * 3600
        self._hours.setdefault(began, Counter()).update(totals - self._last)  # again, where the clock was set back
        if len(self._hours) > HOURS:
            del self._hours[next(iter(self._hours))]
        self._last = totals

    def state(self) -> list[Hour]:
        """Return the hours, oldest first."""
        return [
            Hour(began, counts["passed"], counts["failed"], counts["unknown"], counts["dropped"])
            for began, counts in sorted(self._hours.items())
        ]


class Rate:
    """Results per second over the last seconds."""

    def __init__(self) -> None:
        self._totals: deque[tuple[float, int]] = deque()

    def update(self, inferred: int, now: float) -> None:
        """Add the number of results so far at a moment, `time.monotonic` seconds."""
        self._totals.append((now, inferred))
        while now - self._totals[0][0] > RATE_SECONDS:
            self._totals.popleft()

    def value(self) -> float:
        """Return results per second."""
        if not self._totals:
            return 0.0
        (first, before), (last, after) = self._totals[0], self._totals[-1]
        return round((after - before) / (last - first), 2) if last > first else 0.0


@dataclass(frozen=True)
class Sample:
    """A decided frame, for the threshold panel: its score, threshold and verdict."""

    score: float
    threshold: float
    failed: bool


class Samples:
    """The last decided frames of all cameras under the bundle that decides."""

    def __init__(self) -> None:
        self._model = "", ""
        self._kept: deque[Sample] = deque(maxlen=SAMPLES)

    def of(self, model: tuple[str, str]) -> list[Sample]:
        """Return those of a `Fact.model`, oldest first. Any thread may ask."""
        return list(self._kept) if model == self._model else []

    def add(self, facts: Iterable[Fact]) -> None:
        """Add results. UNKNOWN ones stay UNKNOWN at any threshold and are left out."""
        for fact in facts:
            if fact.verdict is Verdict.UNKNOWN or not math.isfinite(fact.score):
                continue
            if fact.model != self._model:
                self._kept = deque(maxlen=SAMPLES)
                self._model = fact.model
            self._kept.append(Sample(fact.score, fact.threshold, fact.verdict is Verdict.FAIL))
