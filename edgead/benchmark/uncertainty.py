"""How far figures may be off by chance: intervals of an AUROC, of the difference of two, and of latencies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgead.binomial import CONFIDENCE, HALVINGS, quantile_ranks

Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


def auroc_interval(auroc: float, good: int, defective: int) -> tuple[float, float]:
    """Return the 95 % interval of an AUROC: a score interval, which stays in [0, 1] and is wide where images are few.

    Newcombe, "Confidence intervals for an effect size measure based on the Mann–Whitney statistic. Part 2", Statistics
    in Medicine 25 (2006), method 5, with the variance of Hanley and McNeil (1982). Unlike DeLong's interval and the
    bootstrap, it does not shrink to a point at 100 %.

    Args:
        auroc: from 0 to 1.
        good, defective: numbers of images, at least 1.
    """

    def outside(value: float) -> bool:
        return abs(auroc - value) > Z * math.sqrt(_hanley_mcneil(value, good, defective))

    return _halve(outside, 0.0, auroc), _halve(outside, 1.0, auroc)


def _halve(outside: Callable[[float], bool], far: float, near: float) -> float:
    """Return the value between `far` and `near` where `outside` begins to hold, or `far` where it does not."""
    if not outside(far):
        return far
    for _ in range(HALVINGS):
        middle = (far + near) / 2
        far, near = (middle, near) if outside(middle) else (far, middle)
    return near


def _hanley_mcneil(auroc: float, good: int, defective: int) -> float:
    mean = (good + defective) / 2 - 1
    spread = 1 + mean * ((1 - auroc) / (2 - auroc) + auroc / (1 + auroc))
    return auroc * (1 - auroc) * spread / (good * defective)


def auroc_difference(
    labels: ArrayLike, first: ArrayLike, second: ArrayLike, pairs: int = 1
) -> tuple[float, tuple[float, float]]:
    """Return the difference of two AUROCs on the same images, first minus second, and its 95 % interval.

    The best of many models leads the others by chance alone. With `pairs`, the intervals of so many differences hold
    together (Bonferroni).

    DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated receiver operating
    characteristic curves", Biometrics 44 (1988).

    Args:
        labels: ``[N]`` bool, True for defective.
        first, second: ``[N]`` float, scores of the same images.
        pairs: number of differences that this one may have been chosen from.
    """
    wrong = np.asarray(labels, bool)
    placed = [_placements(np.asarray(scores, np.float64), wrong) for scores in (first, second)]
    (bad_1, good_1), (bad_2, good_2) = placed
    difference = float(bad_1.mean() - bad_2.mean())
    variance = sum(_variance_of_mean(one - other) for one, other in ((bad_1, bad_2), (good_1, good_2)))
    margin = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / 2 / pairs) * math.sqrt(variance)
    return difference, (max(-1.0, difference - margin), min(1.0, difference + margin))


def _variance_of_mean(values: NDArray[np.float64]) -> float:
    return float(values.var(ddof=1)) / len(values) if len(values) > 1 else math.inf


def _placements(scores: NDArray[np.float64], wrong: NDArray[np.bool_]) -> tuple[NDArray[np.float64], ...]:
    """Return for each defective image the share of good ones below it, and for each good one of defective ones above.

    Ties count half.
    """

    def below(values: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
        ordered = np.sort(others)
        ranks = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
        return np.asarray(ranks / (2 * len(others)))

    bad, good = scores[wrong], scores[~wrong]
    return below(bad, good), 1 - below(good, bad)


def latency_interval(times: Sequence[float], share: float) -> tuple[float, float] | None:
    """Return the 95 % interval of a percentile of latencies: two of them, see `edgead.binomial.quantile_ranks`.

    A bootstrap cannot exceed the largest latency, which is below the 99th percentile in 37 of 100 series of 100.
    Consecutive latencies resemble each other: n of them count as fewer, by how much more the number below the
    percentile varies between blocks of √n than if they were independent.

    Args:
        times: milliseconds, in the order in which they were measured, at least one.
        share: percentile, between 0 and 100.

    Returns:
        Its ends in milliseconds; None if there are too few times.
    """
    values = np.asarray(times, np.float64)
    count, below = len(values), values <= np.percentile(values, share)
    length, met = max(1, round(math.sqrt(count))), float(below.mean())
    total = np.cumsum(np.append(0.0, below - met))
    variance = float(np.mean((total[length:] - total[:-length]) ** 2)) / length
    independent = max(1, round(count * min(1.0, met * (1 - met) / variance))) if variance > 0 else count
    ranks = quantile_ranks(independent, share / 100)
    if ranks is None:
        return None
    ordered = np.sort(values)
    low, high = ranks[0] * count // independent, -(-ranks[1] * count // independent)
    return float(ordered[low - 1]), float(ordered[high - 1])


def latency_ratio(times: Sequence[float], reference: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """Return how many times longer one series takes than another: the median over the rounds, and its 95 % interval.

    What slows a round down slows down both of its calls, and cancels.

    Args:
        times, reference: milliseconds of the same rounds, in their order.

    Returns:
        The ratio and the ends of its interval (see `latency_interval`); None instead of them for fewer than six rounds.
    """
    ratios = np.asarray(times, np.float64) / np.asarray(reference, np.float64)
    return float(np.median(ratios)), latency_interval(ratios.tolist(), 50)
