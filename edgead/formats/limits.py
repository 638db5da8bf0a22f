"""Limits on what a file's header claims, checked before it is decoded."""

from __future__ import annotations

import os

from edgead.errors import ConfigError, DataError

MAX_FILE_BYTES = 1 << 30
"""Largest image file: it is held in memory as a whole."""
MAX_DECODED_BYTES = 1 << 29
"""Largest decoded image: 178 million pixels of 8 bits, 89 million of 16."""
VARIABLE = "EDGEAD_MAX_IMAGE_MIB"
"""Environment variable that sets another limit for image files than `MAX_DECODED_BYTES`."""


def refuse_size(width: int, height: int, bytes_per_pixel: float) -> None:
    """Refuse an image that would be empty or too large in memory, from what its header says.

    Raises:
        DataError: no pixels, or more memory than is allowed.
        ConfigError: the environment variable is not a number.
    """
    if width < 1 or height < 1:
        raise DataError(f"its header claims {width}×{height} pixels")
    most = _max_decoded_mib()
    if width * height * bytes_per_pixel > most << 20:
        raise DataError(f"{width}×{height} pixels need more than {most} MiB. Raise the limit with {VARIABLE}=NUMBER")


def _max_decoded_mib() -> int:
    text = os.environ.get(VARIABLE, str(MAX_DECODED_BYTES >> 20))
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{VARIABLE} must be a number of MiB, not {text!r}.") from None


def refuse_pages(count: int, word: str) -> None:
    """Refuse a file of several pictures: a decoder shows its first, and what is in the others is not looked at.

    Raises:
        DataError: more than one.
    """
    if count > 1:
        raise DataError(
            f"it holds {count} {word}; only files with one image are supported. Save each as a separate file"
        )
