"""Turns frames so that their part lies as on the reference picture, and maps and masks back.

The poses are those of `edgead.geometry.pose`.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgead.errors import require
from edgead.geometry import Geometry, Placement, Size
from edgead.geometry.pose import Matrix, points_of
from edgead.geometry.resampling import halve, warp

T = TypeVar("T", bound=np.generic)


def align_window(frame: NDArray[np.uint8], geometry: Geometry, place: Placement) -> NDArray[np.uint8]:
    """Return the window of the aligned frame. Beyond the frame, its edge goes on without narrow details.

    A frame that the canvas shows much smaller is halved first. Depth is not, because it may be missing.

    Args:
        frame: ``(H, W, 3 or 4) uint8``.
        geometry: with the frame's pose.
        place: of the frame on the canvas.
    """
    size = (frame.shape[0], frame.shape[1])
    rows, columns = place.window
    image = frame
    if frame.shape[2] == 3:
        ratio = min(seen / shown for seen, shown in zip(place.window_size, place.inner_size))
        image = halve(frame, (math.ceil(size[0] / ratio), math.ceil(size[1] / ratio)))
    height, width = (math.ceil(side * image.shape[0] / size[0]) for side in place.window_size)
    box = (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
    matrix = pose_matrix(geometry, size) @ points_of(*box, (height, width))
    matrix = np.linalg.inv(_pixels(size, (image.shape[0], image.shape[1]))) @ matrix
    if frame.shape[2] == 3:
        return warp(image, matrix, (height, width), "smooth edge")
    lib = require("cv2", "cpu")
    colours = warp(lib.cvtColor(image, lib.COLOR_BGRA2BGR), matrix, (height, width), "smooth edge")
    depth = warp(np.ascontiguousarray(image[:, :, 3]), matrix, (height, width), "smooth edge", nearest=True)
    return np.asarray(lib.merge([*lib.split(colours), depth]))


def align_mask(mask: NDArray[np.bool_], geometry: Geometry) -> NDArray[np.bool_]:
    """Turn a mask of a whole frame as the frame is aligned; False beyond the frame."""
    if geometry.pose is None:
        return mask
    size = (mask.shape[0], mask.shape[1])
    pixels = _pixels(size, size)
    matrix = np.linalg.inv(pixels) @ pose_matrix(geometry, size) @ pixels
    return warp(mask.astype(np.uint8), matrix, size, 0, nearest=True).astype(np.bool_)


def turn_back(
    picture: NDArray[T], geometry: Geometry, frame_size: Size, fill: float, nearest: bool = False
) -> NDArray[T]:
    """Turn a picture of a whole aligned frame back to how the frame itself lies.

    Args:
        picture: ``(h, w)``, of any size; it may be stretched.
        geometry: with the frame's pose; without one the picture is returned as it is.
        frame_size: (height, width) of the frame: poses turn it, not the stretched picture.
        fill: value where the aligned frame shows nothing of the frame.
        nearest: take the nearest pixel's value.
    """
    if geometry.pose is None:
        return picture
    size = (picture.shape[0], picture.shape[1])
    pixels = _pixels(frame_size, size)
    matrix = np.linalg.inv(pixels) @ np.linalg.inv(pose_matrix(geometry, frame_size)) @ pixels
    return warp(picture, matrix, size, fill, nearest)


def turn_mask_back(mask: NDArray[np.bool_], geometry: Geometry) -> NDArray[np.bool_]:
    """Turn a mask of a whole aligned frame back to how the frame itself lies. Empty only if the mask is.

    If everything marked is beyond the frame, the frame's edge is marked there.
    """
    if geometry.pose is None or not mask.any():
        return mask
    height, width = mask.shape
    turned = turn_back(mask.astype(np.uint8), geometry, (height, width), 0, nearest=True).astype(np.bool_)
    if not turned.any():
        rows, columns = np.nonzero(mask)
        points = pose_matrix(geometry, (height, width)) @ np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))])
        across, down = (np.clip(axis.astype(int), 0, side - 1) for axis, side in zip(points, (width, height)))
        turned[down, across] = True
    return turned


def pose_matrix(geometry: Geometry, size: Size) -> Matrix:
    """Return the matrix from points of an aligned frame of (height, width) to points of the frame."""
    assert geometry.pose is not None
    return geometry.pose.matrix(size, geometry.centre)


def _pixels(frame: Size, picture: Size) -> Matrix:
    """Return the matrix from pixels of a picture of a whole frame to points of the frame."""
    return points_of(0, 0, frame[1], frame[0], picture)
