"""Faint changes of good images, on which two graphs must rank alike. Reasons: docs/adr/0057."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgead.images import Frame

OPACITY = (0.1, 0.5)
"""Range of the opacity of what is pasted."""
EXTENT = (0.05, 0.25)
"""Range of its height and width, as shares of the image's."""
LIGHT = 0.05
"""Largest relative change of the whole image's brightness."""


def draw_faint(frames: NDArray[np.uint8], count: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return good images with a faint patch of another place, every other one with its colours inverted.

    The patches fade out towards their rim. Some cannot be seen; such an image is a good one in another light.

    Args:
        frames: ``[N, H, W, C] uint8``, used in turn.
        count: number of images.
        rng: all that is random.

    Returns:
        ``[count, H, W, C] uint8``.
    """
    return np.stack([_paste(frames[number % len(frames)], frames, number % 2 == 1, rng) for number in range(count)])


def _paste(frame: Frame, frames: NDArray[np.uint8], invert: bool, rng: np.random.Generator) -> Frame:
    height, width = (max(3, round(rng.uniform(*EXTENT) * side)) for side in frame.shape[:2])
    (top, left), (from_top, from_left) = (
        rng.integers(0, (frame.shape[0] - height + 1, frame.shape[1] - width + 1)) for _ in range(2)
    )
    patch = frames[rng.integers(len(frames)), from_top : from_top + height, from_left : from_left + width]
    rows, columns = (np.linspace(-1, 1, side) for side in (height, width))
    inside = np.clip(1 - rows[:, None] ** 2 - columns[None, :] ** 2, 0, 1)[:, :, None]
    changed = frame * (1 + rng.uniform(-LIGHT, LIGHT))
    place = changed[top : top + height, left : left + width]
    place += rng.uniform(*OPACITY) * inside * ((255.0 - patch if invert else patch) - place)
    return np.clip(np.round(changed), 0, 255).astype(np.uint8)
