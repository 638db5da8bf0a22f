"""Checks of frames before inference: black, blurred, frozen and stretched frames are not judged."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.images import Frame, cv2
from edgead.runtime.look import sharpness_of

COLOURS = 3
"""Channels of a frame before depth."""
BLACK_MEAN, BLACK_SPREAD = 8.0, 4.0
"""A frame is black if the mean and the standard deviation of its grey values (0 to 255) are below these."""
SAME_ASPECT = 0.02
"""Relative difference up to which two aspect ratios count as equal: rounding and cropped rows."""
FEWER_PIXELS = 0.9
"""Share of a source's first frame size below which a smallest area in pixels is clearly more of the picture."""
SAMPLES_A_SIDE = 64
"""Pixels per side that are compared between frames; a camera's noise changes some of them."""
LEAST_MEASURED = 0.5
"""Of the pixels with depth that good parts have at least. With fewer, too much of the part is not seen."""


@dataclass(frozen=True)
class HealthLimits:
    """Limits of a healthy frame.

    Attributes:
        sharpness: of good parts, see `measure_sharpness`; 0 if unknown, which turns the check for blur off.
        dark: good parts are almost black, which turns the check for black off.
        measured: least share of pixels with depth that good parts have; 0 without depth.
        blurred_below: share of `sharpness` below which a frame is blurred; 0 turns the check off.
        frozen_after: seconds in which not one sampled pixel changes; 0 turns the check off.
        aspects: lowest and highest width / height of the training images; None if unknown.
        least: (height, width) in pixels; a frame with less of either is too coarse to show what the network saw in
            training; None if unknown.
        refuse_untrained: a frame of another aspect ratio, or a coarse one, must not be judged.
    """

    sharpness: float = 0.0
    dark: bool = False
    measured: float = 0.0
    blurred_below: float = 0.1
    frozen_after: float = 5.0
    aspects: tuple[float, float] | None = None
    least: tuple[float, float] | None = None
    refuse_untrained: bool = False

    def has_trained(self, size: tuple[int, int]) -> bool | None:
        """Return whether training images had the aspect ratio of a frame (height, width); None if unknown."""
        if self.aspects is None:
            return None
        low, high = self.aspects
        return low * (1 - SAME_ASPECT) <= size[1] / size[0] <= high * (1 + SAME_ASPECT)

    def why_untrained(self, size: tuple[int, int]) -> tuple[str, str]:
        """Return how a frame (height, width) differs from the training images: headline and details; or nothing."""
        if self.has_trained(size) is False and self.aspects:
            low, high = self.aspects
            text = f"{_words(size)} has an aspect ratio of {size[1] / size[0]:.2f}; the training images had {low:.2f}"
            return "frames have another shape", text + (f" to {high:.2f}" if high - low > 0.01 else "")
        if self.least and (size[0] < self.least[0] or size[1] < self.least[1]):
            text = f"{_words(size)} is less than half of what the network saw of each side in training"
            return "frames are too coarse", f"{text}; small defects do not show"
        return "", ""

    def why_unclear(self, fitted: Frame) -> tuple[str, str]:
        """Return cause and reason if a frame at the model's size is black or blurred; both empty if not."""
        if not self.dark and is_black(fitted):
            return "black", "black: the frame shows nothing"
        if self.measured and (seen := measured_share(fitted)) < LEAST_MEASURED * self.measured:
            return "black", f"black: {seen:.0%} of the pixels have depth, on good parts at least {self.measured:.0%}"
        if self.sharpness and self.blurred_below:
            share = measure_sharpness(fitted) / self.sharpness
            if share < self.blurred_below:
                return "blurred", f"blurred: {share:.0%} of the sharpness of good parts"
        return "", ""


def limits_from(frames: NDArray[np.uint8], blurred_below: float = 0.1, frozen_after: float = 5.0) -> HealthLimits:
    """Derive limits from frames ``[K, H, W, 3 or 4]`` at the model's size, for instance a bundle's golden frames."""
    return HealthLimits(
        sharpness=min(measure_sharpness(frame) for frame in frames),
        dark=any(is_black(frame) for frame in frames),
        measured=min(map(measured_share, frames)),
        blurred_below=blurred_below,
        frozen_after=frozen_after,
    )


def measure_sharpness(fitted: Frame) -> float:
    """Return `edgead.runtime.look.sharpness_of` a frame ``(h, w, 3 or 4) uint8`` at the model's size."""
    return sharpness_of(cv2().cvtColor(fitted, cv2().COLOR_BGR2GRAY))


def measured_share(fitted: Frame) -> float:
    """Return the share of pixels of a frame ``(h, w, 4) uint8`` with depth; 0 of one without a channel for it."""
    return float(np.count_nonzero(fitted[:, :, COLOURS:]) / (fitted.shape[0] * fitted.shape[1]))


def is_black(fitted: Frame) -> bool:
    """Return whether a frame shows nothing: a dead sensor, a closed lens, no light."""
    mean, spread = cv2().meanStdDev(cv2().cvtColor(fitted, cv2().COLOR_BGR2GRAY))
    return bool(mean[0, 0] < BLACK_MEAN and spread[0, 0] < BLACK_SPREAD)


