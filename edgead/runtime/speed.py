"""How long each stage of a frame took: percentiles over a run of any length, in constant memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypedDict

STAGES = ("capture", "fit", "infer", "post", "total")
"""``capture`` is the way of a frame to the engine without the fit: transport and waiting. The first four add up."""
STEP = 1.01
"""Ratio of the limits of a bin: a percentile is exact to half a percent."""
SHORTEST_MS, BINS = 1e-3, 2100
"""The first bin's limit in milliseconds, and the number of bins: up to 20 minutes."""


class Percentiles(TypedDict):
    """Milliseconds."""

    p50: float
    p99: float


class Speed:
    """Counts the latencies of inferred frames. Not thread-safe: `edgead.runtime.ledger.Ledger` has the lock."""

    def __init__(self) -> None:
        self._frames = 0
        self._counts = {stage: [0] * BINS for stage in STAGES}

    def count(self, latency_ms: Mapping[str, float]) -> None:
        """Count one frame.

        Args:
            latency_ms: of a result, see `edgead.runtime.result.Result`. A frame that was not inferred is ignored.
        """
        if "infer" not in latency_ms:
            return
        self._frames += 1
        for stage in STAGES:
            taken = latency_ms["source"] + latency_ms["queue"] if stage == "capture" else latency_ms[stage]
            self._counts[stage][_bin(taken)] += 1

    def percentiles(self) -> dict[str, Percentiles]:
        """Return p50 and p99 of each of `STAGES`; empty without inferred frames."""
        if not self._frames:
            return {}
        return {
            stage: {"p50": self._percentile(counts, 0.50), "p99": self._percentile(counts, 0.99)}
            for stage, counts in self._counts.items()
        }

    def _percentile(self, counts: list[int], share: float) -> float:
        wanted, seen = math.ceil(share * self._frames), 0
        for number, count in enumerate(counts):
            seen += count
            if seen >= wanted:
                return round(SHORTEST_MS * STEP ** (number - 0.5), 4) if number else 0.0
        raise AssertionError


def _bin(milliseconds: float) -> int:
    if not milliseconds > SHORTEST_MS:
        return 0
    return min(BINS - 1, math.ceil(math.log(milliseconds / SHORTEST_MS, STEP)))


def describe_speed(percentiles: Mapping[str, Percentiles]) -> str:
    """Return the percentiles of `Speed` as one line, in milliseconds."""
    if not percentiles:
        return "Speed: no frame was inferred"
    stages = ", ".join(f"{stage} {each['p50']:.1f}/{each['p99']:.1f}" for stage, each in percentiles.items())
    return f"Speed: {stages} ms (p50/p99)"
