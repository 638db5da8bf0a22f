"""EXIF orientation: read from a file's bytes and applied here, so that every version of OpenCV shows the same."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from edgead.errors import require
from edgead.formats.tags import read_tables

_ORIENTATION = 274
_PREFIX = b"Exif\0\0"
_FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}
"""Orientation ↦ OpenCV's flip code, after rows and columns were exchanged for 5 to 8."""


def read_orientation(exif: bytes) -> int:
    """Return the orientation, 1 to 8, of EXIF data; 1 if it is missing or invalid."""
    try:
        values = next(read_tables(exif.removeprefix(_PREFIX), 1, (_ORIENTATION,)), {}).get(_ORIENTATION, ())
    except ValueError:
        return 1
    return values[0] if values and 1 <= values[0] <= 8 else 1


def turn(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn an image ``(H, W)`` or ``(H, W, C)`` upright; as it is for orientation 1, a new array for the others."""
    lib = require("cv2", "cpu")
    if orientation >= 5:
        image = lib.transpose(image)
    if orientation in _FLIPS:
        image = lib.flip(image, _FLIPS[orientation])
    return image
