"""Rotations of a frame, pixel by pixel as the published code makes them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def rotation_index(size: tuple[int, int], degrees: float) -> NDArray[np.int64]:
    """Return for each pixel of a rotated image the flat index of its source, nearest neighbour; H·W means outside.

    Counter-clockwise about the centre, same size: the pixels that Pillow's ``rotate`` takes, by its arithmetic of 16
    binary places. A table instead of a sampling grid, because every engine then takes the same ones. Shape
    ``[H * W] int64``.
    """
    height, width = size
    turn = -np.deg2rad(degrees % 360)
    cos, sin = round(float(np.cos(turn)), 15), round(float(np.sin(turn)), 15)
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")

    def source(across: float, down: float, middle: float) -> NDArray[np.int64]:
        start = middle + across * (0.5 - width / 2) + down * (0.5 - height / 2)
        first, by_x, by_y = (int(np.floor(value * 65536 + 0.5)) for value in (start, across, down))
        return np.asarray((first + by_x * x + by_y * y) >> 16, np.int64)

    columns, rows = source(cos, sin, width / 2), source(-sin, cos, height / 2)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return np.where(inside, rows * width + columns, height * width).ravel()


def rotate_frame(frame: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """Rotate ``[H, W, 3]`` with `rotation_index`; what comes in from outside is black."""
    pixels = np.concatenate([frame.reshape(-1, 3), np.zeros((1, 3), np.uint8)])
    return pixels[rotation_index((frame.shape[0], frame.shape[1]), degrees)].reshape(frame.shape)
