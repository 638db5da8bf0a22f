"""What a frame looks like in three numbers, by which frames of a line are compared with held-out images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgead.images import Frame, cv2


class Look(NamedTuple):
    """Figures of a frame.

    Attributes:
        brightness: mean grey value, 0 to 255.
        sharpness: variance of the Laplacian, see `sharpness_of`.
        aspect: width / height before it was fitted to the model.
    """

    brightness: float
    sharpness: float
    aspect: float


def look_at(fitted: Frame, size: tuple[int, int]) -> Look:
    """Measure a frame.

    Args:
        fitted: ``(h, w, 3 or 4) uint8 BGR`` at the model's size; depth is ignored.
        size: (height, width) before it was fitted.
    """
    grey = cv2().cvtColor(fitted, cv2().COLOR_BGR2GRAY)
    mean, _ = cv2().meanStdDev(grey)
    return Look(float(mean[0, 0]), sharpness_of(grey), size[1] / size[0])


def sharpness_of(grey: NDArray[np.uint8]) -> float:
    """Return the variance of the Laplacian of a frame ``(h, w) uint8`` at the model's size. Blur lowers it first."""
    _, spread = cv2().meanStdDev(cv2().Laplacian(grey, cv2().CV_16S))
    return float(spread[0, 0] ** 2)
