"""The tables of tags that TIFF files and the EXIF of a JPEG consist of."""

from __future__ import annotations

import struct
from collections.abc import Iterator

Tags = dict[int, tuple[int, ...]]

_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I"}
"""Integer types; text, fractions and floats are not needed."""
_MAX_VALUES = 1 << 20
"""Most values of one tag, for instance strips of an image."""


def read_tables(data: bytes, limit: int) -> Iterator[Tags]:
    """Yield the tables of a classic TIFF, one for each page, with their integer tags; at most `limit`.

    Raises:
        ValueError: it is not a TIFF, or a table is not inside the file.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        raise ValueError("not a TIFF")
    try:
        (at,) = struct.unpack_from(f"{order}I", data, 4)
        for _ in range(limit):
            if at == 0:
                return
            (count,) = struct.unpack_from(f"{order}H", data, at)
            yield dict(_read_tags(data, order, at + 2, count))
            (at,) = struct.unpack_from(f"{order}I", data, at + 2 + 12 * count)
    except struct.error as error:
        raise ValueError("a table is not inside the file") from error


def _read_tags(data: bytes, order: str, at: int, count: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    for entry in range(at, at + 12 * count, 12):
        tag, kind, number = struct.unpack_from(f"{order}HHI", data, entry)
        if kind not in _TYPES or not 0 < number <= _MAX_VALUES:
            continue
        values = f"{order}{number}{_TYPES[kind]}"
        where = entry + 8
        if struct.calcsize(values) > 4:
            (where,) = struct.unpack_from(f"{order}I", data, where)
        yield tag, struct.unpack_from(values, data, where)
