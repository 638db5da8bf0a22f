"""Thresholds from good parts, and verdicts."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy import stats

from edgead import schema
from edgead.binomial import at_least_as_many, interval, upper_limit
from edgead.bundle.manifest import StoredThreshold
from edgead.decision import Threshold, Verdict, conformal_threshold, decide, images_needed
from edgead.errors import DataError


def test_the_stated_bound_holds_on_average() -> None:
    """Over many draws of 99 normals, new normals exceed the threshold about as often as stated."""
    rng = np.random.default_rng(0)
    rejected = [
        np.mean(rng.normal(size=2000) > conformal_threshold(rng.normal(size=99), 0.05).value) for _ in range(400)
    ]
    assert 0.045 < np.mean(rejected) < 0.055


def test_few_normals_state_the_bound_they_support() -> None:
    threshold = conformal_threshold([0.3, 0.1, 0.2], 0.01)
    assert threshold.value == 0.3
    assert threshold.false_reject_bound == 0.25
    assert threshold.requested_bound == 0.01
    assert "Requested: 10, which needs at least 99 held-out images" in threshold.describe()
    for bound, of in ((0.001, "1"), (1e-4, "100 of 1,000,000"), (2e-7, "200 of 1,000,000,000"), (1e-12, "1 of 1,000")):
        assert f"Requested: {of}" in conformal_threshold([0.3], bound).describe()


def test_enough_normals_keep_the_requested_bound() -> None:
    threshold = conformal_threshold(np.arange(1, 100), 0.01)
    assert threshold.value == 99
    assert threshold.false_reject_bound == 0.01
    assert conformal_threshold(np.arange(1, 200), 0.01).value == 198
    assert "Requested" not in threshold.describe()
    assert "that the model may have been trained on" not in threshold.describe()
    assert "999 good images that the model may have been trained on" in conformal_threshold(
        np.arange(999), 0.001
    ).describe(unseen=False)


@pytest.mark.parametrize(("normals", "bound"), [(6, 0.01), (99, 0.05), (250, 0.02)])
def test_the_limit_holds_for_nineteen_of_twenty_sets_of_normals(normals: int, bound: float) -> None:
    """A set's true false-reject rate is exact for uniform scores: 1 − threshold. No limit would be as tight."""
    rng = np.random.default_rng(1)
    fitted = [conformal_threshold(rng.random(normals), bound) for _ in range(4000)]
    limit = fitted[0].false_reject_limit
    rates = np.array([1 - threshold.value for threshold in fitted])
    assert abs(np.mean(rates <= limit) - 0.95) < 0.012
    assert rates.mean() <= fitted[0].false_reject_bound + 0.003
    assert fitted[0].above == normals - np.sum(np.arange(1, normals + 1) <= _rank_of(normals, bound))


def _rank_of(normals: int, bound: float) -> float:
    """Where the threshold stands among the scores 1, 2, …"""
    return conformal_threshold(np.arange(1, normals + 1), bound).value


def test_limits_and_intervals_are_clopper_and_pearsons() -> None:
    # R: binom.test(0, 6, alternative="less"), binom.test(7, 14), binom.test(10, 1000)
    assert upper_limit(0, 6) == pytest.approx(0.3930378, abs=1e-6)
    assert interval(7, 14) == pytest.approx((0.2303605, 0.7696395), abs=1e-6)
    assert interval(10, 1000) == pytest.approx((0.004806, 0.018312), abs=1e-5)
    assert interval(0, 5)[0] == 0
    assert interval(5, 5)[1] == 1
    rng = np.random.default_rng(2)
    covered = [low <= 0.3 <= high for low, high in (interval(int(rng.binomial(40, 0.3)), 40) for _ in range(2000))]
    assert 0.95 <= np.mean(covered) < 0.98


def test_limits_of_any_size_are_quick() -> None:
    """A manifest may claim a million images: with a term for each, this test would take minutes."""
    assert upper_limit(500_000, 1_000_000) == pytest.approx(stats.beta.ppf(0.95, 500_001, 500_000), abs=1e-9)
    assert upper_limit(999_999, 1_000_000) == pytest.approx(stats.beta.ppf(0.95, 1_000_000, 1), abs=1e-12)
    assert upper_limit(10, 1_000_000) == pytest.approx(stats.beta.ppf(0.95, 11, 999_990), rel=1e-6)


