"""Exact confidence intervals of a failure rate, and the probability of a count."""

from __future__ import annotations

import math
import sys
from bisect import bisect_left, bisect_right

CONFIDENCE = 0.95
"""Confidence of every interval and limit that is reported."""
HALVINGS = 60
"""Steps of the bisection: more than float64 has binary places."""


def upper_limit(failures: int, trials: int, confidence: float = CONFIDENCE) -> float:
    """Return the one-sided Clopper–Pearson limit: the largest rate that this number of failures does not refute.

    It is also the quantile of the beta distribution with `failures` + 1 and `trials` − `failures`.

    Args:
        failures: from 0 to `trials`.
        trials: at least 1.
        confidence: between 0 and 1.
    """
    if failures >= trials:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if _at_most(failures, trials, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def interval(failures: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the two-sided Clopper–Pearson interval of a rate."""
    one_sided = (1 + confidence) / 2
    return 1 - upper_limit(trials - failures, trials, one_sided), upper_limit(failures, trials, one_sided)


def quantile_ranks(trials: int, share: float, confidence: float = CONFIDENCE) -> tuple[int, int] | None:
    """Return which two of sorted values a quantile of their distribution lies between, whatever the distribution.

    The number of values below the quantile has a binomial distribution.

    Args:
        trials: number of independent values, at least 1.
        share: of the quantile, between 0 and 1, both excluded.
        confidence: that it lies there, at least.

    Returns:
        The places, from 1 to `trials`. None if there are too few values: even the largest or the smallest one is not
        beyond the quantile with this confidence.
    """

    def at_most(count: int) -> float:
        return _at_most(count, trials, share)

    tail = (1 - confidence) / 2
    low = bisect_right(range(trials), tail, key=at_most)
    high = bisect_left(range(trials), 1 - tail, key=at_most) + 1
    return (low, high) if low >= 1 and high <= trials else None


def at_least_as_many(count: int, new: int, above: int, held_out: int) -> float:
    """Return the probability that `count` or more of `new` images score above a limit set by held-out images.

    The limit is the score of a held-out image with `above` higher ones. All images are exchangeable: the rate above the
    limit has the beta distribution with `above` + 1 and `held_out` − `above`, the count the beta-binomial one.
    """
    a, b = above + 1, held_out - above

    def logarithm(found: int) -> float:
        return _log_choose(new, found) + _log_beta(a + found, b + new - found) - _log_beta(a, b)

    return min(1.0, math.fsum(math.exp(logarithm(found)) for found in range(count, new + 1)))


def _at_most(failures: int, trials: int, rate: float) -> float:
    """Return the probability of `failures` or fewer; `rate` is between 0 and 1, both excluded.

    The terms are added from the largest on, away from the mean, until the rest cannot count: their number grows with
    the square root of `trials`.
    """
    if failures > trials * rate:
        return 1 - _at_most(trials - failures - 1, trials, 1 - rate)
    log_term = _log_choose(trials, failures) + failures * math.log(rate) + (trials - failures) * math.log1p(-rate)
    total = term = math.exp(log_term)
    for found in range(failures, 0, -1):
        term *= found * (1 - rate) / ((trials - found + 1) * rate)
        total += term
        if term < total * sys.float_info.epsilon:
            break
    return total


def _log_choose(trials: int, found: int) -> float:
    return math.lgamma(trials + 1) - math.lgamma(found + 1) - math.lgamma(trials - found + 1)


def _log_beta(a: int, b: int) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
