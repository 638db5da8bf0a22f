"""What a threshold promises against what labelled good images show."""

from __future__ import annotations

import numpy as np
import pytest

from edgead.benchmark.promise import check_promise
from edgead.bundle.manifest import StoredThreshold
from edgead.decision import Threshold, conformal_threshold
from edgead.review.proposal import moved


def test_seven_of_fourteen_contradict_a_promise_from_six() -> None:
    found = check_promise(conformal_threshold(np.arange(6.0)), 7, 14)
    assert found is not None
    assert "7 of 14" in found.warning
    assert "14.29% on average" in found.warning
    assert found.probability == pytest.approx(0.0443, abs=1e-3)


@pytest.mark.parametrize(("held_out", "failed", "good"), [(6, 4, 14), (6, 0, 14), (99, 3, 100), (999, 1, 40)])
def test_what_chance_explains_is_no_warning(held_out: int, failed: int, good: int) -> None:
    found = check_promise(conformal_threshold(np.arange(float(held_out))), failed, good)
    assert found is not None
    assert not found.warning
    assert found.average <= found.limit


def test_far_fewer_than_likely_are_named_too() -> None:
    found = check_promise(conformal_threshold(np.arange(199.0), 0.1), 0, 200)
    assert found is not None
    assert found.warning.startswith("Only 0 of 200")


def test_few_rejects_of_a_threshold_that_a_review_has_raised_are_no_surprise() -> None:
    """The images were said to differ from the held-out ones, and a lower threshold was advised."""
    scores = tuple(np.arange(199.0))
    first = StoredThreshold.of(conformal_threshold(scores, 0.1), scores)
    raised, lowered = moved(first, 300.0), moved(first, 100.0)
    warned = [check_promise(each.rule, 0, 200, each.scores) for each in (first, raised, lowered)]
    assert [bool(found and found.warning) for found in warned] == [True, False, True]
    many = check_promise(raised.rule, 60, 200, raised.scores)
    assert many is not None
    assert many.warning.startswith("60 of 200")


@pytest.mark.parametrize("value", [10.0, 9.5, 9.0])
def test_a_threshold_above_all_held_out_scores_promises_no_rejects(value: float) -> None:
    """Of few held-out images none is above the first threshold either, so that the review was not noticed."""
    scores = tuple(np.arange(10.0))
    raised = moved(StoredThreshold.of(conformal_threshold(scores), scores), value)
    found = check_promise(raised.rule, 0, 300, raised.scores)
    assert found is not None
    assert bool(found.warning) == (value == 9.0)


def test_warnings_come_by_chance_as_often_as_they_may() -> None:
    """Where all images are alike, each side is warned of in at most one of twenty."""
    rng = np.random.default_rng(0)
    warned = []
    for _ in range(600):
        scores, new = rng.normal(size=50), rng.normal(size=80)
        threshold = conformal_threshold(scores, 0.1)
        found = check_promise(threshold, int((new > threshold.value).sum()), 80)
        assert found is not None
        warned.append(bool(found.warning))
    assert 0.02 < np.mean(warned) < 0.1


def test_an_imported_threshold_promises_nothing() -> None:
    assert check_promise(Threshold(1.0, 0, 1.0, 1.0), 5, 5) is None
