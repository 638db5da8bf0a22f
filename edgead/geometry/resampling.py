"""Makes smaller, shifted and turned pictures of a picture."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgead.errors import require

T = TypeVar("T", bound=np.generic)
AROUND = 0.125
"""Share of a side over which the median of an edge is taken: details that are half as long vanish."""


def halvings(image: tuple[int, int], size: tuple[int, int]) -> int:
    """Return how often both sides of a picture are halved: while they are even and stay at or above (height, width)."""
    count, (h, w) = 0, image
    while h % 2 == 0 and w % 2 == 0 and h >= 2 * size[0] and w >= 2 * size[1]:
        count, h, w = count + 1, h // 2, w // 2
    return count


def halve(image: NDArray[T], size: tuple[int, int]) -> NDArray[T]:
    """Halve both sides of a picture as often as `halvings` says.

    OpenCV averages 2×2 pixels several times faster than areas of any other size.
    """
    lib = require("cv2", "cpu")
    for _ in range(halvings(image.shape[:2], size)):
        h, w = image.shape[:2]
        image = lib.resize(image, (w // 2, h // 2), interpolation=lib.INTER_AREA)
    return image


def warp(
    image: NDArray[T],
    matrix: NDArray[np.float64],
    size: tuple[int, int],
    beyond: float | Literal["edge", "smooth edge"] = "edge",
    nearest: bool = False,
) -> NDArray[T]:
    """Return a picture of (height, width) whose pixel (x, y) shows the image's pixel ``matrix @ (x, y, 1)``.

    Args:
        image: ``(h, w)`` or ``(h, w, C)``.
        matrix: ``(3, 3)``, between pixels as OpenCV counts them: the first one's centre is at (0, 0).
        size: of the returned picture.
        beyond: what is beyond the image: a value, its edge repeated, or (``uint8`` only) its edge repeated
            without narrow details.
        nearest: take the nearest pixel's value, instead of one between four pixels'.
    """
    lib: Any = require("cv2", "cpu")
    if beyond == "smooth edge":
        image, matrix = _with_smooth_edge(image), np.array([[1, 0, 1], [0, 1, 1], [0, 0, 1]]) @ matrix
    border = {"borderMode": lib.BORDER_REPLICATE} if isinstance(beyond, str) else {"borderValue": beyond}
    flags = (lib.INTER_NEAREST if nearest else lib.INTER_LINEAR) | lib.WARP_INVERSE_MAP
    return np.asarray(lib.warpAffine(image, matrix[:2], size[::-1], flags=flags, **border))


def _with_smooth_edge(image: NDArray[T]) -> NDArray[T]:
    """Return an image ``(h, w)`` or ``(h, w, C)`` with one more pixel around it: the medians along its edge."""
    lib: Any = require("cv2", "cpu")
    framed = lib.copyMakeBorder(image, 1, 1, 1, 1, lib.BORDER_REPLICATE)
    for line in (framed[0], framed[-1], framed[:, 0], framed[:, -1]):
        around = min(int(len(line) * AROUND) | 1, 255)
        line[:] = lib.medianBlur(np.ascontiguousarray(line[None]), around)[0]
    return np.asarray(framed)
