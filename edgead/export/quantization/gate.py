"""The accuracy gate: compare verdicts of a lower-precision graph, in every variant, with those of float32."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgead import metrics
from edgead.bundle import Outputs
from edgead.bundle.gate_record import VariantRecord
from edgead.console import Console
from edgead.datasets import Category, read_labelled_mask
from edgead.datasets.frames import allocate
from edgead.decision import Threshold, conformal_threshold
from edgead.errors import DataError, MisplacedError
from edgead.export.inference import run_singly
from edgead.export.options import Budget
from edgead.export.quantization.perturb import perturb
from edgead.geometry import STRETCH, Geometry
from edgead.geometry.alignment import locate
from edgead.geometry.tiling import Tiling
from edgead.images import Mask, PixelFormat, fit_frame, read_frame
from edgead.masks import spread_map
from edgead.runtime.engines import Engine
from edgead.runtime.engines.tiled import with_tiles

PIXEL_SIZE = 256
"""Side of masks and maps for AUPRO in pixels, as in `edgead benchmark`."""
ROUNDING = 1e-9
BORDERLINE_SHARE = 0.02
"""Share of the frames (at least one frame) with a borderline verdict that may change. One outlier among the held-out
images makes many verdicts borderline; this limits the effect."""
PERTURB_SEED, PERTURBED = 0xFA1, 40
"""Good images, taken a little differently, that a graph must rank as the reference does."""
RANK_LOSS = 20
"""Allowed loss of rank correlation there, in units of the allowed loss of AUROC. Reasons: docs/adr/0057."""


@dataclass(frozen=True)
class Labelled:
    """Labelled images, fitted to the model's canvas each by one of `geometries`, and their (height, width) before.

    Masks are ``PIXEL_SIZE`` square, of the whole image; None for images without one.
    """

    frames: NDArray[np.uint8]
    anomalous: NDArray[np.bool_]
    masks: Sequence[Mask | None]
    geometries: Sequence[Geometry] = ()
    frame_sizes: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True)
class Judgement:
    """Result of the gate.

    Attributes:
        variants: name of a variant ↦ its measures, which may be infinite or NaN.
        failures: one line per exceeded limit; empty if the gate is passed.
        threshold: fitted to the highest score of each held-out image over all variants, so that its bound holds for
            all of them.
        scores, map_maxima: these scores and the map maxima, one per held-out image.
    """

    variants: dict[str, VariantRecord]
    failures: list[str]
    threshold: Threshold
    scores: NDArray[np.float32]
    map_maxima: NDArray[np.float32]

    @property
    def passed(self) -> bool:
        return not self.failures

    def worst(self, name: str) -> float:
        """Return the largest value of a measure over all variants."""
        return float(np.max([getattr(measures, name) for measures in self.variants.values()]))


class Gate:
    """Compares engines with a reference on held-out normals, synthetic anomalies, and labelled data if there is any.

    Verdicts on clear anomalies hardly change before a graph is ruined, so ranks of perturbed good images count too.

    Args:
        reference: runs the float32 graph.
        held_out: ``[N, H, W, C] uint8``, the good images that the threshold is fitted to.
        synthetic: ``[M, H, W, C] uint8``, synthetic anomalies made from them.
        labelled: labelled images, or None.
        false_reject: bound of the threshold.
        budget: largest accepted loss.
        console: shows progress.
        tiling: of the frames, which are canvases; None where they are the graph's.
    """

    def __init__(
        self,
        reference: Engine,
        held_out: NDArray[np.uint8],
        synthetic: NDArray[np.uint8],
        labelled: Labelled | None,
        false_reject: float,
        budget: Budget,
        console: Console,
        tiling: Tiling | None = None,
    ) -> None:
        self.normals, self.tiling = len(held_out), tiling
        self.frames = allocate((len(held_out) + len(synthetic), *held_out.shape[1:]), np.uint8)
        self.frames[: self.normals], self.frames[self.normals :] = held_out, synthetic
        self.labelled, self.false_reject, self.budget, self.console = labelled, false_reject, budget, console
        reference = self.on_canvases(reference)
        self.reference = run_singly(reference, self.frames, console.track("scoring in fp32"))
        self.threshold = conformal_threshold(self.reference[0][: self.normals], false_reject)
        margin = _uncertainty(self.reference[0][: self.normals], false_reject)
        self.settled = np.abs(self.reference[0] - self.threshold.value) > margin
        self.perturbed = perturb(held_out, PERTURBED, np.random.default_rng(PERTURB_SEED))
        self.perturbed_scores = run_singly(reference, self.perturbed, console.track("scoring perturbed images"))[0]
        self.accuracy = score_labelled(reference, labelled, console)[0] if labelled else None

    def on_canvases(self, engine: Engine) -> Engine:
        """Return an engine of `frames` for an engine of the graph."""
        return with_tiles(engine, self.tiling) if self.tiling else engine

    def judge(self, engines: Mapping[str, Engine]) -> Judgement:
        """Measure every variant and compare it with the budget. Labelled images run last, if the rest passes.

        If a variant fails with a threshold of its own, the others are not run.
        """
        outputs: dict[str, Outputs] = {}
        losses: dict[str, float] = {}
        engines = {name: self.on_canvases(engine) for name, engine in engines.items()}
        for name, engine in engines.items():
            outputs[name] = run_singly(engine, self.frames, self.console.track(name))
            alone = self.measure(outputs[name], self._fit(outputs[name][0][: self.normals]).value)
            if not self._exceeded(name, alone):
                losses[name] = self._rank_loss(engine)
                alone = dataclasses.replace(alone, rank_loss=losses[name])
            if failures := self._exceeded(name, alone):
                scores, maps = (each[: self.normals] for each in outputs[name])
                return Judgement({name: alone}, failures, self._fit(scores), scores, maps.max(axis=(1, 2)))
        scores = np.max([each[0][: self.normals] for each in outputs.values()], axis=0)
        map_maxima = np.max([each[1][: self.normals].max(axis=(1, 2)) for each in outputs.values()], axis=0)
        threshold = self._fit(scores)
        variants = {
            name: dataclasses.replace(self.measure(each, threshold.value), rank_loss=losses[name])
            for name, each in outputs.items()
        }
        failures = [line for name, each in variants.items() for line in self._exceeded(name, each)]
        if self.labelled and self.accuracy and not failures:
            for name, engine in engines.items():
                found, _ = score_labelled(engine, self.labelled, self.console)
                variants[name] = _with_accuracy(variants[name], found, self.accuracy)
                failures += self._exceeded(name, variants[name])
        return Judgement(variants, failures, threshold, scores, map_maxima)

    def _fit(self, scores: NDArray[np.float32]) -> Threshold:
        """Fit a threshold to scores of the held-out images; return the reference's if they are not finite."""
        return conformal_threshold(scores, self.false_reject) if np.isfinite(scores).all() else self.threshold

    def measure(self, outputs: Outputs, threshold: float) -> VariantRecord:
        """Compare outputs on `frames` with the reference's; the threshold is the graph's own."""
        (scores, maps), (expected, expected_maps), n = outputs, self.reference, self.normals
        changed = (scores > threshold) != (expected > self.threshold.value)
        flipped = changed & self.settled
        with np.errstate(invalid="ignore"):  # infinities become NaN, which exceeds any limit
            largest, square = _map_errors(maps, expected_maps)
            return VariantRecord(
                score_error=float(np.abs(scores - expected).max()),
                map_error=largest,
                map_rms_error=float(np.sqrt(square)),
                frames=len(scores),
                settled=int(self.settled.sum()),
                flips=float(flipped.mean()),
                flips_of_normals=int(flipped[:n].sum()),
                flips_of_synthetic_anomalies=int(flipped[n:].sum()),
                borderline_flips=int((changed & ~self.settled).sum()),
                synthetic_auroc_drop=_separation(expected, n) - _separation(scores, n),
            )

    def _rank_loss(self, engine: Engine) -> float:
        """Return by how much the rank correlation of an engine's scores of perturbed images is below 1."""
        scores = run_singly(engine, self.perturbed, self.console.track("perturbed images"))[0]
        if not np.isfinite(scores).all():
            return float("nan")
        if np.array_equal(scores, self.perturbed_scores):
            return 0.0  # also where all are equal
        return 1 - metrics.rank_correlation(self.perturbed_scores, scores)

    def _exceeded(self, variant: str, measures: VariantRecord) -> list[str]:
        limits = {
            "flips": self.budget.flips,
            "borderline_flips": max(1, int(max(BORDERLINE_SHARE, self.budget.flips) * len(self.frames))),
            "synthetic_auroc_drop": self.budget.auroc_drop,
            "image_auroc_drop": self.budget.auroc_drop,
            "aupro_drop": self.budget.auroc_drop,
            "rank_loss": RANK_LOSS * self.budget.auroc_drop,
            "score_error": np.inf,  # must be finite
            "map_error": np.inf,
        }
        found = {name: getattr(measures, name) for name in limits}
        return [
            f"{variant}: {name.replace('_', ' ')} {value:.4g}, allowed {limits[name]:.4g}"
            for name, value in found.items()
            if value is not None and not (value <= limits[name] + ROUNDING and np.isfinite(value))
        ]


