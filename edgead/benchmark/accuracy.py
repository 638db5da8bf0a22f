"""Accuracy of one bundle on one category, through the same `inspect` that runs beside the line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead import metrics
from edgead.benchmark.promise import check_promise
from edgead.binomial import interval
from edgead.console import Console
from edgead.datasets import Category, Sample, read_labelled_mask
from edgead.decision import Verdict
from edgead.errors import DataError
from edgead.images import Frame, Mask, cv2, draw_overlay, read_frame
from edgead.runtime.inspector import Inspector

METRICS = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1_max": "image F1-max",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_f1_max": "pixel F1-max",
    "aupro": "AUPRO 30 %",
}
"""JSON name ↦ title of every metric, in the order of the tables."""
OWN_THRESHOLD = {"false_reject": "good rejected", "detection": "defects found"}
"""JSON name, without ``_rate`` and ``_interval``, ↦ title of what the bundle's own threshold does."""
FPR_LIMIT = 0.3
"""Where AUPRO stops integrating."""
SHOWN_MISSES = 4
"""Pictures of wrongly ranked images of each kind in the report."""


@dataclass(frozen=True)
class Miss:
    """A defective image with a low score, or a good one with a high score. `picture` is the overlay."""

    sample: Sample
    score: float
    picture: Frame


@dataclass(frozen=True)
class Accuracy:
    """Metrics of one bundle on one category, as JSON values, and its worst misses."""

    values: dict[str, Any]
    misses: tuple[Miss, ...]


def measure_accuracy(inspector: Inspector, category: Category, pixel_size: int, console: Console) -> Accuracy:
    """Inspect every labelled image and compute the metrics.

    Pixel metrics are computed at `pixel_size` × `pixel_size`, whatever the model's own size is, so that models can be
    compared: maps are resized bilinearly, masks by nearest neighbour. A defective image without a mask, or with an
    empty one, counts for the image metrics only.

    Raises:
        DataError: no labelled images, a class missing, or a mask that does not fit its image.
    """
    if not category.labelled():
        raise DataError(f"{category.root} has no labelled test images (test/good, test/KIND); nothing can be measured.")
    labels: list[bool] = []
    scores: list[float] = []
    verdicts: list[Verdict] = []
    masks: list[Mask] = []
    maps: list[NDArray[np.float32]] = []
    samples: list[Sample] = []
    skipped: list[str] = []
    size = (pixel_size, pixel_size)
    for sample in console.track(f"inspecting {category.name}")(category.test):
        try:
            frame = read_frame(sample.path, inspector.pixels)
        except DataError as error:
            skipped.append(str(error))
            continue
        mask = read_labelled_mask(sample, (frame.shape[0], frame.shape[1]), size)
        result = inspector.inspect(frame)
        samples.append(sample)
        labels.append(sample.anomalous)
        scores.append(result.score)
        verdicts.append(result.verdict)
        if mask is not None and result.anomaly_map is not None and (mask.any() or not sample.anomalous):
            masks.append(mask)
            maps.append(cv2().resize(result.anomaly_map, size, interpolation=cv2().INTER_LINEAR))
    for line in skipped:
        console.say(f"Warning: skipped: {line}")
    ranking = metrics.rank(labels, scores)
    good, bad = labels.count(False), labels.count(True)
    false_rejects = sum(verdict is Verdict.FAIL and not label for verdict, label in zip(verdicts, labels))
    found = sum(verdict is Verdict.FAIL and label for verdict, label in zip(verdicts, labels))
    values: dict[str, Any] = {
        "image_auroc": ranking.auroc(),
        "image_ap": ranking.average_precision(),
        "image_f1_max": ranking.f1_max()[0],
        **_pixel_metrics(masks, maps),
        "false_reject_rate": false_rejects / good,
        "false_reject_interval": list(interval(false_rejects, good)),
        "detection_rate": found / bad,
        "detection_interval": list(interval(found, bad)),
        "promise": check_promise(inspector.bundle.manifest.threshold.rule, false_rejects, good),
        "images": {"good": good, "defective": bad, "with_mask": len(masks) - good, "skipped": len(skipped)},
    }
    return Accuracy(values, _worst(inspector, samples, scores))


def share_with_interval(row: dict[str, Any], name: str) -> str:
    """Format a share of a row in percent, with its 95 % interval: ``50.0 (23–77)``; a dash in a row without it."""
    if f"{name}_rate" not in row:
        return "–"
    low, high = row[f"{name}_interval"]
    return f"{100 * row[f'{name}_rate']:.1f} ({100 * low:.0f}–{100 * high:.0f})"


def _pixel_metrics(masks: Sequence[Mask], maps: Sequence[NDArray[np.float32]]) -> dict[str, float | None]:
    if not any(mask.any() for mask in masks):
        return dict.fromkeys(("pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro"))
    pixels = metrics.rank(
        np.concatenate([mask.ravel() for mask in masks]), np.concatenate([anomaly_map.ravel() for anomaly_map in maps])
    )
    return {
        "pixel_auroc": pixels.auroc(),
        "pixel_ap": pixels.average_precision(),
        "pixel_f1_max": pixels.f1_max()[0],
        "aupro": metrics.aupro(masks, maps, FPR_LIMIT),
    }


def _worst(inspector: Inspector, samples: Sequence[Sample], scores: Sequence[float]) -> tuple[Miss, ...]:
    """The defective images with the lowest scores, then the good ones with the highest."""
    order = np.argsort(scores, kind="stable")
    low = [index for index in order if samples[index].anomalous][:SHOWN_MISSES]
    high = [index for index in order[::-1] if not samples[index].anomalous][:SHOWN_MISSES]
    misses = []
    for index in [*low, *high]:
        frame = read_frame(samples[index].path, inspector.pixels)
        result = inspector.inspect(frame)
        assert result.anomaly_map is not None
        picture = draw_overlay(frame, result.anomaly_map, result.mask, 2 * result.mask_threshold)
        misses.append(Miss(samples[index], scores[index], picture))
    return tuple(misses)
