"""Masks and maps of frames: read, fitted as the frame is, brought back over it, and drawn on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgead.errors import DataError
from edgead.formats import identify
from edgead.formats.reading import read_file
from edgead.geometry import STRETCH, Geometry
from edgead.geometry.turning import align_mask, turn_back
from edgead.images import Frame, Mask, cv2, read_image


def read_mask(path: Path, background: tuple[int, int, int] | None = None) -> Mask:
    """Read a ground-truth mask: every value above zero is defect (above half the highest in formats that blur edges,
    JPEG and lossy WebP).

    What is transparent is none.

    Args:
        path: of the mask.
        background: BGR colour of the pixels without a defect; every other colour is defect.

    Returns:
        ``(H, W) bool``.

    Raises:
        DataError: the file cannot be read as an image, or OpenCV returns another mask.
    """
    image, data = read_image(path), read_file(path)
    try:
        identify.refuse_as_mask(data)
    except DataError as error:
        raise DataError(f"Cannot read {path}: {error}.") from None
    drawn = image[:, :, 3] > 0 if image.ndim == 3 and image.shape[2] == 4 else True  # editors leave white elsewhere
    colours = image[:, :, :3] if image.ndim == 3 else image[:, :, None]
    if background is not None:
        return np.asarray((colours != background).any(axis=2) & drawn)
    image = colours.max(axis=2) * drawn
    lossy = identify.is_lossy(data)  # whatever the file is called
    return np.asarray(image > (image.max() / 2 if lossy else 0))


def place_mask(mask: Mask, size: tuple[int, int], geometry: Geometry) -> Mask:
    """Fit a mask of a whole frame to a canvas of (height, width), as `fit_frame` fits the frame.

    Returns:
        ``(height, width) bool``; False beside a letterboxed frame.
    """
    if geometry == STRETCH:
        return fit_mask(mask, size)
    whole = (mask.shape[0], mask.shape[1])
    mask = align_mask(mask, geometry)
    place = geometry.place(whole, size)
    placed = np.zeros(size, np.bool_)
    placed[place.inner] = fit_mask(mask[place.window], place.inner_size)
    return placed


def spread_map(
    anomaly_map: NDArray[np.float32],
    geometry: Geometry,
    frame_size: tuple[int, int],
    size: tuple[int, int],
    outside: float | None = None,
) -> NDArray[np.float32]:
    """Bring a canvas's map back over its whole frame.

    Args:
        anomaly_map: ``(h, w) float32`` of the canvas.
        geometry: that fitted the frame, with its pose.
        frame_size: (height, width) of the frame.
        size: (height, width) of the returned map, which shows the whole frame, perhaps stretched.
        outside: value where the frame was cropped away; None for the lowest one inside.

    Returns:
        ``(height, width) float32``: the values between the map's are linear.
    """
    lib = cv2()
    if geometry.is_whole:
        return np.asarray(lib.resize(anomaly_map, size[::-1], interpolation=lib.INTER_LINEAR))
    canvas = (anomaly_map.shape[0], anomaly_map.shape[1])
    place = geometry.place(frame_size, canvas)
    inner = anomaly_map[place.inner]
    window = geometry.place(size, canvas).window
    beyond = float(inner.min()) if outside is None else outside
    spread = np.full(size, beyond, np.float32)
    target = spread[window]
    target[:] = lib.resize(inner, target.shape[::-1], interpolation=lib.INTER_LINEAR)
    return turn_back(spread, geometry, frame_size, beyond)


def fit_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    """Resize a mask to (height, width) with nearest neighbour, as the field's evaluation codes do."""
    fitted = cv2().resize(mask.astype(np.uint8), size[::-1], interpolation=cv2().INTER_NEAREST)
    return np.asarray(fitted, dtype=np.bool_)


def fit_region(region: Mask, size: tuple[int, int]) -> Mask:
    """Resize an inspected region to (height, width): a pixel is inspected if any under it is, so that none is lost."""
    lib, (height, width) = cv2(), size
    shrunk = min(width, region.shape[1]), min(height, region.shape[0])
    share = lib.resize(region.astype(np.float32), shrunk, interpolation=lib.INTER_AREA)
    return fit_mask(np.asarray(share > 0), size)


def outlines_of(mask: Mask) -> list[NDArray[np.int32]]:
    """Return the outer outline ``[N, 1, 2]``, x and y in pixels, of each connected part of a mask ``(H, W) bool``.

    Parts in the holes of others have one, too.
    """
    if not mask.any():
        return []
    lib = cv2()
    found, levels = lib.findContours(mask.astype(np.uint8), lib.RETR_CCOMP, lib.CHAIN_APPROX_SIMPLE)
    return [outline for outline, (*_, parent) in zip(found, levels[0]) if parent < 0]


def heat_of(anomaly_map: NDArray[np.float32], limit: float) -> NDArray[np.float32]:
    """Return how hot the values of a map are drawn: 0 and below not at all, 0.5 at the limit, 1 and above fully.

    A map without a defect is about 0 if the limit is above 0. If the limit is below 0, as with likelihoods, full heat
    is at 0.

    Args:
        anomaly_map: float32, of any shape.
        limit: of its values, above which a pixel is in the mask.
    """
    return np.asarray(anomaly_map / max(2 * abs(limit), 1e-12) + (limit < 0), np.float32)


def cold_value(limit: float) -> float:
    """Return a map value without heat, for what shows nothing of a map with this limit."""
    return min(0.0, 2 * limit)


def draw_overlay(frame: Frame, anomaly_map: NDArray[np.float32], mask: Mask, limit: float) -> Frame:
    """Blend an anomaly map over a frame and outline its mask.

    Args:
        frame: ``(H, W, 3) uint8 BGR``; depth is left out.
        anomaly_map: ``(h, w) float32`` of the whole frame, see `spread_map`; resized to the frame.
        mask: ``(H, W) bool``; outlined in red.
        limit: see `heat_of`; typically the pixel threshold.

    Returns:
        A new ``(H, W, 3) uint8 BGR`` picture.
    """
    lib = cv2()
    height, width = frame.shape[:2]
    heat = np.clip(np.nan_to_num(heat_of(anomaly_map, limit)), 0.0, 1.0)
    heat = lib.resize(heat, (width, height), interpolation=lib.INTER_LINEAR)[:, :, None]
    colours = lib.applyColorMap((heat * 255).astype(np.uint8), lib.COLORMAP_TURBO)
    mixed = frame[:, :, :3] * (1 - 0.6 * heat) + colours * (0.6 * heat)
    picture = np.ascontiguousarray(mixed, np.uint8)  # a frame of planes, (3, H, W) transposed, is not
    thickness = max(1, round(min(height, width) / 256))
    lib.drawContours(picture, outlines_of(mask), -1, (0, 0, 255), thickness)
    return np.asarray(picture)
