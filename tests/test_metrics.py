"""Metrics against independent implementations: scikit-learn, and AUPRO by its definition, threshold by threshold."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage, stats
from sklearn import metrics as sk

from edgead.errors import DataError
from edgead.metrics import aupro, rank, rank_correlation


@pytest.mark.parametrize("decimals", [8, 1])  # with one decimal most scores are tied
def test_ranking_metrics_equal_scikit_learn(decimals: int) -> None:
    rng = np.random.default_rng(1)
    labels = rng.random(500) < 0.3
    scores = np.round(rng.normal(labels * 1.2, 1.0), decimals).astype(np.float32)
    ranking = rank(labels, scores)
    assert ranking.auroc() == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-12)
    assert ranking.average_precision() == pytest.approx(sk.average_precision_score(labels, scores), abs=1e-12)
    precision, recall, thresholds = sk.precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best, threshold = ranking.f1_max()
    assert best == pytest.approx(f1.max(), abs=1e-12)
    assert sk.f1_score(labels, scores >= threshold) == pytest.approx(best, abs=1e-12)
    assert threshold in thresholds


def test_constant_scores_say_nothing() -> None:
    assert rank([0, 1, 1, 0], [2.0, 2.0, 2.0, 2.0]).auroc() == 0.5


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 0], [1.0, 2.0], "only one kind"),
        ([1, 1], [1.0, 2.0], "only one kind"),
        ([0, 1], [1.0, np.nan], "not finite"),
        ([0, 1, 1], [1.0, 2.0], "3 labels for 2 scores"),
    ],
)
def test_nonsense_is_refused(labels: list[int], scores: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        rank(labels, scores)


def aupro_by_definition(masks: list[NDArray[np.bool_]], maps: list[NDArray[np.float32]], limit: float) -> float:
    """Go through every threshold; at each, average the overlap over regions and integrate up to the limit."""
    thresholds = np.unique(np.concatenate([anomaly_map.ravel() for anomaly_map in maps]))[::-1]
    curve = [(0.0, 0.0)]
    normals = sum(int((~mask).sum()) for mask in masks)
    for threshold in thresholds:
        overlaps, false = [], 0
        for mask, anomaly_map in zip(masks, maps):
            found = anomaly_map >= threshold
            regions, count = ndimage.label(mask, structure=np.ones((3, 3)))
            overlaps += [float(found[regions == region].mean()) for region in range(1, count + 1)]
            false += int((found & ~mask).sum())
        curve.append((false / normals, float(np.mean(overlaps))))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x0 >= limit:
            break
        if x1 > limit:
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            x1 = limit
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


@pytest.mark.parametrize("levels", [6, 200])
def test_aupro_equals_its_definition(levels: int) -> None:
    rng = np.random.default_rng(levels)
    masks = [np.zeros((24, 24), np.bool_) for _ in range(4)]
    masks[1][3:9, 4:8] = True
    masks[1][15:18, 15:22] = True
    masks[2][10:12, 0:24] = True
    masks[2][12, 23] = True  # touches by a corner and a side: one region
    masks[2][20, 5], masks[2][21, 6] = True, True  # touch by a corner: one region with 8-connectivity
    maps = [np.round((rng.random((24, 24)) + 0.4 * mask) * levels).astype(np.float32) for mask in masks]
    for limit in (0.3, 0.05, 1.0):
        assert aupro(masks, maps, limit) == pytest.approx(aupro_by_definition(masks, maps, limit), abs=1e-9)


def test_aupro_ends_at_the_foot_of_a_rise_on_the_limit() -> None:
    mask = np.arange(14)[None] >= 10
    anomaly_map = np.array([[9, 8, 7, 0, 0, 0, 0, 0, 0, 0, 8.5, 6, 5, 4]], np.float32)  # 3 of 10 normal pixels, then 3
    assert aupro([mask], [anomaly_map]) == pytest.approx(aupro_by_definition([mask], [anomaly_map], 0.3), abs=1e-12)


def test_aupro_of_a_perfect_map_is_one_and_needs_regions() -> None:
    mask = np.zeros((16, 16), np.bool_)
    mask[4:8, 4:8] = True
    assert aupro([mask], [mask.astype(np.float32)]) == pytest.approx(1.0)
    with pytest.raises(DataError, match="regions"):
        aupro([np.zeros((4, 4), np.bool_)], [np.zeros((4, 4), np.float32)])


def test_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(5)
    for _ in range(5):
        first = rng.integers(0, 9, 40)  # with ties
        second = first + rng.normal(0, 3, 40)
        expected = stats.spearmanr(first, second).statistic
        assert rank_correlation(first, second) == pytest.approx(expected, abs=1e-12)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) == 0.0
