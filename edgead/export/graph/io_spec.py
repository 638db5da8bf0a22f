"""How a third-party model takes frames and where its results are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GREY = np.array([[7471], [38470], [19595]], np.float32) / np.float32(65536)
"""Blue's, green's and red's share of the grey value: Pillow's, which float32 adds up without rounding."""


@dataclass(frozen=True)
class IoSpec:
    """How a model reads frames and where its results are.

    Attributes:
        input: name of the image input.
        size: (height, width) of the images, pixels.
        channels: 3, or 1 where the model takes grey images: of colours as Pillow makes them, whole numbers.
        channels_last: N×H×W×C instead of N×C×H×W.
        rgb: the colour order; BGR where False.
        scale: grey values are divided by it first …
        mean, std: … then this is subtracted, and divided by; for each channel, in the model's order.
        score: tensor with the image score; None where it is computed from the map.
        map: tensor with the pixel map, or ``"none"``.
        pool: the score's share of map pixels, largest first, whose mean it is; 0 for the maximum.
        crop: (height, width) of the middle of the image that the model looks at; None for all of it.
        batch: 1 where the model takes no more than one image at a time; 0 where it takes any number.
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
        """Of an image as the model takes it."""
        return (*self.size, self.channels) if self.channels_last else (self.channels, *self.size)

    def outputs(self) -> list[str]:
        """The tensors that are read."""
        return [name for name in (self.score, self.map) if name not in (None, "none")]


def top_count(pixels: int, share: float) -> int:
    """How many pixels a share of them is; at least one."""
    return max(1, round(pixels * share))