def _map_errors(maps: NDArray[np.float32], expected: NDArray[np.float32]) -> tuple[float, float]:
    """Return the largest absolute and the mean square difference; one frame at a time, because canvases are large."""
    largest, squares = [], []
    for found, wanted in zip(maps, expected):
        away = found.astype(np.float64) - wanted
        largest.append(np.abs(away).max())
        squares.append(np.square(away).mean())
    return float(np.max(largest)), float(np.mean(squares))


def score_labelled(
    engine: Engine, labelled: Labelled, console: Console
) -> tuple[dict[str, float], NDArray[np.float32]]:
    """Return ``image_auroc`` and, with masks, ``aupro``, and the scores ``[N]``."""
    scores, maps, masks = [], [], []
    for index in console.track("scoring labelled images")(range(len(labelled.frames))):
        score, found = engine.infer(labelled.frames[index : index + 1])
        scores.append(score)
        mask = labelled.masks[index]
        if mask is not None:
            shown = (PIXEL_SIZE, PIXEL_SIZE)
            size = labelled.frame_sizes[index] if labelled.frame_sizes else shown
            geometry = labelled.geometries[index] if labelled.geometries else STRETCH
            maps.append(spread_map(found[0], geometry, size, shown))
            masks.append(mask)
    every = np.concatenate(scores)
    values = {"image_auroc": metrics.rank(labelled.anomalous, every).auroc()}
    if any(mask.any() for mask in masks):
        values["aupro"] = metrics.aupro(masks, maps)
    return values, every


