"""Whether a bundle's promise on false rejects holds on the labelled good images of a test set."""

from __future__ import annotations

from edgead.benchmark.report import Promise
from edgead.binomial import CONFIDENCE, at_least_as_many
from edgead.decision import CONDITION, Threshold

SIGNIFICANT = 1 - CONFIDENCE
"""A count that is less probable than this, if the promise holds, contradicts it."""


def check_promise(threshold: Threshold, failed: int, good: int) -> Promise | None:
    """Compare what a threshold promises with what it does.

    Args:
        threshold: the bundle's own.
        failed: good test images that it rejects.
        good: all good test images.

    Returns:
        The promise with the probability of as many rejects or more (or, where fewer than expected, of as few or fewer)
        if it holds. None for a threshold that promises nothing.
    """
    held_out, above = threshold.normals, threshold.above
    if not held_out:
        return None
    as_many = at_least_as_many(failed, good, above, held_out)
    as_few = 1 - at_least_as_many(failed + 1, good, above, held_out)
    warning = ""
    if as_many < SIGNIFICANT:
        warning = (
            f"{failed} of {good} good test images are rejected, more than the threshold promises "
            f"({_promised(threshold)}). By chance that has a probability of {as_many:.1%}: these images do not show "
            f"{CONDITION}, or the held-out ones were too like those trained on. "
            "Hold out good images of later days and other batches, and export again."
        )
    elif as_few < SIGNIFICANT:
        warning = (
            f"Only {failed} of {good} good test images are rejected, fewer than the threshold makes likely "
            f"({_promised(threshold)}; by chance {as_few:.1%}). These images differ from the held-out ones; a lower "
            "threshold may find more defects."
        )
    return Promise(
        average=threshold.false_reject_bound,
        limit=threshold.false_reject_limit,
        held_out=held_out,
        probability=min(as_many, as_few),
        warning=warning,
    )


def _promised(threshold: Threshold) -> str:
    return (
        f"at most {threshold.false_reject_bound:.2%} on average, {threshold.false_reject_limit:.2%} with "
        f"{CONFIDENCE:.0%} confidence, from {threshold.normals} held-out images"
    )
