"""WebP: all of its chunks, and one picture. There is no checksum: damage inside cannot be seen."""

from __future__ import annotations

from edgead.errors import DataError
from edgead.formats.limits import refuse_pages, refuse_size
from edgead.formats.orientation import read_orientation


def check(data: bytes) -> int:
    """Refuse a WebP that is cut short, or an animated one.

    Returns:
        The EXIF orientation, 1 to 8.

    Raises:
        DataError: what is wrong.
    """
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise DataError("the file is cut short")
    at, frames, pictures, orientation = 12, 0, 0, 1
    while at + 8 <= end:
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        body = data[at + 8 : at + 8 + min(length, 16)]
        if at + 8 + length > end:
            raise DataError("the file is cut short")
        if kind == b"VP8X":
            _refuse_large(int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1)
        elif kind == b"VP8L":
            bits = int.from_bytes(body[1:5], "little")
            _refuse_large((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        elif kind == b"VP8 ":
            _refuse_large(int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF)
        elif kind == b"EXIF":
            orientation = read_orientation(data[at + 8 : at + 8 + length])
        frames += kind == b"ANMF"
        pictures += kind in (b"VP8 ", b"VP8L")
        at += 8 + length + length % 2
    refuse_pages(frames, "frames")
    if frames + pictures == 0:
        raise DataError("the file is damaged (it holds no image)")
    return orientation


def is_lossy(data: bytes) -> bool:
    """Tell whether the pixels of a WebP that `check` has passed differ from what was written."""
    at = 12
    while (kind := data[at : at + 4]) not in (b"VP8 ", b"VP8L", b""):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + length % 2
    return kind == b"VP8 "


def _refuse_large(width: int, height: int) -> None:
    refuse_size(width, height, 4)
