"""What a plant decides by: defects found at a share of good parts rejected, in all and by kind of defect."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgead import metrics
from edgead.benchmark.figures import KindFigures, OperatingPoint
from edgead.benchmark.uncertainty import auroc_interval
from edgead.binomial import interval
from edgead.datasets.category import GOOD

ALLOWED = (0.01, 0.05)
"""Shares of good test images that may be rejected."""


def operating_point(good: NDArray[np.float64], defective: NDArray[np.float64], allowed: float) -> OperatingPoint:
    """Return the decisions at the lowest threshold that rejects at most a share of the good images.

    Args:
        good, defective: scores, at least one of each.
        allowed: share of good images, 0 to 1.
    """
    most = int(np.floor(allowed * len(good) + 1e-9))
    threshold = float(np.sort(good)[::-1][most]) if most < len(good) else -np.inf
    rejected, found = int((good > threshold).sum()), int((defective > threshold).sum())
    return OperatingPoint(
        allowed=allowed,
        threshold=threshold,
        false_reject_rate=rejected / len(good),
        false_reject_interval=interval(rejected, len(good)),
        detection_rate=found / len(defective),
        detection_interval=interval(found, len(defective)),
    )


def by_kind(
    kinds: Sequence[str], scores: NDArray[np.float64], fails: Sequence[bool], points: Sequence[OperatingPoint]
) -> tuple[KindFigures, ...]:
    """Return the figures of each kind of defect, in the order of their names.

    Args:
        kinds: of each image; ``"good"`` for good ones.
        scores: of each image.
        fails: whether it fails at the bundle's own threshold.
        points: other thresholds.
    """
    names, failed = np.asarray(kinds), np.asarray(fails, bool)
    good = scores[names == GOOD]
    found = []
    for kind in sorted(set(kinds) - {GOOD}):
        own = names == kind
        labels = [False] * len(good) + [True] * int(own.sum())
        auroc = metrics.rank(labels, np.concatenate([good, scores[own]])).auroc()
        caught = int(failed[own].sum())
        found.append(
            KindFigures(
                kind=kind,
                images=int(own.sum()),
                image_auroc=auroc,
                image_auroc_interval=auroc_interval(auroc, len(good), int(own.sum())),
                detection_rate=caught / int(own.sum()),
                detection_interval=interval(caught, int(own.sum())),
                at={f"{each.allowed:g}": float((scores[own] > each.threshold).mean()) for each in points},
            )
        )
    return tuple(found)
