"""What another threshold would have changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgead.binomial import CONFIDENCE, upper_limit
from edgead.decision import threshold_images
from edgead.view.curves import Sample

BINS = 48


@dataclass(frozen=True)
class WhatIf:
    """The effect of a threshold on parts that were decided already, and on the held-out good images.

    Attributes:
        threshold: the proposed one.
        parts: decided frames that were looked at.
        failed: of these, how many failed.
        would_fail: passed and would fail.
        would_pass: failed and would pass.
        at_most: `would_fail` is an upper limit: region or smallest area may let some of them pass.
        held_out: good images of the bundle's threshold.
        images: what these are called.
        held_out_failing: of these, how many would fail.
        limit: the largest share of good parts that fails, with `confidence`; None without held-out images.
        confidence: of `limit`.
    """

    threshold: float
    parts: int
    failed: int
    would_fail: int
    would_pass: int
    at_most: bool
    held_out: int
    images: str
    held_out_failing: int
    limit: float | None
    confidence: float = CONFIDENCE


def what_if(
    threshold: float, samples: Sequence[Sample], held_out: Sequence[float], *, has_rules: bool, unseen: bool = True
) -> WhatIf:
    """Count what a threshold would have changed.

    A part that passed although its score was above its threshold, because of region or area, passes again.

    Args:
        threshold: the proposed one.
        samples: decided frames.
        held_out: scores of the good images of the bundle's threshold.
        has_rules: a region or smallest area is set.
        unseen: these images were not used for training.
    """
    would_fail = sum(not one.failed and one.threshold >= one.score > threshold for one in samples)
    would_pass = sum(one.failed and one.score <= threshold for one in samples)
    above = sum(score > threshold for score in held_out)
    limit = upper_limit(above, len(held_out)) if held_out else None
    return WhatIf(
        threshold,
        len(samples),
        sum(one.failed for one in samples),
        would_fail,
        would_pass,
        has_rules and would_fail > 0,
        len(held_out),
        threshold_images(unseen),
        above,
        limit,
    )


@dataclass(frozen=True)
class Histogram:
    """Counts of scores in equal bins from `low` to `high`."""

    low: float
    high: float
    held_out: list[int]
    passed: list[int]
    failed: list[int]


def histogram(samples: Sequence[Sample], held_out: Sequence[float], threshold: float) -> Histogram:
    """Count scores of held-out good images and of recent parts. The threshold is inside the range."""
    scores = np.array([one.score for one in samples])
    failed = np.array([one.failed for one in samples], np.bool_)
    every = np.concatenate([scores, np.array(held_out, np.float64), [threshold]])
    low, high = float(every.min()), float(every.max())
    margin = (high - low) * 0.05 or max(abs(high), 1.0) * 0.05
    low, high = low - margin, high + margin

    def count(values: NDArray[np.float64]) -> list[int]:
        return [int(one) for one in np.histogram(values, BINS, (low, high))[0]]

    return Histogram(low, high, count(np.array(held_out, np.float64)), count(scores[~failed]), count(scores[failed]))
