"""The rules of an inspector: threshold, inspected region and minimum area of a defect."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.bundle.manifest import Manifest
from edgead.decision import LEAST_BOUND, Verdict, conformal_threshold, decide, threshold_images
from edgead.errors import BundleError, ConfigError
from edgead.files import is_path
from edgead.geometry import STRETCH, Geometry
from edgead.home import at_home
from edgead.images import Mask
from edgead.masks import fit_region, read_mask
from edgead.runtime.defects import boxes_of, is_finite, mark, mark_in_frame, seen_part
from edgead.runtime.health import HealthLimits

SHAPES = ("boxes", "contours")


@dataclass(frozen=True)
class Rules:
    """The rules for one frame.

    Attributes:
        threshold: a score above it fails.
        mask_threshold: the bundle's limit of map values, see `edgead.runtime.defects.mark`.
        region: ``bool``, the inspected part of the whole frame, see `LiveRules.region`; None for all of it.
        min_area: pixels of the frame.
    """

    threshold: float
    mask_threshold: float
    region: Mask | None = None
    min_area: int = 0

    def decide(
        self,
        score: float,
        anomaly_map: NDArray[np.float32],
        frame_size: tuple[int, int],
        geometry: Geometry = STRETCH,
    ) -> tuple[Verdict, str]:
        """Return verdict and reason. A defect counts if it overlaps the region and has at least `min_area` pixels."""
        verdict, reason = decide(score, self.threshold)
        if verdict is not Verdict.UNKNOWN and not is_finite(anomaly_map):
            return Verdict.UNKNOWN, "map is not finite"
        if verdict is not Verdict.FAIL:
            return verdict, reason
        if self.region is not None and not self._marks_region(anomaly_map, frame_size, geometry):
            return Verdict.PASS, "score above threshold, but the defect lies outside the region"
        if self.min_area:
            area = self._largest_area(anomaly_map, self.mask_threshold, frame_size, geometry)
            if area < self.min_area:
                largest = self._largest_area(anomaly_map, -math.inf, frame_size, geometry)
                if self.min_area > largest:
                    return verdict, f"min_area is {self.min_area} pixels, and a defect can have {largest} at most"
                return Verdict.PASS, f"largest defect of {area} pixels is below {self.min_area}"
        return verdict, reason

    def _largest_area(
        self, anomaly_map: NDArray[np.float32], limit: float, frame_size: tuple[int, int], geometry: Geometry
    ) -> int:
        """Return the pixels of the frame in the largest connected place above a limit of map values."""
        return int(boxes_of(mark_in_frame(anomaly_map, limit, self.region, frame_size, geometry))[0]["area"])

    def _marks_region(self, anomaly_map: NDArray[np.float32], frame_size: tuple[int, int], geometry: Geometry) -> bool:
        seen, region = seen_part(anomaly_map, self.region, frame_size, geometry)
        return bool(mark(seen, self.mask_threshold, region).any())


class LiveRules:
    """Rules that may be changed during a run: `threshold`, `region`, `min_area`, `shapes`. Setting one checks it.

    Args:
        manifest: of the bundle.
        threshold, region, min_area, shapes: see `edgead.runtime.inspector.Inspector`.
    """

    def __init__(
        self,
        manifest: Manifest,
        threshold: float | str | None,
        region: Mask | None,
        min_area: int,
        shapes: Sequence[str],
    ) -> None:
        self._manifest = manifest
        self._threshold = self._first_threshold = choose_threshold(manifest, threshold)
        self.region, self.min_area, self.shapes = region, min_area, shapes

    @property
    def rules(self) -> Rules:
        """A snapshot of the rules for one decision: a change meanwhile does not mix old and new values."""
        return Rules(self.threshold, self._manifest.mask_threshold, self.region, self.min_area)

    @property
    def threshold(self) -> float:
        """A score above it fails. Set it to a number or ``"fpr:0.001"``, see `load`."""
        return self._threshold

    @threshold.setter
    def threshold(self, wanted: float | str) -> None:
        if wanted is None:
            raise ConfigError("The threshold must be a finite number, or fpr:SHARE as in fpr:0.001, not None.")
        self._threshold = choose_threshold(self._manifest, wanted)

    def restore_threshold(self) -> str:
        """Decide by the threshold again that was given at the beginning.

        Returns:
            A line for the user; empty if no other one was set.
        """
        if self._threshold == self._first_threshold:
            return ""
        over, self._threshold = self._threshold, self._first_threshold
        name = self._manifest.name
        return (
            f"{name}: the threshold that was set during the run, {over:.6g}, is over; it is {self.threshold:.6g} again"
        )

    @property
    def region(self) -> Mask | None:
        """``bool``, the inspected part of the whole frame; None for all of it. Read-only.

        Its size is `Manifest.region_size`: the model's size, larger for a model with tiles or a crop.
        """
        return self._region

    @region.setter
    def region(self, region: Mask | None) -> None:
        self._region = check_region(region, self._manifest)

    @property
    def min_area(self) -> int:
        """Pixels of the frame. If the mask's largest connected part is smaller, the frame passes."""
        return self._min_area

    @min_area.setter
    def min_area(self, area: int) -> None:
        self._min_area = check_min_area(area)

    @property
    def shapes(self) -> tuple[str, ...]:
        """Which of ``"boxes"`` and ``"contours"`` of the mask go into `Result.to_dict`."""
        return self._shapes

    @shapes.setter
    def shapes(self, shapes: Sequence[str]) -> None:
        self._shapes = check_shapes(shapes)


