"""Thresholds, intervals and metrics on any data, against their definitions, SciPy and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import stats
from settings import many, some
from sklearn import metrics as sk

from edgead.binomial import at_least_as_many, interval, upper_limit
from edgead.decision import Verdict, conformal_threshold, decide, images_needed
from edgead.metrics import rank

BOUNDS = st.floats(1e-4, 0.5)
KINDS = ("normal", "exponential", "two kinds", "steps")
SCORES = st.floats(-1e6, 1e6, width=32)


@given(st.lists(SCORES, min_size=2, max_size=60), BOUNDS)
@many
def test_the_conformal_bound_holds_for_every_exchangeable_set(scores: list[float], bound: float) -> None:
    """Each of n + 1 parts in turn is the new one: no more than the bound's share of them fails. Ties included.

    That is the theorem itself, without a distribution: exchangeable means that each order is as likely.
    """
    failed, promised = 0, 0.0
    for index, score in enumerate(scores):
        fitted = conformal_threshold(scores[:index] + scores[index + 1 :], bound)
        failed += score > fitted.value
        promised = fitted.false_reject_bound
    assert failed <= promised * len(scores) + 1e-9
    assert promised == max(bound, 1 / len(scores))


@given(
    st.integers(1, 400), BOUNDS, st.sampled_from(["normal", "exponential", "two kinds", "steps"]), st.integers(0, 99)
)
@some
def test_the_bound_holds_on_simulated_lines_at_the_stated_confidence(
    normals: int, bound: float, kind: str, seed: int
) -> None:
    """Of 400 lines of one kind, at most 5 % fail more good parts than the limit, up to three standard errors."""
    rng, lines, parts = np.random.default_rng(seed), 400, 1 << 12
    draws = {
        "normal": lambda *shape: rng.normal(size=shape),
        "exponential": lambda *shape: rng.exponential(size=shape),
        "two kinds": lambda *shape: rng.normal(size=shape) + 8 * (rng.random(shape) < 0.1),
        "steps": lambda *shape: np.round(rng.normal(size=shape), 1),  # ties
    }
    new = np.sort(draws[kind](parts))
    fitted = [conformal_threshold(draws[kind](normals), bound) for _ in range(lines)]
    rates = 1 - np.searchsorted(new, [each.value for each in fitted], side="right") / parts
    limit = fitted[0].false_reject_limit
    above = np.mean(rates > limit + 3 * math.sqrt(limit * (1 - limit) / parts) + 1e-9)
    assert above <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / lines)
    error = 3 * (rates.std() / math.sqrt(lines) + math.sqrt(fitted[0].false_reject_bound / parts))
    assert rates.mean() <= fitted[0].false_reject_bound + error


@given(st.lists(SCORES, min_size=1, max_size=200), BOUNDS)
@many
def test_the_threshold_is_the_lowest_that_keeps_its_bound(scores: list[float], bound: float) -> None:
    fitted, n = conformal_threshold(scores, bound), len(scores)
    assert fitted.value in scores
    kept = n - fitted.above
    assert 1 - kept / (n + 1) <= fitted.false_reject_bound + 1e-9
    assert kept == 1 or 1 - (kept - 1) / (n + 1) > bound - 1e-9
    assert fitted.false_reject_limit == pytest.approx(stats.beta.ppf(0.95, fitted.above + 1, kept), abs=1e-6)
    average, sure = images_needed(bound)
    assert 1 / (average + 1) <= bound + 1e-9
    assert upper_limit(0, sure) <= bound + 1e-9


@given(st.integers(1, 300), st.data())
@some
def test_limits_are_scipys(trials: int, data: st.DataObject) -> None:
    failures = data.draw(st.integers(0, trials))
    exact = stats.binomtest(failures, trials).proportion_ci(0.95, "exact")
    assert interval(failures, trials) == pytest.approx((exact.low, exact.high), abs=1e-6)
    held_out = data.draw(st.integers(1, 200))
    above = data.draw(st.integers(0, held_out - 1))
    wanted = stats.betabinom.sf(failures - 1, trials, above + 1, held_out - above)
    assert at_least_as_many(failures, trials, above, held_out) == pytest.approx(wanted, abs=1e-6)


LABELLED = st.integers(2, 60).flatmap(
    lambda count: st.tuples(
        hnp.arrays(np.bool_, count),
        hnp.arrays(np.float32, count, elements=st.one_of(st.integers(-3, 3).map(float), SCORES)),
    )
)


@given(LABELLED)
@many
def test_metrics_are_scikit_learns_on_any_scores(labelled: tuple[NDArray[np.bool_], NDArray[np.float32]]) -> None:
    """Half of the scores are small whole numbers, so that many are equal."""
    labels, scores = labelled
    assume(labels.any() and not labels.all())
    ranking = rank(labels, scores)
    assert ranking.auroc() == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-9)
    assert ranking.average_precision() == pytest.approx(sk.average_precision_score(labels, scores), abs=1e-9)
    precision, recall, _ = sk.precision_recall_curve(labels, scores)
    best, threshold = ranking.f1_max()
    assert best == pytest.approx((2 * precision * recall / np.maximum(precision + recall, 1e-12)).max(), abs=1e-9)
    assert sk.f1_score(labels, scores >= threshold) == pytest.approx(best, abs=1e-9)


@given(LABELLED, st.randoms(use_true_random=False))
@some
def test_metrics_know_the_order_of_scores_alone(
    labelled: tuple[NDArray[np.bool_], NDArray[np.float32]], rng: object
) -> None:
    """Neither the order of the items nor the scale of their scores changes one."""
    labels, scores = labelled
    assume(labels.any() and not labels.all())
    order = np.random.default_rng(len(labels)).permutation(len(labels))
    places = np.unique(scores, return_inverse=True)[1].reshape(-1)
    first, second = rank(labels, scores), rank(labels[order], places[order] * 7.0 - 3)
    assert first.auroc() == pytest.approx(second.auroc(), abs=1e-12)
    assert first.average_precision() == pytest.approx(second.average_precision(), abs=1e-12)
    assert rank(~labels, -scores.astype(np.float64)).auroc() == pytest.approx(first.auroc(), abs=1e-12)


@given(st.floats(), st.floats())
@many
def test_what_is_not_finite_never_passes(score: float, threshold: float) -> None:
    verdict, reason = decide(score, threshold)
    finite = math.isfinite(score) and math.isfinite(threshold)
    assert verdict is (Verdict.UNKNOWN if not finite else Verdict.FAIL if score > threshold else Verdict.PASS)
    assert reason
