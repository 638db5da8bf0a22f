"""Entropy calibration: the range of a tensor that loses the least information in 128 steps.

TensorRT's published rule (Migacz, "8-bit Inference with TensorRT", GTC 2017): values beyond the range go to its last
bin, and the range with the smallest Kullback-Leibler divergence between the counts and their version in 128 steps wins.
ONNX Runtime's implementation never goes below the largest value of the first image, so it depends on their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

BINS = 2048
"""Bins of the histogram of absolute values; a range is counted in bins."""
STEPS = 128


def narrowed(
    ranges: Mapping[str, tuple[float, float]],
    frames: Iterable[NDArray[np.uint8]],
    run: Callable[[NDArray[np.uint8]], Mapping[str, NDArray[np.float32]]],
) -> dict[str, tuple[float, float]]:
    """Return the ranges after entropy calibration; they never become wider.

    Args:
        ranges: lowest and highest value of every tensor; ranges that are zero or not finite are not changed.
        frames: ``[H, W, C] uint8`` each, the frames that the ranges were measured on.
        run: frame ↦ values of the tensors, of any shape.
    """
    largest = {name: max(abs(low), abs(high)) for name, (low, high) in ranges.items()}
    counts = {name: np.zeros(BINS, np.int64) for name in ranges if 0 < largest[name] < np.inf}
    for frame in frames:
        for name, values in run(frame).items():
            if name in counts:
                counts[name] += np.histogram(np.abs(values), BINS, (0.0, largest[name]))[0]
    limits = {name: largest[name] * best_size(found) / BINS for name, found in counts.items()}
    return {
        name: (max(low, -limits[name]), min(high, limits[name])) if name in limits else (low, high)
        for name, (low, high) in ranges.items()
    }


def best_size(counts: NDArray[np.int64]) -> int:
    """Return the number of bins, counted from zero, in the range that loses the least information.

    Args:
        counts: ``[BINS]``, how many absolute values fall into each bin; the last one holds the largest.
    """
    counts = np.concatenate([counts[1:2], counts[1:]])  # zeros, half of a ReLU's values, are exact in any range
    best, chosen = np.inf, len(counts)
    total = counts.sum()
    for size in range(STEPS, len(counts) + 1):
        inside = counts[:size]
        if not inside[-1]:
            continue  # values beyond would go to a bin that is empty in the coarse counts
        starts = np.arange(STEPS) * size // STEPS
        filled = inside > 0
        share = np.add.reduceat(inside, starts) / np.maximum(np.add.reduceat(filled, starts, dtype=np.int64), 1)
        coarse = np.repeat(share, np.diff(starts, append=size))[filled]
        fine = inside[filled].astype(np.float64)
        fine[-1] += total - inside.sum()
        divergence = float((fine / total * np.log(fine / total / (coarse / coarse.sum()))).sum())
        if divergence < best:
            best, chosen = divergence, size
    return chosen
