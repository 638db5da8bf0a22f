"""Depth images: where they are, which values are measurements, and how a distance becomes one byte of a frame.

A frame with depth is ``(H, W, 4) uint8``: B, G, R and the depth's *code*. Code 0 means that nothing was measured; 1 to
255 is the distance, linear over the depth range that training found. Reasons: docs/adr/0017.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.errors import DataError

Depth = NDArray[np.float32]
DepthRange = tuple[float, float]
"""The distances of code 1 and of code 255, in the unit of the depth images."""

NEAREST, FARTHEST = 1, 255
"""Codes; 0 is what was not measured."""
FOLDER, SUFFIXES = "xyz", (".tiff", ".tif", ".png")
"""Depth images lie beside the folder of colour images, under the same names, as in MVTec 3D-AD."""
PERCENTILES = (0.1, 99.9)
"""Percentiles that count as nearest and farthest of an image: single points are outliers at the edges of parts."""
MARGIN = 0.1
"""Added to the range at either end, as a share of it: a defect may lie nearer or farther than any good part."""


def find_depth_file(image: Path) -> Path:
    """Return the depth image of ``…/rgb/NAME.png``: ``…/xyz/NAME.tiff``, .tif or .png.

    Raises:
        DataError: there is none; with the path that was tried.
    """
    wanted = [image.parent.parent / FOLDER / f"{image.stem}{suffix}" for suffix in SUFFIXES]
    found = next((path for path in wanted if path.is_file()), None)
    if found is None:
        raise DataError(f"{image} has no depth: {wanted[0]} (or {', '.join(SUFFIXES[1:])}) does not exist.")
    return found


def as_depth(picture: NDArray[Any]) -> Depth:
    """Return the distances of a depth image, 0 where nothing was measured.

    Args:
        picture: ``(H, W)`` or ``(H, W, 1)`` of any real type, or ``(H, W, 3)`` points x, y, z, of which z is taken.
            What is masked, not finite or not positive is no measurement.

    Returns:
        ``(H, W) float32``, a new array.

    Raises:
        DataError: another shape or type, or no measurement at all.
    """
    if not isinstance(picture, np.ndarray) or picture.dtype.kind not in "fui":
        raise DataError(f"A depth image must be an array of numbers, not {getattr(picture, 'dtype', type(picture))}.")
    if picture.ndim == 3 and picture.shape[2] in (1, 3):
        picture = picture[:, :, -1]
    if picture.ndim != 2:
        raise DataError(f"A depth image must be (H, W), or (H, W, 3) points, not {picture.shape}.")
    depth = np.ma.filled(picture, 0).astype(np.float32)
    measured = (depth > 0) & (depth < np.inf)  # false of NaN
    depth = np.where(measured, depth, np.float32(0))
    if not measured.any():
        raise DataError("The depth image holds no measurement: no value is finite and above zero.")
    return depth


def check_range(depth_range: DepthRange) -> None:
    """Check a range that a caller has typed.

    Raises:
        DataError: it is not two finite numbers of at least 0, the lower one first.
    """
    try:
        near, far = map(float, depth_range)
    except (TypeError, ValueError):
        near = far = math.nan
    if not 0 <= near < far < math.inf:
        raise DataError(
            f"The depth range must be two distances, the nearer one first, not {depth_range!r}.\n"
            "Use the model's: Inspector.depth_range"
        )


def encode(depth: Depth, depth_range: DepthRange) -> NDArray[np.uint8]:
    """Turn distances ``(H, W) float32`` into codes; values outside the range get the code of its end.

    Raises:
        DataError: no measurement is inside the range: another unit, or a camera that was moved.
    """
    near, far = depth_range
    measured = depth > 0
    if not (measured & (depth >= near) & (depth <= far)).any():
        found = depth[measured]
        raise DataError(
            f"All depth ({found.min():.4g} to {found.max():.4g}) lies outside the range of training "
            f"({near:.4g} to {far:.4g}).\nCheck its unit and the position of the camera."
        )
    scale = (FARTHEST - NEAREST) / (far - near)
    codes = depth * np.float32(scale) + np.float32(NEAREST - near * scale)
    np.clip(np.rint(codes, out=codes), NEAREST, FARTHEST, out=codes)
    return codes.astype(np.uint8) * measured


def find_ends(depth: Depth) -> DepthRange:
    """Return the nearest and the farthest distance of a picture ``(H, W) float32``, in its unit; no stray points."""
    near, far = np.percentile(depth[depth > 0], PERCENTILES)
    return float(near), float(far)


def measure_range(ends: Iterable[DepthRange]) -> DepthRange:
    """Return the depth range of good parts: from the nearest to the farthest of all pictures' ends, and a margin."""
    nearest, farthest = zip(*ends)
    near, far = min(nearest), max(farthest)
    margin = max(MARGIN * (far - near), 0.01 * far)  # of something flat too
    return max(0.0, near - margin), far + margin
