"""Thresholds from good parts, and verdicts."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from edgead.decision import Verdict, conformal_threshold, decide
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
    assert "at least 99 held-out images" in threshold.describe()


def test_enough_normals_keep_the_requested_bound() -> None:
    threshold = conformal_threshold(np.arange(1, 100), 0.01)
    assert threshold.value == 99
    assert threshold.false_reject_bound == 0.01
    assert conformal_threshold(np.arange(1, 200), 0.01).value == 198
    assert "asked for" not in threshold.describe()


@pytest.mark.parametrize(("scores", "bound"), [([], 0.01), ([math.nan], 0.01), ([1.0], 0.0), ([1.0], 1.0)])
def test_nonsense_is_refused(scores: list[float], bound: float) -> None:
    with pytest.raises(DataError):
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
