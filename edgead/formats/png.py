"""PNG: every chunk has its checksum, and there is one picture."""

from __future__ import annotations

import zlib

from edgead.errors import DataError
from edgead.formats.limits import refuse_pages, refuse_size
from edgead.formats.orientation import read_orientation

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_BYTES = 13
_COLOUR_TYPE = 25
"""Place of the colour type in a file; 0 is grey without alpha."""
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Channels, by colour type."""
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
"""The chunks that a decoder needs."""


def check(data: bytes) -> int:
    """Refuse a PNG that is not whole, or an animated one. What follows its last chunk is ignored.

    Returns:
        The EXIF orientation, 1 to 8.

    Raises:
        DataError: what is wrong.
    """
    at, view, kind, orientation, has_pixels = 8, memoryview(data), b"", 1, False
    while kind != b"IEND":
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data):
            raise DataError("the file is cut short")
        if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise DataError("the file is damaged (wrong checksum)")
        body = view[at + 8 : end - 4]
        if (kind == b"IHDR") != (at == 8) or (kind == b"IHDR" and len(body) != _HEADER_BYTES):
            raise DataError("the file is damaged (its header is not where it belongs)")
        if kind == b"IHDR":
            width, height, depth, colours = (
                int.from_bytes(body[:4], "big"),
                int.from_bytes(body[4:8], "big"),
                *body[8:10],
            )
            refuse_size(width, height, max(3, _SAMPLES.get(colours, 3)) * max(1, depth // 8))
        elif kind == b"acTL":
            refuse_pages(int.from_bytes(body[:4], "big"), "frames")
        elif kind == b"eXIf":
            orientation = read_orientation(bytes(body))
        has_pixels |= kind == b"IDAT"
        at = end
    if not has_pixels:  # OpenCV would go on behind the end, to what was not checked
        raise DataError("the file is damaged (it holds no pixels)")
    return orientation


def has_transparent_grey(data: bytes) -> bool:
    """Tell whether in a whole PNG a level of grey counts as transparent."""
    at, kind = len(SIGNATURE), b""
    while at < len(data) and kind not in (b"IDAT", b"tRNS"):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        at += 12 + length
    return kind == b"tRNS" and data[_COLOUR_TYPE] == 0


def keep_pixels(data: bytes) -> bytes:
    """Return a PNG that was checked, with the chunks of its pixels alone.

    Decoders unpack text and colour profiles too: 8 MB of each chunk of 8 KB. What follows the last chunk is removed.
    """
    at, kind, view = 8, b"", memoryview(data)
    parts = [view[:8]]
    while kind != b"IEND":
        end, kind = at + 12 + int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind in _PIXELS:
            parts.append(view[at:end])
        at = end
    return data if at == len(data) == sum(map(len, parts)) else b"".join(parts)
