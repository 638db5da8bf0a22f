"""What a manifest says of a lower precision: its calibration, and what the gate measured. See docs/precision.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgead.schema import Count, left_out, stored_as

SHOWN_LAYERS = 5
"""Layers in the one-line summary of a sensitivity table."""


@dataclass(frozen=True)
class CalibrationRecord:
    """Calibration of a lower precision. `source` of the images: ``training``, ``folder`` or ``threshold``."""

    method: str
    images: Count
    source: str
    fingerprint: str

    def describe(self) -> str:
        """Describe it in half a line."""
        return f"{self.method} on {self.images} good images ({self.source})"


@dataclass(frozen=True)
class BudgetRecord:
    """Limits of the gate, see `edgead.export.options.Budget`."""

    auroc_drop: float
    flips: float


@dataclass(frozen=True)
class VariantRecord:
    """Measurements of one variant of the graph in the gate, see docs/precision.md. None: not finite.

    Attributes:
        score_error, map_error: largest absolute difference from float32.
        map_rms_error: root mean square of the map's differences.
        frames, settled: number of frames, and of frames with a settled verdict.
        flips: share of frames with a settled verdict that changed; counts by kind in `flips_of_normals` and
            `flips_of_synthetic_anomalies`.
        borderline_flips: number of changed borderline verdicts.
        synthetic_auroc_drop, image_auroc_drop, aupro_drop: losses against float32; the last two on labelled images.
        image_auroc, aupro: on labelled images.
        rank_loss: by how much the rank correlation with float32 is below 1, over scores of perturbed good images.
    """

    score_error: float | None
    map_error: float | None
    map_rms_error: float | None
    frames: Count
    settled: Count
    flips: float | None
    flips_of_normals: Count
    flips_of_synthetic_anomalies: Count
    borderline_flips: Count
    synthetic_auroc_drop: float | None
    image_auroc: float | None = left_out()
    aupro: float | None = left_out()
    image_auroc_drop: float | None = left_out()
    aupro_drop: float | None = left_out()
    rank_loss: float | None = left_out()


@dataclass(frozen=True)
class LayerRecord:
    """Errors of scores and maps with only this layer lowered. None: not finite."""

    layer: str
    score_error: float | None
    map_error: float | None


@dataclass(frozen=True, kw_only=True)
class AttemptRecord:
    """One attempt at the gate, with the number of layers kept in float32."""

    kept_in_float32: Count = stored_as("handed_back")
    failures: tuple[str, ...]
    variants: dict[str, VariantRecord] = stored_as("forms")


@dataclass(frozen=True)
class GateRecord:
    """Result of the gate for a lower precision, and its speed.

    If ``auto`` selected float32, which needs no gate, all fields but the last two are None.
    """

    budget: BudgetRecord | None = left_out()
    held_out_normals: Count | None = left_out()
    synthetic_anomalies: Count | None = left_out()
    labelled_images: Count | None = left_out()
    variants: dict[str, VariantRecord] | None = left_out("forms")
    layers: Count | None = left_out()
    kept_in_float32: tuple[str, ...] | None = left_out("handed_back")
    sensitivity: tuple[LayerRecord, ...] | None = left_out()
    attempts: tuple[AttemptRecord, ...] | None = left_out()
    milliseconds_here: dict[str, dict[str, float]] | None = left_out()
    failed_here: dict[str, dict[str, str]] | None = left_out()

    def describe(self) -> str:
        """Describe the result of the worst variant in one line; empty if no gate ran."""
        if not self.variants:
            return ""
        variants = self.variants.values()
        frames, settled = min(each.frames for each in variants), min(each.settled for each in variants)
        flips = max(each.flips_of_normals + each.flips_of_synthetic_anomalies for each in variants)
        borderline = max(each.borderline_flips for each in variants)
        drops = [each.image_auroc_drop for each in variants if each.image_auroc_drop is not None]
        labelled = (
            f"AUROC drops by {max(drops):.4f} on {self.labelled_images} labelled images" if drops else "no labels"
        )
        return (
            f"passed with {len(self.kept_in_float32 or ())} of {self.layers} layers in float32; {flips} of {settled} "
            f"settled verdicts and {borderline} of {frames - settled} borderline ones change; {labelled}"
        )


def describe_sensitivity(table: Sequence[LayerRecord]) -> str:
    """List the most sensitive layers in one line, with the errors of score and map."""

    def figure(error: float | None) -> str:
        return "not finite" if error is None or not np.isfinite(error) else f"{error:.2g}"

    rows = table[:SHOWN_LAYERS]
    worst = ", ".join(f"{row.layer} {figure(row.score_error)} / {figure(row.map_error)}" for row in rows)
    return f"{worst} (error of score / map, each layer lowered alone; {len(table)} layers in the manifest)"
