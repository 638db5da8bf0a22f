"""Latencies as counts by size, so that those of several runs can be added."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

STEP = 1.05
"""Ratio of two neighbouring limits: percentiles are exact to 5 %."""


class Latencies:
    """Counts latencies.

    Args:
        bins: number of latencies by bin, as in a results file.
    """

    def __init__(self, bins: Mapping[str, int] | None = None) -> None:
        self.bins: Counter[int] = Counter({int(bin): count for bin, count in (bins or {}).items()})

    def add(self, milliseconds: float) -> None:
        """Count one."""
        self.bins[math.ceil(math.log(max(milliseconds, 1e-2), STEP))] += 1

    def percentile(self, share: float) -> float | None:
        """Return the latency in milliseconds that this share of them does not exceed; None without any."""
        left = share * self.bins.total()
        for place in sorted(self.bins):
            left -= self.bins[place]
            if left <= 0:
                return round(float(STEP**place), 3)
        return None

    def to_json(self) -> dict[str, int]:
        """Return the counts by bin."""
        return {str(place): self.bins[place] for place in sorted(self.bins)}
