"""Good images, taken a little differently: there two graphs must rank alike. Reasons: docs/adr/0057."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgead.images import Frame, cv2

TURN = 4.0
"""Largest rotation either way, degrees."""
SHIFT = 0.03
"""Largest shift, as a share of the side, and largest relative change of the scale."""
LIGHT = 0.1
"""Largest relative change of the brightness; of a single colour a third of it in addition."""
COLOURS = 3


def perturb(frames: NDArray[np.uint8], count: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn, shift, scale and light good images a little; the border is mirrored.

    Args:
        frames: ``[N, H, W, C] uint8``, used in turn; of a fourth channel, depth, no value is changed.
        count: number of images.
        rng: all that is random.

    Returns:
        ``[count, H, W, C] uint8``.
    """
    return np.stack([_perturb(frames[number % len(frames)], rng) for number in range(count)])


def _perturb(frame: Frame, rng: np.random.Generator) -> Frame:
    height, width = frame.shape[:2]
    matrix = cv2().getRotationMatrix2D(
        (width / 2, height / 2), rng.uniform(-TURN, TURN), 1 + rng.uniform(-SHIFT, SHIFT)
    )
    matrix[:, 2] += rng.uniform(-SHIFT, SHIFT, 2) * (width, height)
    gain = 1 + rng.uniform(-LIGHT, LIGHT) + rng.uniform(-LIGHT, LIGHT, COLOURS) / 3
    lit = np.clip(np.round(_warp(frame[:, :, :COLOURS], matrix, cv2().INTER_LINEAR) * gain), 0, 255).astype(np.uint8)
    if frame.shape[2] == COLOURS:
        return lit
    return np.dstack([lit, _warp(frame[:, :, COLOURS], matrix, cv2().INTER_NEAREST)])


def _warp(image: NDArray[np.uint8], matrix: NDArray[np.float64], how: int) -> NDArray[np.uint8]:
    side = (image.shape[1], image.shape[0])
    source = np.ascontiguousarray(image)
    return np.asarray(cv2().warpAffine(source, matrix, side, flags=how, borderMode=cv2().BORDER_REFLECT_101), np.uint8)
