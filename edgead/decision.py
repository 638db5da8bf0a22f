"""From a score to a decision: the threshold that good parts give, and the verdict."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from edgead.errors import DataError


class Verdict(str, enum.Enum):
    """What is decided about one frame. UNKNOWN is never a PASS: whoever acts on it must look.

    ``str(verdict)`` and ``f"{verdict}"`` are the plain word on every Python version, as of `enum.StrEnum`.
    """

    def __str__(self) -> str:
        return self.value

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)

    PASS = "PASS"
    FAIL = "FAIL"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Threshold:
    """A score limit and how it came about.

    Attributes:
        value: a score above this fails.
        normals: number of held-out good images that it was computed from; 0 for one that came with an imported model.
        false_reject_bound: the share of good parts, on average over sets of that many normals, that fails at
            most. It is the bound that was asked for, or the smallest one that so few normals can support.
        requested_bound: the bound that was asked for.
    """

    value: float
    normals: int
    false_reject_bound: float
    requested_bound: float

    def describe(self) -> str:
        """Say in one line what the threshold promises."""
        if not self.normals:
            return f"threshold {self.value:.6g}, the imported model's own: how many good parts it rejects is not known"
        line = (
            f"threshold {self.value:.6g} from {self.normals} held-out good images: "
            f"at most {self.false_reject_bound:.2%} of good parts fail on average"
        )
        if self.false_reject_bound > self.requested_bound:
            needed = math.ceil(1 / self.requested_bound) - 1
            line += f" (asked for {self.requested_bound:.2%}; that takes at least {needed} held-out images)"
        return line


def check_false_reject(bound: float) -> None:
    """Refuse a bound of the false-reject rate that is not between 0 and 1, both excluded.

    Raises:
        DataError: it is not.
    """
    if not 0 < bound < 1:
        raise DataError(f"The false-reject bound must lie between 0 and 1, not {bound}.")


def conformal_threshold(scores: ArrayLike, bound: float = 0.01) -> Threshold:
    """Compute a threshold from the scores of held-out good images by split conformal prediction.

    With n exchangeable normals, a new one scores above the k-th smallest of them with probability at most
    1 − k/(n+1) (Vovk et al. 2005; Lei et al. 2018, section 2). The smallest k that keeps the bound is taken. If n
    is too small for the bound, the largest score is taken and the bound it does support, 1/(n+1), is stated.

    Args:
        scores: ``[n]``, one raw score per held-out good image.
        bound: wanted upper bound of the false-reject rate, between 0 and 1, both excluded.

    Raises:
        DataError: no scores, scores that are not finite, or a bound outside (0, 1).
    """
    values = np.sort(np.asarray(scores, dtype=np.float64))
    if values.size == 0:
        raise DataError("A threshold needs at least one held-out good image; there is none.")
    if not np.all(np.isfinite(values)):
        raise DataError("Some scores of the held-out good images are not finite; no threshold can be set.")
    check_false_reject(bound)
    n = values.size
    k = min(n, math.ceil((n + 1) * (1 - bound) - 1e-9))
    return Threshold(float(values[k - 1]), n, max(bound, 1 / (n + 1)), bound)


def decide(score: float, threshold: float) -> tuple[Verdict, str]:
    """Return the verdict on a raw score and the reason for it. UNKNOWN where score or threshold is not finite."""
    if not math.isfinite(score):
        return Verdict.UNKNOWN, "score is not finite"
    if not math.isfinite(threshold):  # every comparison with NaN is false: all parts would pass
        return Verdict.UNKNOWN, "threshold is not finite"
    if score > threshold:
        return Verdict.FAIL, "score above threshold"
    return Verdict.PASS, "score within threshold"
