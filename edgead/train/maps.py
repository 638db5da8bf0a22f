"""Coarse anomaly maps to the input's size, as one matrix product on either side.

Interpolation and a Gaussian filter are both linear and separable, so their product is a constant matrix for each
axis: two small matrix products in the graph, and exactly SciPy's border.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgead.geometry.interpolation import interpolation_matrix

TRUNCATE = 4.0
"""Radius of the Gaussian in standard deviations, as in SciPy."""

Matrix = NDArray[np.float64]


def upsampling(side: int, cells: int, *, corners: bool, sigma: float = 0.0) -> Tensor:
    """Return ``[side, cells] float32``: linear interpolation followed by a Gaussian filter along one axis.

    Args:
        side: pixels of the result.
        cells: of the coarse map.
        corners: whether the first and last cells' centres are the first and last pixels' (``align_corners``).
        sigma: of the Gaussian in pixels; its border repeats the edge (SciPy's ``reflect``). 0 for none.
    """
    matrix = interpolation_matrix(side, cells, corners=corners)
    if sigma > 0:
        matrix = _gaussian(side, sigma) @ matrix
    return torch.from_numpy(matrix.astype(np.float32))


def box_mean(side: int, window: int) -> Tensor:
    """Return the symmetric ``[side, side] float32`` matrix whose product is a mean over `window` pixels, zeros outside.

    Args:
        side: pixels along the axis.
        window: odd.
    """
    index = torch.arange(side)
    near = (index[:, None] - index[None, :]).abs() <= window // 2
    return near.float() / window


def gaussian_weights(sigma: float) -> Tensor:
    """Return SciPy's Gaussian window, ``[2 r + 1] float64``, its weights summing to one."""
    offsets = torch.arange(-_radius(sigma), _radius(sigma) + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / max(sigma, 1e-12)) ** 2)
    return weights / weights.sum()


def _radius(sigma: float) -> int:
    return int(TRUNCATE * sigma + 0.5)


def _gaussian(side: int, sigma: float) -> Matrix:
    matrix = np.zeros((side, side))
    rows = np.arange(side)
    for offset, weight in enumerate(gaussian_weights(sigma).tolist(), start=-_radius(sigma)):
        folded = (rows + offset) % (2 * side)  # … b a | a b c | c b a …
        np.add.at(matrix, (rows, np.where(folded < side, folded, 2 * side - 1 - folded)), weight)
    return matrix
