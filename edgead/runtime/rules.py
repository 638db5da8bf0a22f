"""What an inspector decides by, beside the bundle: its threshold, the part of the frame that counts, the least area."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgead.decision import conformal_threshold
from edgead.errors import BundleError, ConfigError
from edgead.images import Mask, fit_mask, read_mask
from edgead.manifest import Manifest

SHAPES = ("boxes", "contours")


def choose_threshold(manifest: Manifest, wanted: float | str | None, region: Mask | None) -> float:
    """Return the threshold that scores are compared with.

    Where only a region counts, the score is the highest map value in it. The bundle's limit for the highest value of
    the whole map (`mask_threshold`) then keeps the bundle's false-reject bound: the region's is never higher.

    Args:
        manifest: of the bundle.
        wanted: a score; ``"fpr:0.001"`` for the share of good parts that may fail; None for the bundle's own.
        region: the part that counts, or None.

    Raises:
        ConfigError: neither a finite number nor ``fpr:`` and a share.
        BundleError: the bundle holds no held-out scores to choose from.
    """
    if wanted is None:
        return float(manifest.threshold.value if region is None else manifest.mask_threshold)
    text = str(wanted)
    try:
        value = float(text.removeprefix("fpr:"))
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (text.startswith("fpr:") and not 0 < value < 1):
        raise ConfigError(f"The threshold must be a finite number, or fpr: and a share as in fpr:0.001, not {wanted}.")
    if not text.startswith("fpr:"):
        return value
    scores = manifest.threshold.scores if region is None else manifest.threshold.peaks
    if not scores:
        raise BundleError(
            f"The bundle {manifest.name} holds no scores of held-out good parts, so fpr: cannot be used.\n"
            "Export it again, or give the threshold as a number."
        )
    return conformal_threshold(scores, value).value


def describe_threshold(manifest: Manifest, wanted: float | str | None, region: Mask | None) -> str:
    """Say what an ``fpr:`` threshold promises with so many held-out parts; nothing for any other."""
    if not str(wanted).startswith("fpr:"):
        return ""
    scores = manifest.threshold.scores if region is None else manifest.threshold.peaks
    return conformal_threshold(scores, float(str(wanted).removeprefix("fpr:"))).describe()


def read_region(roi: Sequence[str], ignore: Sequence[str], size: tuple[int, int]) -> Mask | None:
    """Combine regions of interest and regions to ignore into the mask of what counts.

    Args:
        roi: each a mask image (white counts) or ``x,y,width,height`` as shares of the frame, from 0 to 1; what is in
            any of them counts. Without one, everything counts.
        ignore: the same; what is in any of them does not count.
        size: (height, width) of the model in pixels. Masks are stretched to it, as frames are.

    Returns:
        ``(height, width) bool``, or None where everything counts.

    Raises:
        ConfigError: not a region, or nothing is left that counts.
        DataError: the image cannot be read.
    """
    if not roi and not ignore:
        return None
    counts = np.zeros(size, np.bool_) if roi else np.ones(size, np.bool_)
    for text in roi:
        counts |= _read_mask(text, size)
    for text in ignore:
        counts &= ~_read_mask(text, size)
    if not counts.any():
        raise ConfigError("The regions leave nothing of the frame that counts.")
    return counts


def _read_mask(text: str, size: tuple[int, int]) -> Mask:
    if Path(text).is_file():
        return fit_mask(read_mask(Path(text)), size)
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"The region '{text}' is neither a mask image nor x,y,width,height.") from None
    if not (0 <= x <= x + width <= 1 + 1e-9 and 0 <= y <= y + height <= 1 + 1e-9):
        raise ConfigError(f"The region '{text}' must lie inside the frame, whose sides are 0 to 1.")
    mask = np.zeros(size, np.bool_)
    rows, columns = (
        (round(low * side), round((low + length) * side))
        for low, length, side in ((y, height, size[0]), (x, width, size[1]))
    )
    mask[slice(*rows), slice(*columns)] = True
    return mask
