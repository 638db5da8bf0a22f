"""Check a threshold's promise on false rejects with the good images of a test set."""

from __future__ import annotations

from collections.abc import Sequence

from edgead.benchmark.report import Promise
from edgead.binomial import CONFIDENCE, at_least_as_many
from edgead.decision import Threshold
from edgead.text import percent

SIGNIFICANT = 1 - CONFIDENCE
"""A count with a lower probability under the promise contradicts it."""


def check_promise(threshold: Threshold, failed: int, good: int, scores: Sequence[float] = ()) -> Promise | None:
    """Compare a threshold's promise with its false rejects.

    Args:
        threshold: the bundle's own.
        failed: number of rejected good test images.
        good: number of good test images.
        scores: of the held-out good images. If the threshold is above the score that its promise follows from,
            because `edgead review` has raised it, or several scores are equal to it, few false rejects contradict
            nothing.

    Returns:
        The promise, with the probability under it of a count at least as extreme. None for a threshold without a
        promise.
    """
    held_out, above = threshold.normals, threshold.above
    if not held_out:
        return None
    as_many = at_least_as_many(failed, good, above, held_out)
    as_few = 1 - at_least_as_many(failed + 1, good, above, held_out)
    is_own_limit = threshold.value in scores and sum(score > threshold.value for score in scores) == above
    if scores and not is_own_limit:
        as_few = 1.0
    warning = ""
    if as_many < SIGNIFICANT:
        warning = (
            f"{failed} of {good} good test images are rejected, more than the threshold promises "
            f"({_promised(threshold)}). The probability of this by chance is {percent(as_many)}%. Either these "
            "images do not show the same part, camera and light as the held-out ones, or the held-out ones were too "
            "similar to the training images. Hold out good images of later days and other batches, and export again."
        )
    elif as_few < SIGNIFICANT:
        warning = (
            f"Only {failed} of {good} good test images are rejected, fewer than expected from the threshold "
            f"({_promised(threshold)}; probability {percent(as_few)}%). These images differ from the held-out ones; a "
            "lower threshold may find more defects."
        )
    return Promise(
        average=threshold.false_reject_bound,
        limit=threshold.false_reject_limit,
        held_out=held_out,
        probability=min(as_many, as_few),
        warning=warning,
    )


def _promised(threshold: Threshold) -> str:
    average, limit = (percent(each, 2) for each in (threshold.false_reject_bound, threshold.false_reject_limit))
    return (
        f"at most {average}% on average, {limit}% with "
        f"{CONFIDENCE:.0%} confidence, from {threshold.normals} held-out images"
    )
