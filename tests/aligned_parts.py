"""Drawn parts that lie anywhere, and geometries that align them."""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgead.geometry import Geometry
from edgead.geometry.alignment import reference_of
from edgead.geometry.pose import Alignment, Pose, points_of
from edgead.geometry.resampling import warp

SIZE = (200, 280)
"""(height, width) of `part_frame`."""
CORNERS = np.array([(60, 60, 1), (220, 60, 1), (60, 140, 1), (220, 140, 1)], np.float64).T
"""Points around the part."""


def part_frame(noise: int = 0, defect: bool = False) -> NDArray[np.uint8]:
    """A plate with a hole, a notch and marks, that looks the same from no other side; perhaps with a bright defect."""
    frame = np.full((*SIZE, 3), 60, np.uint8)
    cv2.rectangle(frame, (70, 65), (210, 135), (120, 120, 120), -1)
    cv2.circle(frame, (95, 100), 14, (20, 20, 20), -1)
    cv2.rectangle(frame, (170, 65), (185, 85), (60, 60, 60), -1)
    cv2.line(frame, (125, 120), (200, 105), (90, 90, 90), 4)
    if defect:
        cv2.rectangle(frame, (140, 85), (151, 92), (250, 250, 250), -1)
    rng = np.random.default_rng(noise)
    return np.clip(frame + rng.normal(0, 3, frame.shape), 0, 255).astype(np.uint8) if noise else frame


def lying(frame: NDArray[np.uint8], pose: Pose, centre: tuple[float, float] = (0.5, 0.5)) -> NDArray[np.uint8]:
    """Return a frame whose part lies at a pose, seen from where it lies at none."""
    size = (frame.shape[0], frame.shape[1])
    pixels = points_of(0, 0, size[1], size[0], size)
    return warp(frame, np.linalg.inv(pixels) @ np.linalg.inv(pose.matrix(size, centre)) @ pixels, size)


def aligning(frame: NDArray[np.uint8], geometry: Geometry = Geometry(), **changes: Any) -> Geometry:  # noqa: B008
    """Return a geometry that aligns frames to one of them."""
    shape, pixels = reference_of(frame, geometry)
    align = Alignment("reference.png", (frame.shape[0], frame.shape[1]), shape, pixels, 0.2, 180.0, 0.6, 9, 10)
    return dataclasses.replace(geometry, align=dataclasses.replace(align, **changes))


def distance(one: Pose, other: Pose, size: tuple[int, int], centre: tuple[float, float] = (0.5, 0.5)) -> float:
    """Return how many pixels two poses differ by at most, around the part of a `part_frame` of any size."""
    scale = size[1] / SIZE[1]
    points = CORNERS * [[scale], [scale], [1]]
    apart = (one.matrix(size, centre) - other.matrix(size, centre)) @ points
    return float(np.hypot(*apart[:2]).max())
