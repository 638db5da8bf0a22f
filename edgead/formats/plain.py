"""BMP and PNM: uncompressed pixels. The size shows whether all are present; nothing shows whether they are right."""

from __future__ import annotations

import re

from edgead.errors import DataError
from edgead.formats.limits import refuse_pages, refuse_size

_PNM_FIELD = re.compile(rb"(?:\s|#[^\n\r]*[\n\r])*(\d{1,10})(?!\d)")
_LONGEST_PNM_HEADER = 1 << 16
"""Bytes of the header with its comments."""
_CHANNELS = {b"P4": 1, b"P5": 1, b"P6": 3}


def check_bmp(data: bytes) -> None:
    """Refuse a BMP that holds fewer bytes than its header says, or a compressed one.

    Raises:
        DataError: what is wrong.
    """
    if len(data) < 34:
        raise DataError("the file is cut short")
    start, header = int.from_bytes(data[10:14], "little"), int.from_bytes(data[14:18], "little")
    if header < 40:
        raise DataError("this old kind of BMP is not supported. Save it as PNG")
    width, height = (
        int.from_bytes(data[18:22], "little", signed=True),
        int.from_bytes(data[22:26], "little", signed=True),
    )
    bits, compression = int.from_bytes(data[28:30], "little"), int.from_bytes(data[30:34], "little")
    refuse_size(width, abs(height), 4)
    if compression not in (0, 3, 6):
        raise DataError("a compressed BMP is not supported. Save it as PNG")
    if max(start + (width * bits + 31) // 32 * 4 * abs(height), int.from_bytes(data[2:6], "little")) > len(data):
        raise DataError("the file is cut short")


def check_pnm(data: bytes) -> None:
    """Refuse a PNM that holds fewer bytes than its header says, or more than one picture, or numbers as text.

    Raises:
        DataError: what is wrong.
    """
    magic, at, fields = data[:2], 2, []
    if magic not in _CHANNELS:
        raise DataError("PNM with numbers as text is not supported. Save it as binary PNM or PNG")
    for _ in range(2 if magic == b"P4" else 3):
        found = _PNM_FIELD.match(data, at, _LONGEST_PNM_HEADER)
        if found is None:
            raise DataError("the file is cut short, or its header is damaged")
        fields.append(int(found[1]))
        at = found.end()
    width, height, most = fields if len(fields) == 3 else (*fields, 255)
    if not 255 <= most <= 65535:
        raise DataError(f"a PNM with values up to {most} is not supported. Save it with values up to 255 or 65535")
    depth = 1 if most == 255 else 2
    refuse_size(width, height, 3 * depth)
    row = -(-width // 8) if magic == b"P4" else width * _CHANNELS[magic] * depth
    rest = len(data) - (at + 1 + row * height)
    if rest < 0:
        raise DataError("the file is cut short")
    if data[len(data) - rest :].strip():
        refuse_pages(2, "pictures")
