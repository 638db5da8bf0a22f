"""The defect mask, its boxes and its contours. The rule and its reasons: docs/adr/0026."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgead.geometry import STRETCH, Geometry
from edgead.geometry.turning import turn_mask_back
from edgead.images import Mask, cv2
from edgead.masks import fit_mask, fit_region, outlines_of

SAMPLES_A_SIDE = 64
"""Values per side from which a map's median is computed; all values of a large map would take milliseconds."""


def mark(anomaly_map: NDArray[np.float32], mask_threshold: float, region: Mask | None = None) -> Mask:
    """Return the defect mask of a frame with a score above the threshold, at the model's size.

    The mask is where the map exceeds `mask_threshold`. If no value does, because score and map have separate limits,
    the mask is where the map exceeds the midpoint of its median and its maximum.

    Args:
        anomaly_map: ``(h, w) float32``, finite.
        mask_threshold: the bundle's limit of map values.
        region: ``(h, w) bool``, the inspected part of it; None for all of it.

    Returns:
        ``(h, w) bool``. Without a region never empty.
    """
    return _mark(anomaly_map, _limit(anomaly_map, mask_threshold), region)


def mark_in_frame(
    anomaly_map: NDArray[np.float32],
    mask_threshold: float,
    region: Mask | None,
    size: tuple[int, int],
    geometry: Geometry = STRETCH,
) -> Mask:
    """Return the mask of `mark` at a frame's (height, width), from the resized map. Empty only if `mark` is.

    Args:
        anomaly_map: ``(h, w) float32`` of the canvas, finite.
        mask_threshold: the bundle's limit of map values.
        region: ``bool`` of the whole frame, at any size; None for all of it.
        size: (height, width) of the frame, or of a smaller picture of it.
        geometry: that fitted the frame to the canvas, with its pose.
    """
    if not all(size):
        return np.zeros(size, np.bool_)
    place = geometry.place(size, (anomaly_map.shape[0], anomaly_map.shape[1]))
    mask = np.zeros(size, np.bool_)
    seen, part = seen_part(anomaly_map, region, size, geometry)
    mask[place.window] = _mark_in_window(seen, mask_threshold, part, place.window_size)
    return turn_mask_back(mask, geometry)


def seen_part(
    anomaly_map: NDArray[np.float32], region: Mask | None, frame_size: tuple[int, int], geometry: Geometry
) -> tuple[NDArray[np.float32], Mask | None]:
    """Return the part of a canvas's map that shows the frame, and the region of the whole frame fitted to that part.

    The region is that of an aligned frame, where frames are aligned.
    """
    if geometry.crop is None and geometry.fit == "stretch":
        return anomaly_map, region
    place = geometry.place(frame_size, (anomaly_map.shape[0], anomaly_map.shape[1]))
    if region is not None:
        window = geometry.place((region.shape[0], region.shape[1]), anomaly_map.shape[:2]).window
        region = fit_region(region[window], place.inner_size)
    return anomaly_map[place.inner], region


def _mark_in_window(
    anomaly_map: NDArray[np.float32], mask_threshold: float, region: Mask | None, size: tuple[int, int]
) -> Mask:
    limit = _limit(anomaly_map, mask_threshold)
    marked = _mark(anomaly_map, limit, region)
    if not marked.any():
        return np.zeros(size, np.bool_)
    height, width = size
    resized = cv2().resize(anomaly_map, (width, height), interpolation=cv2().INTER_LINEAR)
    mask = np.asarray(resized > limit)
    if region is not None:
        mask &= fit_region(region, size)
    if not mask.any():  # single map values are lost between the frame's pixels
        mask = fit_mask(marked, size)
        rows, columns = np.nonzero(marked)
        mask[rows * height // marked.shape[0], columns * width // marked.shape[1]] = True
    return mask


def is_finite(anomaly_map: NDArray[np.float32]) -> bool:
    """Return whether no value is NaN or infinite. Two passes over the map: a few microseconds."""
    return bool(np.isfinite(anomaly_map.max()) and np.isfinite(anomaly_map.min()))


def boxes_of(mask: Mask) -> list[dict[str, int]]:
    """The connected parts of a mask, largest first: ``x``, ``y``, ``width``, ``height`` and ``area`` in pixels."""
    if not mask.any():  # OpenCV 5.0 ends the process at a mask without pixels, which an unreadable frame has
        return []
    _, _, statistics, _ = cv2().connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    found = [dict(zip(("x", "y", "width", "height", "area"), map(int, row))) for row in statistics[1:]]
    return sorted(found, key=lambda box: -box["area"])


def contours_of(mask: Mask, boxes: Sequence[dict[str, int]]) -> list[list[list[int]]]:
    """Outlines of the connected parts of a mask, each a list of ``[x, y]`` in pixels, in the order of `boxes`."""
    outlines = {tuple(cv2().boundingRect(outline)): outline for outline in outlines_of(mask)}  # no two have one box
    sides = ("x", "y", "width", "height")
    return [outlines[tuple(box[side] for side in sides)].reshape(-1, 2).tolist() for box in boxes]


def _limit(anomaly_map: NDArray[np.float32], mask_threshold: float) -> float:
    peak = float(anomaly_map.max())
    if peak > mask_threshold:
        return mask_threshold
    rows, columns = (max(1, side // SAMPLES_A_SIDE) for side in anomaly_map.shape)
    return (float(np.median(anomaly_map[::rows, ::columns])) + peak) / 2


def _mark(anomaly_map: NDArray[np.float32], limit: float, region: Mask | None) -> Mask:
    marked = np.asarray(anomaly_map > limit)
    if not marked.any():  # all values are equal: the model does not localise
        marked = np.asarray(anomaly_map >= anomaly_map.max())
    return marked if region is None else marked & region