def choose_threshold(manifest: Manifest, wanted: float | np.floating[Any] | str | None) -> float:
    """Return the threshold that scores are compared with.

    Args:
        manifest: of the bundle.
        wanted: a score; ``"fpr:0.001"`` for the share of good parts that may fail; None for the bundle's own.

    Raises:
        ConfigError: neither a finite number nor ``fpr:SHARE``.
        BundleError: the bundle has no held-out scores.
    """
    if wanted is None:
        return float(manifest.threshold.value)
    text = str(wanted)
    try:
        # A text of a float32 is another number: a score that is equal to it would be above it.
        value = float(wanted) if isinstance(wanted, np.floating) else float(text.removeprefix("fpr:"))
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text or (text.startswith("fpr:") and not LEAST_BOUND <= value < 1):
        raise ConfigError(f"The threshold must be a finite number, or fpr:SHARE as in fpr:0.001, not {wanted}.")
    if not text.startswith("fpr:"):
        return value
    scores = manifest.threshold.scores
    if not scores:
        raise BundleError(
            f"The bundle {manifest.name} has no scores of held-out good parts, so fpr: cannot be used.\n"
            "Export it again, or set the threshold as a number."
        )
    return conformal_threshold(scores, value).value


def describe_threshold(manifest: Manifest, wanted: float | str | None) -> str:
    """Return what a threshold in place of the bundle's own means for its held-out good images.

    Args:
        manifest: of the bundle.
        wanted: as `choose_threshold` takes it.

    Returns:
        The promise of an ``fpr:`` threshold; for a number, how many of the images would fail, and a warning where the
        number is above them by more than they differ. Empty for None, and for a number if the bundle has no scores.
    """
    scores = manifest.threshold.scores
    if str(wanted).startswith("fpr:"):
        return conformal_threshold(scores, float(str(wanted).removeprefix("fpr:"))).describe(manifest.data.unseen)
    if wanted is None or not scores:
        return ""
    value, lowest, highest = choose_threshold(manifest, wanted), min(scores), max(scores)
    failing = sum(score > value for score in scores)
    line = (
        f"threshold {value:.6g} instead of the bundle's own {manifest.threshold.value:.6g}: {failing} of {len(scores)} "
        f"{threshold_images(manifest.data.unseen)} would fail"
    )
    if value <= max(highest, manifest.threshold.value) + (highest - lowest):
        return line
    return (
        f"Warning: {line}. It is far above their scores, {lowest:.6g} to {highest:.6g}. Defective parts with a score "
        "up to it pass. Look at the scores of defective parts first."
    )


def check_region(region: Mask | None, manifest: Manifest) -> Mask | None:
    """Return a read-only copy of a region.

    Raises:
        ConfigError: not ``(h, w) bool`` of `Manifest.region_size`, empty, or outside what the model sees of a frame:
            every frame would pass.
    """
    if region is None:
        return None
    size = manifest.region_size
    if not isinstance(region, np.ndarray) or region.dtype != np.bool_ or region.shape != size:
        found = f"{region.dtype} {region.shape}" if isinstance(region, np.ndarray) else type(region).__name__
        raise ConfigError(f"The region must be bool and have the model's size {size}, not {found}.")
    if not region.any():
        raise ConfigError("The region is empty: nothing of the frame would be inspected.")
    if not region[manifest.geometry.place(size, manifest.canvas).window].any():
        raise ConfigError(
            f"The region lies outside what the bundle {manifest.name} sees of a frame: every frame would pass.\n"
            f"Choose a part of its {manifest.geometry.describe()}, or train with another --crop."
        )
    copy = region.copy()
    copy.setflags(write=False)
    return copy