def _with_accuracy(measures: VariantRecord, found: Mapping[str, float], before: Mapping[str, float]) -> VariantRecord:
    drops = {name: before[name] - value for name, value in found.items()}
    return dataclasses.replace(
        measures,
        image_auroc=found.get("image_auroc"),
        aupro=found.get("aupro"),
        image_auroc_drop=drops.get("image_auroc"),
        aupro_drop=drops.get("aupro"),
    )


def _uncertainty(scores: NDArray[np.float32], false_reject: float) -> float:
    """Return the largest change of the threshold when one held-out image is left out."""
    whole = conformal_threshold(scores, false_reject).value
    if len(scores) < 2:
        return 0.0
    without = [conformal_threshold(np.delete(scores, index), false_reject).value for index in range(len(scores))]
    return float(np.abs(np.array(without) - whole).max())


def _separation(scores: NDArray[np.float32], normals: int) -> float:
    """AUROC of held-out normals against synthetic anomalies; NaN if a score is not finite."""
    if not np.isfinite(scores).all():
        return float("nan")
    return metrics.rank(np.arange(len(scores)) >= normals, scores).auroc()


def read_labelled(
    category: Category, size: tuple[int, int], pixels: PixelFormat, console: Console, geometry: Geometry = STRETCH
) -> Labelled | None:
    """Read a category's labelled test images; None if readable good or defective images are missing.

    Args:
        category: with the images.
        size: (height, width) of the model's canvas in pixels.
        pixels: how images become frames.
        console: shows progress.
        geometry: that fits images to the canvas.
    """
    if len({sample.anomalous for sample in category.test}) < 2:
        return None
    for problem in category.problems:
        console.say(f"Warning: {problem}")
    frames, anomalous, masks, sizes, geometries = [], [], [], [], []
    for sample in console.track("reading labelled images")(category.test):
        try:
            frame = read_frame(sample.path, pixels)
            mask = read_labelled_mask(sample, (frame.shape[0], frame.shape[1]), (PIXEL_SIZE, PIXEL_SIZE))
            found = locate(frame, geometry)
        except MisplacedError as error:
            console.say(f"Warning: skipped: {sample.path}: {error}")
            continue
        except DataError as error:
            console.say(f"Warning: skipped: {error}")
            continue
        frames.append(fit_frame(frame, size, geometry=found))
        geometries.append(found)
        sizes.append((frame.shape[0], frame.shape[1]))
        anomalous.append(sample.anomalous)
        masks.append(mask if mask is not None and (mask.any() or not sample.anomalous) else None)
    if len({*anomalous}) < 2:
        console.say(f"Warning: labels are not used: no good or no defective image in {category.root} is readable.")
        return None
    return Labelled(np.stack(frames), np.array(anomalous), masks, geometries, sizes)
