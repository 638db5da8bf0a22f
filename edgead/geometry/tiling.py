"""Cuts canvases to the tiles that a graph sees, and stitches their maps without a seam.

Where two tiles overlap, the outer quarter of each is left out, because a network sees its input end there; in the half
between them the weights go linearly from one to the other. They add up to one everywhere.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgead.geometry import Geometry, Size

T = TypeVar("T", bound=np.generic)
LEFT_OUT = 0.25
"""Share of an overlap at each of its ends where only the other tile counts."""
AT_ONCE = 8
"""Tiles that a graph sees in one call at most: it needs the memory of so many frames."""


def at_once(tiles: int) -> int:
    """Return how many of so many tiles go into each call: equally many, `AT_ONCE` at most."""
    return math.ceil(tiles / math.ceil(tiles / AT_ONCE))


class Tiling:
    """The tiles of one geometry and graph.

    Args:
        geometry: with its tiles.
        size: (height, width) of the graph, and so of a tile.

    Attributes:
        canvas: (height, width) of what is cut.
        count: tiles of a canvas.
    """

    def __init__(self, geometry: Geometry, size: Size) -> None:
        self.size, self.canvas, self.count = size, geometry.canvas(size), geometry.count
        (rows, columns), (down, right) = geometry.tiles, geometry.strides(size)
        self._boxes = [
            (slice(y * down, y * down + size[0]), slice(x * right, x * right + size[1]))
            for y in range(rows)
            for x in range(columns)
        ]
        vertical, horizontal = _weights(rows, size[0], down), _weights(columns, size[1], right)
        kept: dict[tuple[bytes, bytes], NDArray[np.float32]] = {}
        self._weights = [
            kept.setdefault((y.tobytes(), x.tobytes()), np.outer(y, x)) for y in vertical for x in horizontal
        ]
        whole = [(_whole(y), _whole(x)) for y in vertical for x in horizontal]
        self._whole, self._edges = whole, [_around(rows, columns) for rows, columns in whole]

    def tile(self, canvas: NDArray[T], number: int) -> NDArray[T]:
        """Return a view of a tile ``[h, w, …]`` of a canvas ``[H, W, …]``; they are counted row by row."""
        return canvas[self._boxes[number]]

    def cut(self, canvases: NDArray[T], out: NDArray[T] | None = None) -> NDArray[T]:
        """Return the tiles ``[N · count, h, w, …]`` of canvases ``[N, H, W, …]``: a copy, or themselves if it is one.

        Args:
            canvases: to cut.
            out: of the tiles' shape and type; written and returned.
        """
        if self.count == 1:
            return canvases
        shape = (len(canvases) * self.count, *self.size, *canvases.shape[3:])
        found = np.empty(shape, canvases.dtype) if out is None else out
        for number, canvas in enumerate(canvases):
            for index in range(self.count):
                found[number * self.count + index] = self.tile(canvas, index)
        return found

    def add(self, canvas: NDArray[np.float32], number: int, tile: NDArray[np.float32]) -> None:
        """Add the map ``[h, w]`` (or ``[h, w, C]``) of a tile to a canvas ``[H, W]`` that began with zeros."""
        weights, place = self._weights[number], canvas[self._boxes[number]]
        weights = weights if tile.ndim == 2 else weights[:, :, None]
        with np.errstate(invalid="ignore"):  # what is not finite becomes NaN, which is UNKNOWN
            place[self._whole[number]] += tile[self._whole[number]]  # most of a tile, without a product
            for edge in self._edges[number]:
                place[edge] += tile[edge] * weights[edge]

    def stitch(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the maps ``[N, H, W, …]`` of tiles' maps ``[N · count, h, w, …]``."""
        if self.count == 1:
            return tiles
        maps = np.zeros((len(tiles) // self.count, *self.canvas, *tiles.shape[3:]), np.float32)
        for index, tile in enumerate(tiles):
            self.add(maps[index // self.count], index % self.count, tile)
        return maps

    def score(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the scores ``[N]`` of tiles' scores ``[N · count]``: the highest tile decides; NaN if any is NaN."""
        return scores if self.count == 1 else scores.reshape(-1, self.count).max(axis=1)


def _whole(weights: NDArray[np.float32]) -> slice:
    """Return where the weights along one side are 1: one stretch of it."""
    ones = np.flatnonzero(weights == 1)
    return slice(int(ones[0]), int(ones[-1]) + 1) if len(ones) else slice(0, 0)


def _around(rows: slice, columns: slice) -> list[tuple[slice, slice]]:
    """Return the parts of a tile above, below, left and right of a box, which together with it are all of it."""
    parts = [(slice(0, rows.start), slice(None)), (slice(rows.stop, None), slice(None))]
    return [*parts, (rows, slice(0, columns.start)), (rows, slice(columns.stop, None))]


def _weights(number: int, side: int, stride: int) -> list[NDArray[np.float32]]:
    """Return the weights along one side for each of so many tiles."""
    overlap = side - stride
    margin = int(LEFT_OUT * overlap)
    ramp = np.zeros(overlap, np.float32)
    middle = overlap - 2 * margin
    ramp[margin : margin + middle] = (np.arange(middle, dtype=np.float32) + 0.5) / max(1, middle)
    ramp[margin + middle :] = 1
    found = []
    for index in range(number):
        weights = np.ones(side, np.float32)
        if overlap and index > 0:
            weights[:overlap] = ramp
        if overlap and index < number - 1:
            weights[-overlap:] = 1 - ramp
        found.append(weights)
    return found
