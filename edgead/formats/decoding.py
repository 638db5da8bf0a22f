"""From a file's bytes to pixels: check by the rules of its format, then decode."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.errors import DataError, require
from edgead.formats import identify, jpeg
from edgead.formats.orientation import turn


def decode_image(data: bytes, flags: int | None = None) -> NDArray[Any]:
    """Decode the bytes of an image file that is whole, holds one picture and is not too large.

    Args:
        data: the file.
        flags: of `cv2.imdecode`, for other formats than JPEG; colour of 8 or 16 bits unless given.

    Returns:
        JPEG: ``(H, W, 3) uint8 BGR``. Others: what `flags` ask for. Turned upright as EXIF says.

    Raises:
        DataError: what is wrong, without the file's name.
    """
    if data.startswith(identify.JPEG_START):
        return jpeg.decode(data)
    (data, orientation), lib = identify.check(data), require("cv2", "cpu")
    if flags is None:
        identify.refuse_numbers(data)
        flags = lib.IMREAD_COLOR | lib.IMREAD_ANYDEPTH | lib.IMREAD_IGNORE_ORIENTATION
    try:
        image: NDArray[Any] | None = lib.imdecode(np.frombuffer(data, np.uint8), flags)
    except lib.error:
        image = None
    if image is None:
        raise DataError("it is damaged, or OpenCV cannot decode it")
    return turn(image, orientation)
