"""The two-sample test of Kolmogorov and Smirnov, exact for any sizes."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray


def distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> int:
    """Return the largest difference of the empirical distributions, times both sample sizes: a whole number.

    Args:
        one, other: ``[n]`` and ``[m]``, both sorted.
    """
    values = np.concatenate([one, other])
    below_one, below_other = (np.searchsorted(each, values, "right") for each in (one, other))
    return int(np.abs(below_one * len(other) - below_other * len(one)).max())


@functools.lru_cache(maxsize=256)
def smallest_significant(n: int, m: int, alpha: float) -> int | None:
    """Return the smallest `distance` that samples of one distribution reach with probability `alpha` at most.

    With ties the probability is lower. None if no distance is significant: the samples are too small.
    """
    low, high = 0, n * m
    if probability_of_reaching(high, n, m) > alpha:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if probability_of_reaching(middle, n, m) > alpha:
            low = middle
        else:
            high = middle
    return high


def probability_of_reaching(wanted: int, n: int, m: int) -> float:
    """Return the probability that samples of sizes n and m of one continuous distribution are so far apart or farther.

    All orders of the n + m values are equally likely. Each is a path from (0, 0) to (n, m); those that stay closer are
    counted row by row (Hodges 1958, The significance probability of the Smirnov two-sample test).

    Args:
        wanted: a `distance`, at least 1.
        n, m: sizes.
    """
    columns = np.arange(m + 1)
    inside, scale = np.eye(1, m + 1)[0], 0.0  # paths to each place of the row before, of which there is one
    for row in range(n + 1):
        outside = np.abs(row * m - columns * n) >= wanted
        inside[outside] = 0.0
        inside = np.cumsum(inside)
        inside[outside] = 0.0
        largest = float(inside.max())
        if largest == 0:
            return 1.0
        inside, scale = inside / largest, scale + math.log(largest)
    if inside[-1] == 0:
        return 1.0
    paths = math.lgamma(n + m + 1) - math.lgamma(n + 1) - math.lgamma(m + 1)
    return max(0.0, -math.expm1(math.log(inside[-1]) + scale - paths))
