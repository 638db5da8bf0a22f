"""Detection and localisation metrics on raw scores. NumPy and OpenCV only.

Scores are ranked once; every metric is read off that ranking, with ties handled exactly (equal scores pass a
threshold together).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgead.errors import DataError
from edgead.images import Mask, cv2

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """Counts above each distinct score, from the highest score to the lowest.

    Attributes:
        thresholds: ``[T]`` the distinct scores, descending.
        true_positives: ``[T]`` anomalous items with a score at or above the threshold.
        false_positives: ``[T]`` normal items with a score at or above the threshold.
    """

    thresholds: Floats
    true_positives: Floats
    false_positives: Floats

    @property
    def recall(self) -> Floats:
        return np.asarray(self.true_positives / self.true_positives[-1])

    @property
    def false_positive_rate(self) -> Floats:
        return np.asarray(self.false_positives / self.false_positives[-1])

    @property
    def precision(self) -> Floats:
        return np.asarray(self.true_positives / (self.true_positives + self.false_positives))

    def auroc(self) -> float:
        """Area under the ROC curve, 0 to 1; 0.5 for scores without information."""
        return _area(np.append(0.0, self.false_positive_rate), np.append(0.0, self.recall))

    def average_precision(self) -> float:
        """Average precision, Σ (R_k − R_{k−1}) P_k, without interpolation."""
        return float(np.sum(np.diff(self.recall, prepend=0.0) * self.precision))

    def f1_max(self) -> tuple[float, float]:
        """The best F1 over all thresholds, and its threshold.

        It is picked on the labels that it is measured with: a figure to compare with papers, not an operating point.
        """
        f1 = 2 * self.precision * self.recall / np.maximum(self.precision + self.recall, 1e-12)
        best = int(np.argmax(f1))
        return float(f1[best]), float(self.thresholds[best])


def rank(labels: ArrayLike, scores: ArrayLike) -> Ranking:
    """Rank items by score.

    Args:
        labels: ``[N]`` bool or 0/1, True for anomalous.
        scores: ``[N]`` float, higher is more anomalous.

    Raises:
        DataError: lengths differ, a class is missing, or a score is not finite.
    """
    labels = np.asarray(labels, dtype=np.bool_).ravel()
    scores = np.asarray(scores).ravel()
    order, ends = _order(scores)
    if labels.size != scores.size:
        raise DataError(f"{labels.size} labels for {scores.size} scores.")
    if labels.all() or not labels.any():
        raise DataError("A metric needs both good and anomalous items, but there is only one kind.")
    positives = np.cumsum(labels[order])[ends].astype(np.float64)
    return Ranking(scores[order][ends].astype(np.float64), positives, (ends + 1) - positives)


def rank_correlation(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rank correlation of two lists of scores ``[N]``, −1 to 1; equal scores share the mean of their ranks.

    0 where all scores of a list are equal.
    """
    ranks = [_mean_ranks(np.asarray(each, np.float64).ravel()) for each in (first, second)]
    if any(np.ptp(each) == 0 for each in ranks):
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _mean_ranks(values: Floats) -> Floats:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[places])


def aupro(masks: Sequence[Mask], maps: Sequence[NDArray[np.float32]], fpr_limit: float = 0.3) -> float:
    """Area under the per-region-overlap curve up to a false-positive rate, divided by that rate (0 to 1).

    Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021, section 4.2: the mean, over all connected
    defect regions (8-connected), of the share of the region that is found, against the share of normal pixels
    that are flagged, over all images.

    Args:
        masks: ``(H, W) bool`` each; all False for a good image.
        maps: ``(H, W) float32`` each, of the same sizes.
        fpr_limit: where the integration stops.

    Raises:
        DataError: no defect region or no normal pixel in the masks.
    """
    weights: list[Floats] = []
    regions = 0
    for mask in masks:
        count, labels = cv2().connectedComponents(mask.astype(np.uint8), connectivity=8)
        sizes = np.bincount(labels.ravel(), minlength=count).astype(np.float64)
        share = 1.0 / np.maximum(sizes, 1.0)
        share[0] = 0.0
        weights.append(share[labels].ravel())
        regions += count - 1
    weight = np.concatenate(weights)
    normals = float(np.count_nonzero(weight == 0))
    if not regions or not normals:
        raise DataError("AUPRO needs defect regions and normal pixels in the masks.")
    order, ends = _order(np.concatenate([anomaly_map.ravel() for anomaly_map in maps]))
    ranked = weight[order]
    overlap = np.concatenate([[0.0], np.cumsum(ranked)[ends] / regions])
    fpr = np.concatenate([[0.0], np.cumsum(ranked == 0)[ends] / normals])
    beyond = int(np.searchsorted(fpr, fpr_limit))  # the first place at the limit: where the curve rises on it, its foot
    at_limit = np.interp(fpr_limit, fpr[: beyond + 1], overlap[: beyond + 1])
    return _area(np.append(fpr[:beyond], fpr_limit), np.append(overlap[:beyond], at_limit)) / fpr_limit


def _order(scores: NDArray[np.floating]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the order of descending scores, and the last place of each run of equal scores in it."""
    if not np.all(np.isfinite(scores)):
        raise DataError("Some scores are not finite; metrics cannot be computed.")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    return order, ends


def _area(x: Floats, y: Floats) -> float:
    """Area below the polyline through (x, y), x ascending."""
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))
