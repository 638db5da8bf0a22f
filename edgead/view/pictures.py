"""Pictures for the page: a JPEG of the frame, a transparent PNG of the heat map, and the outline of the mask."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgead.decision import Verdict
from edgead.geometry import STRETCH
from edgead.images import Frame, cv2, fit_frame
from edgead.masks import cold_value, heat_of, outlines_of, spread_map
from edgead.runtime.defects import is_finite, mark_in_frame
from edgead.runtime.result import Result

LIVE_SIDE, LARGE_SIDE, SMALL_SIDE, HEAT_SIDE = 640, 1600, 160, 96
"""Longest sides in pixels: of a live picture, of a reject shown large, of one in the strip, of a heat map."""
QUALITY = 80
"""Of JPEG."""


@dataclass(frozen=True)
class Picture:
    """A frame with what the model found, for the browser to lay over each other.

    Attributes:
        width, height: of the frame in pixels.
        jpeg: base64.
        heat: base64 of a PNG with the heat as opacity; empty if nothing was inferred.
        outline: of the mask, as the path of an SVG in units of 1/1000 of the frame's width and height; may be empty.
    """

    width: int
    height: int
    jpeg: str
    heat: str = ""
    outline: str = ""


def shrink(frame: Frame, side: int) -> Frame:
    """Return a frame's colours with at most `side` pixels a side; the frame itself if it is small enough."""
    height, width = frame.shape[:2]
    colours = np.ascontiguousarray(frame[:, :, :3])
    scale = side / max(height, width)
    return colours if scale >= 1 else fit_frame(colours, (max(1, round(height * scale)), max(1, round(width * scale))))


def encode_jpeg(frame: Frame) -> bytes:
    """Encode ``(H, W, 3) uint8 BGR``."""
    _, data = cv2().imencode(".jpg", np.ascontiguousarray(frame), [cv2().IMWRITE_JPEG_QUALITY, QUALITY])
    return bytes(data)


def draw(result: Result, frame: Frame, side: int) -> Picture:
    """Encode a frame and what the model found in it.

    Args:
        result: of the frame.
        frame: ``(H, W, C) uint8``, the result's or a reduced copy of it.
        side: longest side of the JPEG in pixels.
    """
    height, width = result.frame_size
    small = shrink(frame, side)
    jpeg = to_text(encode_jpeg(small))
    if result.anomaly_map is None or not is_finite(result.anomaly_map):
        return Picture(width, height, jpeg)
    heat = to_text(encode_heat(_heat_of(result, result.anomaly_map), result.mask_threshold))
    return Picture(width, height, jpeg, heat, outline_of(result, (small.shape[0], small.shape[1])))


def _heat_of(result: Result, anomaly_map: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a map of the whole frame: with a crop or a letterbox, the map does not cover it."""
    if result.geometry == STRETCH or not all(result.frame_size):
        return anomaly_map
    scale = min(1.0, 4 * HEAT_SIDE / max(result.frame_size))
    height, width = (max(1, round(side * scale)) for side in result.frame_size)
    nothing = cold_value(result.mask_threshold)
    return spread_map(anomaly_map, result.geometry, result.frame_size, (height, width), outside=nothing)


def encode_heat(anomaly_map: NDArray[np.float32], mask_threshold: float) -> bytes:
    """Encode a finite ``(h, w) float32`` map as PNG. Its heat is that of overlays."""
    lib = cv2()
    height, width = anomaly_map.shape
    scale = min(1.0, HEAT_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    heat = heat_of(np.asarray(lib.resize(anomaly_map, size, interpolation=lib.INTER_AREA)), mask_threshold)
    grey, opacity = ((np.clip(value, 0.0, 1.0) * 255).astype(np.uint8) for value in (heat, 2 * heat - 0.4))
    colours = lib.applyColorMap(grey, lib.COLORMAP_TURBO)
    _, data = lib.imencode(".png", np.dstack([colours, opacity]), [lib.IMWRITE_PNG_COMPRESSION, 1])
    return bytes(data)


def outline_of(result: Result, size: tuple[int, int]) -> str:
    """Return the outline of a result's mask as the path of an SVG, 1000 units wide and high.

    Args:
        result: with a finite map.
        size: (height, width) at which the mask is traced.
    """
    if result.verdict is Verdict.PASS or not result.score > result.threshold or math.isnan(result.score):
        return ""
    assert result.anomaly_map is not None
    mask = mark_in_frame(result.anomaly_map, result.mask_threshold, result.region, size, result.geometry)
    return "".join(_path(outline.reshape(-1, 2), size) for outline in outlines_of(mask))


def _path(points: NDArray[np.int32], size: tuple[int, int]) -> str:
    scaled = np.rint((points + 0.5) * (1000 / size[1], 1000 / size[0])).astype(int)
    return "M" + "L".join(f"{x} {y}" for x, y in scaled.tolist()) + "Z"


def to_text(data: bytes) -> str:
    """Return bytes as base64."""
    return base64.b64encode(data).decode("ascii")
