"""Intervals contain the truth as often as they say, whatever the number of calls or bundles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgead.benchmark import read_report
from edgead.benchmark.accuracy import Accuracy
from edgead.benchmark.latency import _intervals
from edgead.benchmark.rows import compare
from edgead.benchmark.uncertainty import latency_interval, latency_ratio
from edgead.datasets import Sample
from edgead.metrics import rank


@pytest.mark.parametrize(("share", "calls"), [(50, 20), (50, 100), (90, 40), (90, 100), (99, 400)])
def test_a_percentile_lies_in_its_interval(share: float, calls: int) -> None:
    """The bootstrap's intervals missed p99 of 100 calls in 37 of 100 reports, and p90 of 20 calls in 20."""
    rng = np.random.default_rng(0)
    truth = float(np.quantile(rng.lognormal(size=1_000_000), share / 100))
    found = [latency_interval(rng.lognormal(size=calls), share) for _ in range(200)]
    given = [each for each in found if each]
    assert np.mean([low <= truth <= high for low, high in given]) > 0.92
    assert len(given) > 100


def test_calls_that_resemble_each_other_count_as_fewer() -> None:
    rng = np.random.default_rng(0)
    alone = rng.lognormal(size=400)
    widths = []
    for times in (alone, np.repeat(alone[:40], 10)):
        interval = latency_interval(times, 50)
        assert interval
        widths.append(interval[1] - interval[0])
    assert widths[1] > 1.5 * widths[0]


def test_too_few_calls_have_no_interval() -> None:
    """One call had an interval of no width, and p99 of 100 calls one that ended at the longest call."""
    times = np.random.default_rng(0).permutation(4000) + 1.0
    for calls, named in ((1, ""), (5, ""), (6, "p50"), (36, "p50 p90"), (367, "p50 p90"), (4000, "p50 p90 p99 p999")):
        found = vars(_intervals(np.resize([1.0, 2.0], calls) if calls < 4000 else times))
        assert " ".join(name for name, each in found.items() if each) == named, calls


@pytest.mark.parametrize("rounds", [20, 100])
def test_a_ratio_of_latencies_lies_in_its_interval(rounds: int) -> None:
    """The bootstrap's intervals held the ratio in 89 and 92 of 100 comparisons of 20 and 100 rounds."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(300):
        shared, times, reference = rng.normal(scale=0.1, size=(3, rounds))
        ratio, interval = latency_ratio(20 * np.exp(shared + times), 10 * np.exp(shared + reference))
        assert interval
        assert interval[0] <= ratio <= interval[1]
        held += interval[0] <= 2 <= interval[1]
    assert held / 300 > 0.93
    assert latency_ratio([1.0] * 5, [2.0] * 5) == (0.5, None)


def test_of_many_equal_bundles_the_best_is_not_said_to_be_better() -> None:
    """Of ten equal bundles, one or more differed significantly from the best in three of five reports."""
    rng, labels = np.random.default_rng(0), np.arange(100) >= 40
    row = read_report(Path(__file__).with_name("recorded")).rows[0]
    samples = tuple(Sample(Path(f"{number}.png"), "kind" if label else "good") for number, label in enumerate(labels))

    def differ() -> bool:
        rows, accuracies = [], []
        for number in range(10):
            scores = rng.normal(size=100) + 1.5 * labels
            metrics = replace(row.metrics, image_auroc=rank(labels, scores).auroc())
            rows.append(replace(row, bundle=f"bundle-{number}", metrics=metrics, comparison=None))
            accuracies.append(Accuracy(metrics, row.decisions, row.images, (), (), samples, tuple(map(float, scores))))
        return any(each.comparison and not each.comparison.indistinguishable for each in compare(rows, accuracies))

    assert np.mean([differ() for _ in range(60)]) < 0.1
