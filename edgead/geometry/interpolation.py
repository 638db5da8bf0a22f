"""Resizing along one axis, as a matrix: exact, and no engine rounds its size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def interpolation_matrix(side: int, cells: int, *, corners: bool = False) -> NDArray[np.float64]:
    """Return ``[side, cells]``, whose product with `cells` values is `side` interpolated ones.

    Args:
        side: pixels of the result.
        cells: of the coarse values.
        corners: the centres of the first and last cells are those of the first and last pixels (``align_corners``);
            otherwise pixel centres are aligned as in OpenCV.
    """
    if corners:
        places = np.arange(side) * ((cells - 1) / max(1, side - 1))
    else:
        places = np.clip((np.arange(side) + 0.5) * (cells / side) - 0.5, 0, cells - 1)
    first = np.minimum(places.astype(int), max(0, cells - 2))
    matrix = np.zeros((side, cells))
    matrix[np.arange(side), first] = 1 - (places - first)
    matrix[np.arange(side), np.minimum(first + 1, cells - 1)] += places - first
    return matrix


def area_matrix(side: int, cells: int) -> NDArray[np.float64]:
    """Return ``[side, cells]``, whose product with `cells` values is `side` means, each of the cells that it covers.

    Args:
        side: pixels of the result, at most `cells`.
        cells: values that are averaged; one that two pixels cover counts for both, by its shares.
    """
    edges = np.arange(side + 1) * (cells / side)
    first, last = edges[:-1, None], edges[1:, None]
    cell = np.arange(cells)
    matrix: NDArray[np.float64] = np.clip(np.minimum(last, cell + 1) - np.maximum(first, cell), 0, None)
    matrix /= matrix.sum(axis=1, keepdims=True)
    return matrix
