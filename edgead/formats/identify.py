"""Identify a file's format by its content, and check that it is complete. Unsupported formats are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from edgead.errors import DataError
from edgead.formats import plain, png, tiff, webp

JPEG = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})
READ = JPEG | {".png", ".tif", ".tiff", ".webp", ".bmp", ".dib", ".pnm", ".pbm", ".pgm", ".ppm"}
NOT_READ = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIC"),
    ".avif": "AVIF",
    ".gif": "GIF",
    **dict.fromkeys((".jp2", ".j2k", ".jpf", ".jpx"), "JPEG 2000"),
    ".jxl": "JPEG XL",
    **dict.fromkeys((".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"), "a camera's raw format"),
    **dict.fromkeys((".exr", ".pfm", ".pam", ".psd", ".tga"), "this format"),
}
"""Suffix of unsupported image files ↦ name of the format."""
IMAGE_SUFFIXES = READ | frozenset(NOT_READ)
"""Suffixes that count as images when a folder is searched."""

JPEG_START = b"\xff\xd8"


class _Format(NamedTuple):
    """A format.

    Attributes:
        starts: first bytes of its files.
        check: raises DataError where a file must not be decoded, and may return its EXIF orientation.
        keep_pixels: returns a checked file without what a decoder does not need, but would unpack or apply.
    """

    starts: tuple[bytes, ...]
    check: Callable[[bytes], int | None]
    keep_pixels: Callable[[bytes], bytes] = bytes


_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_FORMATS = (
    _Format((png.SIGNATURE,), png.check, png.keep_pixels),
    _Format(_TIFF_STARTS, tiff.check, tiff.keep_colours),
    _Format((b"RIFF",), webp.check),
    _Format((b"BM",), plain.check_bmp),
    _Format((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"), plain.check_pnm),
)
_REFUSED = {
    "HEIC": (b"ftypheic", b"ftypheix", b"ftypheif", b"ftyphevc", b"ftypmif1", b"ftypmsf1"),
    "AVIF": (b"ftypavif", b"ftypavis"),
    "JPEG 2000": (b"jP  ", b"\xff\x4f\xff\x51"),
    "JPEG XL": (b"JXL ", b"\xff\x0a"),
    "GIF": (b"GIF8",),
}
"""Format ↦ bytes at the beginning of a file, or 4 bytes later."""


def refuse_by_suffix(suffix: str) -> None:
    """Refuse a file that has the suffix of a format that is not read.

    Raises:
        DataError: the format, and how to convert it.
    """
    if suffix.lower() in NOT_READ:
        raise _refusal(NOT_READ[suffix.lower()])


def is_image(start: bytes) -> bool:
    """Tell by the first 16 bytes of a file whether it is an image, also of a format that is refused by name."""
    return start.startswith(JPEG_START) or _find_format(start) is not None or _find_refused(start) is not None


def is_lossy(data: bytes) -> bool:
    """Tell whether the pixels of an image file that could be decoded differ from what was written: JPEG, and WebP."""
    return data.startswith(JPEG_START) or (data.startswith(b"RIFF") and webp.is_lossy(data))


def check(data: bytes) -> tuple[bytes, int]:
    """Refuse a file that is not whole, or not an image that is read; JPEGs are checked by decoding them.

    Returns:
        What to decode, and the EXIF orientation, 1 to 8, that the decoder does not apply.

    Raises:
        DataError: what is wrong.
    """
    if not data:
        raise DataError("the file is empty")
    known = _find_format(data)
    if known is not None:
        orientation = known.check(data) or 1
        return known.keep_pixels(data), orientation
    name = _find_refused(data)
    if name is not None:
        raise _refusal(name)
    raise DataError("not an image, or damaged")


def refuse_numbers(data: bytes) -> None:
    """Refuse a whole file with pixels that are neither 8 nor 16 bit: their range is a guess. Depth may have them.

    Raises:
        DataError: what they are, or OpenCV returns the negative.
    """
    if data.startswith(_TIFF_STARTS):
        tiff.refuse_numbers(data)


def refuse_as_mask(data: bytes) -> None:
    """Refuse a whole file of which OpenCV returns another mask: without its transparency, or the negative.

    Raises:
        DataError: which of both.
    """
    if data.startswith(_TIFF_STARTS):
        tiff.refuse_negative(data)
        lost = tiff.has_two_channels(data)
    else:
        lost = data.startswith(png.SIGNATURE) and png.has_transparent_grey(data)
    if lost:
        raise DataError(
            "its transparency, which says where no defect is, is not read. Save it in colour (magick IN PNG32:OUT.png)"
        )


def _find_format(data: bytes) -> _Format | None:
    if data.startswith(b"RIFF") and data[8:12] != b"WEBP":  # a video or sound
        return None
    return next((known for known in _FORMATS if data.startswith(known.starts)), None)


def _find_refused(data: bytes) -> str | None:
    found = (name for name, starts in _REFUSED.items() if data.startswith(starts) or data[4:].startswith(starts))
    return next(found, None)


def _refusal(name: str) -> DataError:
    return DataError(f"{name} is not supported. Convert it to PNG, for instance with:  magick IN OUT.png")
