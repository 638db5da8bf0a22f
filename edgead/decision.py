"""From a score to a decision: the threshold from good parts, and the verdict."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike

from edgead.binomial import CONFIDENCE, upper_limit
from edgead.errors import DataError
from edgead.schema import Share, Within


class Verdict(str, enum.Enum):
    """The decision on one frame. Never treat UNKNOWN as PASS: treat it as FAIL, or inspect by hand.

    ``str(verdict)`` and ``f"{verdict}"`` are the plain word on every Python version, as of `enum.StrEnum`.
    """

    def __str__(self) -> str:
        return self.value

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)

    PASS = "PASS"
    FAIL = "FAIL"
    UNKNOWN = "UNKNOWN"


Normals = Annotated[int, Within(0, 1_000_000)]
"""Number of held-out images."""
LEAST_BOUND = 1e-12
"""Of the false-reject rate: no number of images that fits on a disk would support less."""
RequestedBound = Annotated[float, Within(LEAST_BOUND, 1)]
CONDITION = "the same part, camera and light as those images"
"""The condition of every promise about good parts."""


@dataclass(frozen=True)
class Threshold:
    """A score limit and how it was computed.

    Attributes:
        value: a score above this fails.
        normals: number of held-out good images it was computed from; 0 for an imported model's own threshold.
        false_reject_bound: the share of good parts, on average over sets of that many normals, that fails at
            most: the requested bound, or the smallest one that this number of normals supports.
        requested_bound: the bound that the user requested.
    """

    value: float
    normals: Normals
    false_reject_bound: Share
    requested_bound: RequestedBound

    @property
    def above(self) -> int:
        """Held-out good images with a higher score."""
        return self.normals - _rank(self.normals, self.requested_bound)

    @property
    def false_reject_limit(self) -> float:
        """The largest share of good parts that fails, with 95 % confidence; 1 if unknown.

        The average holds over many sets of held-out images; this limit holds for this one set. For a
        threshold at the k-th smallest of n scores, the share of good parts above it has the beta distribution with
        n + 1 − k and k (Vovk 2012, conditional validity of inductive conformal predictors).
        """
        return upper_limit(self.above, self.normals) if self.normals else 1.0

    def describe(self, unseen: bool = True) -> str:
        """Return one line: what the threshold promises, and on which condition.

        Args:
            unseen: the images were not used for training.
        """
        if not self.normals:
            return (
                f"threshold {self.value:.6g}, the imported model's own: its false-reject rate is unknown. "
                "To set one with a known rate, import with --threshold-data"
            )
        images = threshold_images(unseen)
        parts = _parts_for(self.false_reject_bound)

        def count(share: float, parts: int = parts) -> str:
            return f"{math.ceil(share * parts - 1e-6):,}"

        line = (
            f"threshold {self.value:.6g} from {self.normals} {images}: out of {parts:,} good parts "
            f"at most {count(self.false_reject_bound)} fail on average and, with {CONFIDENCE:.0%} confidence, "
            f"at most {count(self.false_reject_limit)}, if they show {CONDITION}"
        )
        if self.false_reject_bound > self.requested_bound:
            average, sure = images_needed(self.requested_bound)
            own = _parts_for(self.requested_bound)
            of = f" of {own:,}" if own != parts else ""
            line += (
                f". Requested: {count(self.requested_bound, own)}{of}, which needs at least {average} held-out images "
                f"on average, {sure} with {CONFIDENCE:.0%} confidence"
            )
        return line


def threshold_images(unseen: bool) -> str:
    """Return what the images of a threshold are called.

    Args:
        unseen: they were not used for training.
    """
    return "held-out good images" if unseen else "good images that the model may have been trained on"


def images_needed(bound: float) -> tuple[int, int]:
    """Return the smallest number of held-out images for a false-reject bound: on average, and with 95 % confidence.

    This number is enough if the threshold is the highest of their scores.
    """
    on_average = math.ceil(1 / bound - 1e-9) - 1
    return on_average, math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-bound) - 1e-9)


def _parts_for(share: float) -> int:
    """Return the round number of parts, 1,000 or more, of which a share is one or more."""
    return next((parts for parts in (10**3, 10**6, 10**9) if share * parts >= 1 - 1e-6), 10**12)


def _rank(normals: int, bound: float) -> int:
    """Return k, where the threshold is the k-th smallest of the normals' scores."""
    return min(normals, math.ceil((normals + 1) * (1 - bound) - 1e-9))


def check_false_reject(bound: float) -> None:
    """Refuse a bound of the false-reject rate that is not from `LEAST_BOUND` to below 1.

    Raises:
        DataError: it is not.
    """
    if not LEAST_BOUND <= bound < 1:
        raise DataError(f"The false-reject bound must lie between 0 and 1, not {bound}; {LEAST_BOUND:g} is the least.")


def conformal_threshold(scores: ArrayLike, bound: float = 0.01) -> Threshold:
    """Compute a threshold from the scores of held-out good images by split conformal prediction.

    With n exchangeable normals, a new one scores above the k-th smallest of them with probability at most
    1 − k/(n+1) (Vovk et al. 2005; Lei et al. 2018, section 2). The smallest k that keeps the bound is used. If n
    is too small for the bound, the largest score is used and the bound it supports, 1/(n+1), is reported.
    `Threshold.false_reject_limit` says what this one set of normals promises.

    Args:
        scores: ``[n]``, one raw score per held-out good image.
        bound: wanted upper bound of the false-reject rate, from `LEAST_BOUND` to below 1.

    Raises:
        DataError: no scores, scores that are not finite, or a bound outside this range.
    """
    values = np.sort(np.asarray(scores, dtype=np.float64))
    if values.size == 0:
        raise DataError("A threshold needs at least one held-out good image, but there is none.")
    if not np.all(np.isfinite(values)):
        raise DataError("Some scores of the held-out good images are not finite; no threshold can be set.")
    check_false_reject(bound)
    n = values.size
    return Threshold(float(values[_rank(n, bound) - 1]), n, max(bound, 1 / (n + 1)), bound)


def decide(score: float, threshold: float) -> tuple[Verdict, str]:
    """Return the verdict on a raw score and the reason for it. UNKNOWN where score or threshold is not finite."""
    if not math.isfinite(score):
        return Verdict.UNKNOWN, "score is not finite"
    if not math.isfinite(threshold):  # every comparison with NaN is false: all parts would pass
        return Verdict.UNKNOWN, "threshold is not finite"
    if score > threshold:
        return Verdict.FAIL, "score above threshold"
    return Verdict.PASS, "score within threshold"
