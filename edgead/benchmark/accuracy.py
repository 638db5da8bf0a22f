"""Accuracy of one bundle on one category, with the same `inspect` call as on the line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgead import metrics
from edgead.benchmark.figures import KindFigures
from edgead.benchmark.operating import ALLOWED, by_kind, operating_point
from edgead.benchmark.promise import check_promise
from edgead.benchmark.report import Decisions, ImageCounts, Metrics
from edgead.benchmark.uncertainty import auroc_interval
from edgead.binomial import interval
from edgead.bundle.manifest import StoredThreshold
from edgead.console import Console
from edgead.datasets import Category, Sample, read_labelled_mask
from edgead.datasets.category import GOOD
from edgead.decision import Verdict
from edgead.errors import DataError
from edgead.images import Frame, Mask, read_frame
from edgead.masks import spread_map
from edgead.runtime.inspector import Inspector
from edgead.text import percent

FPR_LIMIT = 0.3
"""False-positive rate up to which AUPRO integrates."""
MOST_DEFECT = 0.5
"""Share of the pixels that half of the masks may mark, before they look inverted."""
SHOWN_MISSES = 4
"""Overlays of misses of each kind in the report."""


@dataclass(frozen=True)
class Miss:
    """A defective image with a low score, or a good image with a high score. `picture` is its overlay."""

    sample: Sample
    score: float
    picture: Frame


@dataclass(frozen=True)
class Accuracy:
    """Figures of one bundle on one category, its worst misses, and the scores of the readable images."""

    metrics: Metrics
    decisions: Decisions
    images: ImageCounts
    kinds: tuple[KindFigures, ...]
    misses: tuple[Miss, ...]
    samples: tuple[Sample, ...]
    scores: tuple[float, ...]


@dataclass
class _Inspected:
    """Results of the labelled images, one entry per readable image.

    `masks` and `maps`, resized for the pixel metrics, have no entry for defective images without a mask.
    """

    samples: list[Sample] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    fails: list[bool] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    maps: list[NDArray[np.float32]] = field(default_factory=list)
    skipped: int = 0

    @property
    def labels(self) -> list[bool]:
        return [sample.anomalous for sample in self.samples]


def measure_accuracy(inspector: Inspector, category: Category, pixel_size: int, console: Console) -> Accuracy:
    """Inspect every labelled image and compute the metrics.

    For comparable models, pixel metrics are computed at `pixel_size` × `pixel_size` pixels: maps are resized
    bilinearly, masks by nearest neighbour. A defective image without a mask, or with an empty one, counts for the image
    metrics only.

    Raises:
        DataError: no labelled images, no good or no defective ones, a mask with another size than its image, or a score
            or map that is not finite.
    """
    if not category.labelled():
        raise DataError(f"{category.root} has no labelled test images (test/good, test/KIND).")
    found = _inspect(inspector, category, pixel_size, console)
    good = found.labels.count(False)
    for label, missing, place in ((False, "good", GOOD), (True, "defective", "KIND")):
        if label not in found.labels:
            raise DataError(
                f"{category.root} has no readable {missing} test images (test/{place}), which a benchmark needs."
            )
    decisions = _count_decisions(inspector.bundle.manifest.threshold, found)
    kinds = [sample.kind for sample in found.samples]
    return Accuracy(
        metrics=_compute_metrics(found),
        decisions=decisions,
        images=ImageCounts(good, len(found.labels) - good, len(found.masks) - good, found.skipped),
        kinds=by_kind(kinds, np.asarray(found.scores), found.fails, decisions.operating_points or ()),
        misses=_worst(inspector, found.samples, found.scores),
        samples=tuple(found.samples),
        scores=tuple(found.scores),
    )


def _inspect(inspector: Inspector, category: Category, pixel_size: int, console: Console) -> _Inspected:
    found, size = _Inspected(), (pixel_size, pixel_size)
    unreadable, shares = [], []
    for sample in console.track(f"inspecting {category.name}")(category.test):
        try:
            frame = read_frame(sample.path, inspector.pixels)
        except DataError as error:
            unreadable.append(str(error))
            continue
        mask = read_labelled_mask(sample, (frame.shape[0], frame.shape[1]), size)
        if mask is not None and sample.anomalous:
            shares.append(float(mask.mean()))
        result = inspector.inspect(frame)
        if result.cause == "misplaced":  # it has no score
            unreadable.append(f"{sample.path}: {result.reason}")
            continue
        if result.cause == "score":  # left out, the figures would be those of another model
            raise DataError(f"{sample.path}: {result.reason}. No figures can be computed with it.")
        found.samples.append(sample)
        found.scores.append(result.score)
        found.fails.append(result.verdict is Verdict.FAIL)
        if mask is not None and result.anomaly_map is not None and (mask.any() or not sample.anomalous):
            found.masks.append(mask)
            found.maps.append(spread_map(result.anomaly_map, result.geometry, result.frame_size, size))
    found.skipped = len(unreadable)
    for line in unreadable:
        console.say(f"Warning: skipped: {line}")
    _doubt_masks(shares, category.name, pixel_size, console)
    return found


def _doubt_masks(shares: Sequence[float], name: str, pixel_size: int, console: Console) -> None:
    """Warn of masks without a defect, and of those that say good and defective the other way round.

    Args:
        shares: of the pixels that the mask of each defective image marks.
        name: of the category.
        pixel_size: of the masks.
        console: shows the warnings.
    """
    if empty := sum(not share for share in shares):
        console.say(
            f"Warning: the masks of {empty} defective images of {name} are empty at --pixel-size {pixel_size}; these "
            "images count for the image metrics only."
        )
    if shares and np.median(shares) > MOST_DEFECT:
        console.say(
            f"Warning: the masks of {name} mark {percent(float(np.median(shares)), 0)}% of the pixels as defective. "
            "Zero must mean good in them; otherwise the pixel metrics are wrong."
        )


def _compute_metrics(found: _Inspected) -> Metrics:
    ranking, defective = metrics.rank(found.labels, found.scores), found.labels.count(True)
    auroc = ranking.auroc()
    return Metrics(
        auroc,
        ranking.average_precision(),
        ranking.f1_max()[0],
        *_pixel_metrics(found.masks, found.maps),
        image_auroc_interval=auroc_interval(auroc, len(found.labels) - defective, defective),
    )


def _pixel_metrics(
    masks: Sequence[Mask], maps: Sequence[NDArray[np.float32]]
) -> tuple[float | None, float | None, float | None, float | None]:
    """AUROC, AP, F1-max and AUPRO."""
    if not any(mask.any() for mask in masks):
        return None, None, None, None
    pixels = metrics.rank(
        np.concatenate([mask.ravel() for mask in masks]), np.concatenate([anomaly_map.ravel() for anomaly_map in maps])
    )
    return pixels.auroc(), pixels.average_precision(), pixels.f1_max()[0], metrics.aupro(masks, maps, FPR_LIMIT)


def _count_decisions(threshold: StoredThreshold, found: _Inspected) -> Decisions:
    scores, wrong = np.asarray(found.scores, np.float64), np.asarray(found.labels)
    good, bad = found.labels.count(False), found.labels.count(True)
    rejected = sum(fail and not label for fail, label in zip(found.fails, found.labels))
    detected = sum(fail and label for fail, label in zip(found.fails, found.labels))
    return Decisions(
        false_reject_rate=rejected / good,
        false_reject_interval=interval(rejected, good),
        detection_rate=detected / bad,
        detection_interval=interval(detected, bad),
        promise=check_promise(threshold.rule, rejected, good, threshold.scores),
        operating_points=tuple(operating_point(scores[~wrong], scores[wrong], each) for each in ALLOWED),
    )


def _worst(inspector: Inspector, samples: Sequence[Sample], scores: Sequence[float]) -> tuple[Miss, ...]:
    """Return the defective images with the lowest scores, then the good images with the highest."""
    order = np.argsort(scores, kind="stable")
    low = [index for index in order if samples[index].anomalous][:SHOWN_MISSES]
    high = [index for index in order[::-1] if not samples[index].anomalous][:SHOWN_MISSES]
    misses = []
    for index in [*low, *high]:
        frame = read_frame(samples[index].path, inspector.pixels)
        misses.append(Miss(samples[index], scores[index], inspector.inspect(frame).overlay()))
    return tuple(misses)
