"""Held-out good images that differ from all others: one of them can set the threshold, or turn a check off."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from edgead.console import Console
from edgead.datasets import Frames
from edgead.datasets.category import some
from edgead.runtime.health import is_black

MOST = 0.1
"""Share of the images, at least one image, that may stand apart. More of them are a kind of their own."""
FEWEST = 8
"""Images below which the largest of several scores is often far from the others by chance."""
ROUNDING = 1e-5
"""Relative difference of equal scores."""


def stand_apart(scores: ArrayLike) -> int:
    """Return how many of the highest scores stand apart from the others; 0 if none do.

    They do if the gap below them is wider than the range of all scores below it. Of 8 normally distributed scores, 3 %
    of the samples have such a gap, of 20 hardly any.

    Args:
        scores: ``[n]``, finite.
    """
    values = np.sort(np.asarray(scores, dtype=np.float64))
    if len(values) < FEWEST:
        return 0
    for count in range(max(1, int(MOST * len(values))), 0, -1):
        others, lowest = values[:-count], values[-count]
        if lowest - others[-1] > max(others[-1] - others[0], ROUNDING * abs(lowest)):
            return count
    return 0


def warn_of_odd_images(normals: Frames, scores: ArrayLike, threshold: float, console: Console) -> None:
    """Name held-out images that set the threshold alone, and those that turn the check for black frames off.

    Args:
        normals: held-out good images.
        scores: ``[N]``, of those images.
        threshold: that was fitted to the scores.
        console: shows the warnings.
    """
    values = np.asarray(scores, dtype=np.float64)
    order, count = np.argsort(values), stand_apart(values)
    if count and values[order[-count]] <= threshold:
        others = values[order[:-count]]
        console.say(
            f"Warning: the threshold is so high because of {count} of {len(values)} held-out good images: "
            f"{_names(normals, order[-count:])}. The others score {others[0]:.6g} to {others[-1]:.6g}. Defective parts "
            "with a score below the threshold pass. Look at these images; remove them if they show no good part."
        )
    black = [number for number, frame in enumerate(normals.frames) if is_black(frame)]
    if 0 < len(black) < len(values):
        console.say(
            f"Warning: {len(black)} of {len(values)} held-out good images are black: {_names(normals, black)}. "
            "Because of them, black frames may be decided like any other. Remove them if they show no good part."
        )


def _names(normals: Frames, numbers: Iterable[int]) -> str:
    return some([normals.paths[number] for number in numbers])