def test_counts_above_a_limit_that_other_images_set() -> None:
    """Seven of fourteen above the highest of six: all seven highest of twenty are new, by counting orders."""
    exact = math.prod((14 - i) / (20 - i) for i in range(7))
    assert at_least_as_many(7, 14, 0, 6) == pytest.approx(exact)
    assert at_least_as_many(0, 14, 0, 6) == pytest.approx(1)
    rng = np.random.default_rng(3)
    scores = rng.random((20000, 29))
    limits = np.sort(scores[:, :19], axis=1)[:, 16]  # two of nineteen lie above
    counts = (scores[:, 19:] > limits[:, None]).sum(axis=1)
    assert at_least_as_many(4, 10, 2, 19) == pytest.approx(np.mean(counts >= 4), abs=0.01)


def test_a_promise_is_told_in_parts_with_its_condition() -> None:
    six = conformal_threshold([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 0.01).describe()
    assert "out of 1,000 good parts at most 143 fail on average" in six
    assert "with 95% confidence, at most 394" in six
    assert "same part, camera and light" in six
    assert "Requested: 10, which needs at least 99 held-out images on average, 299 with 95% confidence" in six
    assert "out of 1,000 good parts at most 1 fail" in conformal_threshold(np.arange(999), 0.001).describe()
    assert "1,000,000 good parts at most 100 fail" in conformal_threshold(np.arange(20000.0), 1e-4).describe()
    imported = Threshold(1.0, 0, 1.0, 1.0)
    assert "unknown" in imported.describe()
    assert (imported.false_reject_limit, StoredThreshold.of(imported).condition) == (1.0, "")
    assert "same part, camera and light" in str(StoredThreshold.of(conformal_threshold([0.1, 0.2])).condition)
    assert conformal_threshold([0.1, 0.2]).requested_bound == 0.01
    sure = images_needed(0.01)[1]
    assert upper_limit(0, sure) <= 0.01 < upper_limit(0, sure - 1)


def test_thresholds_of_older_manifests_promise_the_same() -> None:
    fitted = conformal_threshold(np.arange(30.0), 0.1)
    old = dataclasses.asdict(fitted)
    assert schema.read(StoredThreshold, {**old, "scores": [], "unknown": 1}).describe() == fitted.describe()
    assert fitted.false_reject_limit == pytest.approx(upper_limit(fitted.above, 30))


@pytest.mark.parametrize(
    ("scores", "bound", "message"),
    [
        ([], 0.01, "at least one held-out good image"),
        ([math.nan], 0.01, "not finite"),
        ([1.0], 0.0, "must lie between 0 and 1, not 0"),
        ([1.0], 1.0, "must lie between 0 and 1, not 1"),
        ([1.0], 1e-310, "not 1e-310; 1e-12 is the least"),
    ],
)
def test_nonsense_is_refused(scores: list[float], bound: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        conformal_threshold(scores, bound)


def test_verdicts() -> None:
    assert decide(0.5, 0.5)[0] is Verdict.PASS
    assert decide(0.51, 0.5)[0] is Verdict.FAIL
    assert decide(math.nan, 0.5)[0] is Verdict.UNKNOWN
    assert decide(math.inf, 0.5)[0] is Verdict.UNKNOWN
    for threshold in (math.nan, math.inf, -math.inf):
        assert decide(0.5, threshold)[0] is Verdict.UNKNOWN


def test_a_verdict_prints_as_its_word_on_every_python() -> None:
    assert f"{Verdict.FAIL} {Verdict.FAIL!s:>5}|" == "FAIL  FAIL|"
    assert str(Verdict.PASS) == format(Verdict.PASS) == Verdict.PASS == "PASS"
    assert f"{Verdict.PASS:<8}" == "PASS    "
    assert json.dumps(Verdict.UNKNOWN) == '"UNKNOWN"'
