"""Whether a stage trains in bfloat16 here: the processor computes in it, it is faster, and the losses agree.

Autocast lowers convolutions and matrix products only. Weights, optimiser states and losses stay in float32.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

FASTER = 1.1
"""Least ratio of the times of a step in float32 and in bfloat16 for which bfloat16 is taken."""
AGREEMENT = 0.02
"""Largest relative difference of the losses on the same batch with the same weights."""
FEWEST, MOST = 3, 7
"""Pairs of steps that are compared; more than the fewest only while they are quick."""
QUICK, SLOW = 2.0, 15.0
"""Seconds: pairs above `FEWEST` are taken up to the first, pairs above one up to the second."""

Step = Callable[[str, int], Mapping[str, float]]
"""Takes a step in ``"no"`` or ``"bf16"`` on the batch of that number; returns its losses, none where it failed."""


@dataclass(frozen=True)
class Comparison:
    """Steps in float32 and in bfloat16, in turn, from the same weights and on the same batches.

    Attributes:
        seconds: median of a step, by precision.
        speedup: median of the pairs' ratios, float32 to bfloat16.
        difference: largest relative difference of the losses.
    """

    seconds: Mapping[str, float]
    speedup: float
    difference: float

    @property
    def choice(self) -> str:
        """``"bf16"`` where it is faster and the losses agree, else ``"no"``."""
        return "bf16" if self.speedup >= FASTER and self.difference <= AGREEMENT else "no"

    def describe(self) -> str:
        """Describe the result in a few words."""
        return f"bf16 {self.speedup:.2f}x as fast, losses differ by {self.difference:.1%}"


def compare(step: Step, several: bool = False, clock: Callable[[], float] = time.monotonic) -> Comparison:
    """Take the steps; the first in each precision does not count.

    Args:
        step: see `Step`.
        several: processes share each step, so all must take equally many.
        clock: returns seconds.
    """
    step("no", 0)
    step("bf16", 0)
    taken: dict[str, list[float]] = {"no": [], "bf16": []}
    differences: list[float] = []
    start = clock()
    while _wants_more(len(differences), clock() - start, several):
        losses = {}
        for precision, seconds in taken.items():
            before = clock()
            losses[precision] = step(precision, len(differences))
            seconds.append(clock() - before)
        differences.append(_difference(losses["no"], losses["bf16"]))
    ratios = [slow / fast for slow, fast in zip(taken["no"], taken["bf16"])]
    medians = {precision: statistics.median(seconds) for precision, seconds in taken.items()}
    return Comparison(medians, statistics.median(ratios), max(differences))


def _wants_more(pairs: int, seconds: float, several: bool) -> bool:
    if several or pairs == 0:
        return pairs < FEWEST
    return seconds < (SLOW if pairs < FEWEST else QUICK) and pairs < MOST


def _difference(exact: Mapping[str, float], lowered: Mapping[str, float]) -> float:
    """Return the sum of all losses' differences, relative to the sum of their sizes."""
    size = sum(abs(value) for value in exact.values())
    found = sum(abs(value - lowered.get(name, float("nan"))) for name, value in exact.items())
    relative = found / size if size else found
    return relative if relative == relative else float("inf")  # a loss that is not a number agrees with nothing


def has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether this processor computes in bfloat16, and oneDNN is not told to leave that alone."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    if limit and "BF16" not in limit and "AMX" not in limit and limit not in ("ALL", "DEFAULT"):
        return False
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:
        return False
    lines = [line for line in text.splitlines() if line.lower().startswith(("flags", "features"))]
    wanted = {"bf16"} if platform.machine() in ("aarch64", "arm64") else {"avx512_bf16", "amx_bf16"}
    return any(wanted & set(line.split()) for line in lines)
