"""Is what a camera gives an image of the part at all? Black, blurred and frozen pictures are named, not judged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgead.images import Frame, cv2

BLACK_MEAN, BLACK_SPREAD = 8.0, 4.0
"""A frame is black where its grey values have a lower mean and a lower standard deviation than these (of 255)."""
SAMPLES_A_SIDE = 64
"""Pixels a side that are compared to see whether anything changes; a camera's noise changes some of them."""


@dataclass(frozen=True)
class Limits:
    """What is still healthy.

    Attributes:
        sharpness: of good parts, see `measure_sharpness`; 0 where unknown, which turns the check for blur off.
        dark: good parts are themselves almost black, which turns the check for black off.
        blurred_below: share of `sharpness` below which a frame is blurred; 0 turns the check off.
        frozen_after: seconds in which not one sampled pixel changes; 0 turns the check off.
    """

    sharpness: float = 0.0
    dark: bool = False
    blurred_below: float = 0.1
    frozen_after: float = 5.0


def limits_from(frames: NDArray[np.uint8], blurred_below: float = 0.1, frozen_after: float = 5.0) -> Limits:
    """Learn what is healthy from frames ``[K, H, W, 3]`` at the model's size, for instance a bundle's golden ones."""
    return Limits(
        sharpness=min(measure_sharpness(frame) for frame in frames),
        dark=any(is_black(frame) for frame in frames),
        blurred_below=blurred_below,
        frozen_after=frozen_after,
    )


def measure_sharpness(fitted: Frame) -> float:
    """Variance of the Laplacian of a frame at the model's size: what blur takes away first."""
    grey = cv2().cvtColor(fitted, cv2().COLOR_BGR2GRAY)
    _, spread = cv2().meanStdDev(cv2().Laplacian(grey, cv2().CV_16S))
    return float(spread[0, 0] ** 2)


def is_black(fitted: Frame) -> bool:
    """Tell whether a frame shows nothing: a dead sensor, a closed lens, no light."""
    mean, spread = cv2().meanStdDev(cv2().cvtColor(fitted, cv2().COLOR_BGR2GRAY))
    return bool(mean[0, 0] < BLACK_MEAN and spread[0, 0] < BLACK_SPREAD)


class Health:
    """Looks at the frames of one source."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._samples: NDArray[np.uint8] | None = None
        self._changed_at = 0.0

    def check(self, frame: Frame, fitted: Frame, now: float) -> tuple[str, str]:
        """Return cause and reason why a frame must not be judged; both empty where it may.

        Args:
            frame: as captured.
            fitted: the same at the model's size.
            now: when it was captured, `time.monotonic` seconds.
        """
        still = self._seconds_without_change(frame, now)
        if 0 < self.limits.frozen_after <= still:
            return "frozen", f"frozen: no pixel has changed for {still:.1f} s"
        if not self.limits.dark and is_black(fitted):
            return "black", "black: the frame shows nothing"
        if self.limits.sharpness and self.limits.blurred_below:
            share = measure_sharpness(fitted) / self.limits.sharpness
            if share < self.limits.blurred_below:
                return "blurred", f"blurred: {share:.0%} of the sharpness of good parts"
        return "", ""

    def _seconds_without_change(self, frame: Frame, now: float) -> float:
        step = [max(1, side // SAMPLES_A_SIDE) for side in frame.shape[:2]]
        view = frame[:: step[0], :: step[1]]
        before = self._samples
        if before is not None and before.shape == view.shape and np.array_equal(before, view):
            return now - self._changed_at
        if before is not None and before.shape == view.shape:
            np.copyto(before, view)
        else:
            self._samples = view.copy()
        self._changed_at = now
        return 0.0