def check_min_area(area: int) -> int:
    """Return the minimum area of a defect, in pixels of the frame.

    Raises:
        ConfigError: not a whole number, or negative.
    """
    if isinstance(area, bool) or not isinstance(area, int | np.integer) or area < 0:
        raise ConfigError(f"min_area must be a whole number of pixels, at least 0, not {area!r}.")
    return int(area)


def check_shapes(shapes: Sequence[str]) -> tuple[str, ...]:
    """Return which shapes go into results, each once.

    Raises:
        ConfigError: not a list of names of `SHAPES`.
    """
    wanted = () if isinstance(shapes, str) or not isinstance(shapes, Iterable) else tuple(shapes)
    if (not wanted and shapes not in ((), [])) or not all(shape in SHAPES for shape in wanted):
        raise ConfigError(f"shapes must be a list of {', '.join(SHAPES)}, not {shapes!r}.")
    return tuple(dict.fromkeys(wanted))


def read_region(
    roi: Sequence[str | Path],
    ignore: Sequence[str | Path],
    size: tuple[int, int],
    aspects: tuple[float, float] | None = None,
) -> Mask | None:
    """Combine regions of interest and regions to ignore into the mask of the inspected part.

    Args:
        roi: each a mask image (white is inspected) or ``x,y,width,height`` as shares of the frame, from 0 to 1. Their
            union is inspected; without one, the whole frame is.
        ignore: the same, for parts that are not inspected.
        size: (height, width) of the region in pixels, `Manifest.region_size`. Masks of frames are stretched to it. A
            pixel of it is inspected if any part of it is to be.
        aspects: lowest and highest width / height of the training images, between which those of masks must be; None if
            unknown.

    Returns:
        ``(height, width) bool``, or None for the whole frame.

    Raises:
        ConfigError: not a region, a mask of another shape than the frames, or nothing is left to inspect.
        DataError: the image cannot be read.
    """
    if not roi and not ignore:
        return None
    counts = np.zeros(size, np.bool_) if roi else np.ones(size, np.bool_)
    for text in roi:
        counts |= _read_region(text, size, aspects)
    for text in ignore:
        counts &= _read_region(text, size, aspects, inverse=True)
    if not counts.any():
        raise ConfigError("The regions exclude the whole frame.")
    return counts


def _read_region(
    region: str | Path, size: tuple[int, int], aspects: tuple[float, float] | None, inverse: bool = False
) -> Mask:
    """Return the pixels of which any part is in a region, or with `inverse` outside it."""
    text = at_home(str(region))
    if is_path(text) and Path(text).is_file():
        mask = read_mask(Path(text))
        _refuse_other_shape(text, mask, size, aspects)
        return fit_region(mask != inverse, size)
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"The region '{text}' is neither a mask image nor x,y,width,height.") from None
    if not (0 <= x <= x + width <= 1 + 1e-9 and 0 <= y <= y + height <= 1 + 1e-9):
        raise ConfigError(f"The region '{text}' must be inside the frame: fractions from 0 to 1.")
    if not width or not height:
        raise ConfigError(f"The region '{text}' has no area.")
    outward = (math.ceil, math.floor) if inverse else (math.floor, math.ceil)
    rows, columns = (
        [rounded(round(end * side, 6)) for rounded, end in zip(outward, (low, low + length))]
        for low, length, side in ((y, height, size[0]), (x, width, size[1]))
    )
    mask = np.full(size, inverse)
    mask[slice(*rows), slice(*columns)] = not inverse
    return mask


def _refuse_other_shape(name: str, mask: Mask, size: tuple[int, int], aspects: tuple[float, float] | None) -> None:
    """Refuse a mask image that frames do not have the shape of: stretched over them, it would mark another place."""
    shape = mask.shape[0], mask.shape[1]
    why = HealthLimits(aspects=aspects).why_untrained(shape)[1]
    if why and shape != size:
        raise ConfigError(
            f"The region {name}: {why}.\n"
            "Draw it on a picture of the camera. If that has this shape, too, write shares of the frame:  x,y,w,h"
        )
