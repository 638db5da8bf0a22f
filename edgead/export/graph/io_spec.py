"""Input and outputs of a third-party model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GREY = np.array([[7471], [38470], [19595]], np.float32) / np.float32(65536)
"""Weights of blue, green and red in the grey value. They are Pillow's; float32 adds them without rounding."""


@dataclass(frozen=True)
class IoSpec:
    """Input and outputs of a third-party model.

    Attributes:
        input: name of the image input.
        size: (height, width) of the images, pixels.
        channels: 3, or 1 for grey images, which are converted as Pillow does, to whole numbers.
        channels_last: the input is N×H×W×C instead of N×C×H×W.
        rgb: the colour order is RGB; BGR if False.
        scale, mean, std: the input is ``(pixels / scale - mean) / std``; mean and std per channel in the model's order.
        score: tensor with the image score; None: computed from the map.
        map: tensor with the pixel map, or ``"none"``.
        pool: the score is the mean of this share of the map's pixels, largest first; 0: the maximum.
        crop: (height, width) of the central crop that the model looks at; None: the whole image.
        batch: 1 for a model that accepts one image at a time, 0 for any number.
    """

    input: str
    size: tuple[int, int]
    channels: int = 3
    channels_last: bool = False
    rgb: bool = True
    scale: float = 255.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    score: str | None = None
    map: str = "none"
    pool: float = 0.0
    crop: tuple[int, int] | None = None
    batch: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one input image."""
        return (*self.size, self.channels) if self.channels_last else (self.channels, *self.size)

    def outputs(self) -> list[str]:
        """Names of the tensors with the results."""
        return [name for name in (self.score, self.map) if name not in (None, "none")]


def top_count(pixels: int, share: float) -> int:
    """Return the number of pixels in a share of them, at least 1."""
    return max(1, round(pixels * share))