def _ignore(name: str, text: str) -> None:
    """Default `notice`: does nothing."""


class _Stillness:
    """How long a camera has shown the same.

    Attributes:
        seconds: in which not one sampled pixel has changed.
    """

    def __init__(self) -> None:
        self._samples: NDArray[Any] | None = None
        self._changed_at, self.seconds = 0.0, 0.0

    def look(self, image: NDArray[Any], now: float) -> None:
        """Compare a picture ``(H, W)`` or ``(H, W, C)`` with the one before; `now` is in seconds."""
        step = [max(1, side // SAMPLES_A_SIDE) for side in image.shape[:2]]
        view, before = image[:: step[0], :: step[1]], self._samples
        if before is None or before.shape != view.shape or not np.array_equal(before, view):
            self._samples, self._changed_at = view.copy(), now
        self.seconds = now - self._changed_at


class Health:
    """Checks the frames of one source.

    Args:
        limits: limits of a healthy frame; may be replaced at any time.
        notice: called with a cause and a line if the size of the frames changes (``resized``), and if no training image
            had their aspect ratio, or if they are too coarse (``untrained``).
        picky: unhealthy frames must not be judged; otherwise only their size is checked.

    Attributes:
        counts_pixels: a rule counts pixels of the frame (`min_area`), so that frames with fewer of them must not be
            judged by it. May be set at any time.
    """

    def __init__(self, limits: HealthLimits, notice: Callable[[str, str], None] = _ignore, picky: bool = True) -> None:
        self.limits, self._notice, self._picky = limits, notice, picky
        self.counts_pixels = False
        self._first_size: tuple[int, int] | None = None
        self._judged: tuple[tuple[int, int], HealthLimits, bool] | None = None
        self._shape_answer = "", ""
        self._sensors = _Stillness(), _Stillness()

    def look(self, image: NDArray[Any], now: float) -> None:
        """Note for how long the pictures have been the same. Before `check`, and for each frame that is not inspected.

        A camera may freeze while no part is there, and then its picture shows an earlier one.

        Args:
            image: as captured, ``(H, W)`` or ``(H, W, C)`` of any type; with depth ``(H, W, 4) uint8``.
            now: when it was captured, `time.monotonic` seconds.
        """
        if not self._picky or not isinstance(image, np.ndarray) or image.ndim < 2:
            return
        parts = [image]
        if self.limits.measured and image.ndim == 3:  # colour and depth may come from two cameras
            parts = [image[:, :, :COLOURS], image[:, :, COLOURS:]]
        for sensor, part in zip(self._sensors, parts):
            sensor.look(part, now)

    def check(self, frame: Frame, fitted: Frame) -> tuple[str, str]:
        """Return cause and reason why a frame must not be judged; both empty if it may.

        Args:
            frame: as captured.
            fitted: the same at the model's size.
        """
        cause, reason = self._check_size((frame.shape[0], frame.shape[1]))
        if cause == "untrained" or (cause and self._picky):
            return cause, reason
        if not self._picky:
            return "", ""
        for sensor, name in zip(self._sensors, ("pixel", "depth")):
            if 0 < self.limits.frozen_after <= sensor.seconds:
                return "frozen", f"frozen: no {name} has changed for {sensor.seconds:.1f} s"
        return self.limits.why_unclear(fitted)

    def check_again(self, frame: Frame, fitted: Frame) -> tuple[str, str]:
        """Check by `limits` a frame that other limits have let pass. What changes over time was looked at then."""
        text = self.limits.why_untrained((frame.shape[0], frame.shape[1]))[1] if self.limits.refuse_untrained else ""
        if text:
            return "untrained", f"untrained: {text}"
        return self.limits.why_unclear(fitted) if self._picky else ("", "")

    def _check_size(self, size: tuple[int, int]) -> tuple[str, str]:
        limits, before, self._judged = self.limits, self._judged, (size, self.limits, self.counts_pixels)
        if before == self._judged:
            return self._shape_answer
        first = self._first_size = self._first_size or size
        if before and before[0] != size:
            self._notice("resized", f"frames are now {_words(size)}, before {_words(before[0])}")
        headline, text = limits.why_untrained(size)
        if headline:
            self._notice("untrained", f"{headline}: {text}")
        self._shape_answer = "", ""
        if limits.refuse_untrained and headline:
            self._shape_answer = "untrained", f"untrained: {text}"
        elif not limits.has_trained(size) and not _same_aspect(size, first):
            text = f"{_words(size)} has another aspect ratio than {_words(first)}, this source's first frame size"
            self._shape_answer = "resized", f"resized: {text}"
        elif self.counts_pixels and math.prod(size) < FEWER_PIXELS * math.prod(first):
            text = f"{_words(size)} has fewer pixels than {_words(first)}, this source's first frame size"
            self._shape_answer = "resized", f"resized: {text}, and the smallest area of a defect is in pixels"
        return self._shape_answer


def _words(size: tuple[int, int]) -> str:
    return f"{size[1]}×{size[0]}"


def _same_aspect(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return abs(one[1] * other[0] / (one[0] * other[1]) - 1) <= SAME_ASPECT
