"""What a file may claim before anything is decoded."""

from __future__ import annotations

from edgead.errors import DataError

MAX_FILE_BYTES = 1 << 30
"""Of an image file: it is held in memory as a whole."""
MAX_DECODED_BYTES = 1 << 29
"""Of a decoded image: 178 million pixels of 8 bits, 89 million of 16."""


def refuse_size(width: int, height: int, bytes_per_pixel: float) -> None:
    """Refuse an image that would be empty or too large in memory, from what its header says.

    Raises:
        DataError: no pixels, or more than `MAX_DECODED_BYTES` bytes.
    """
    if width < 1 or height < 1:
        raise DataError(f"its header claims {width}×{height} pixels")
    if width * height * bytes_per_pixel > MAX_DECODED_BYTES:
        raise DataError(
            f"{width}×{height} pixels need more than the {MAX_DECODED_BYTES >> 20} MiB that an image may take"
        )
