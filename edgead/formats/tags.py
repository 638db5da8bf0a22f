"""The tables of tags that TIFF files and the EXIF of a JPEG consist of."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator

Tags = dict[int, tuple[int, ...]]

_TYPES = {1: "B", 3: "H", 4: "I", 13: "I"}
"""Types of the tags that are read: whole numbers without a sign."""
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of one value, by type."""
_ENTRY_BYTES = 12
_MAX_VALUES = 1 << 20
"""Most values of one tag, for instance strips of an image."""


def read_tables(data: bytes, limit: int, wanted: Collection[int]) -> Iterator[Tags]:
    """Yield the tables of a classic TIFF, one for each page; at most `limit`.

    Args:
        data: the file.
        limit: most tables.
        wanted: numbers of the tags to return. Of two with one number the first counts, as in libtiff.

    Raises:
        ValueError: it is not a TIFF; a table or a wanted value is not inside the file, or no whole numbers; or tables
            lie on each other, so that a small file could be read for hours.
    """
    left = len(data)
    for order, entries in _tables(data, limit):
        left -= _ENTRY_BYTES * len(entries)
        if left < 0:
            raise ValueError("its tables overlap")
        yield _read_tags(data, order, entries, wanted)


def claimed_bytes(data: bytes) -> int:
    """Return how many bytes the values of a TIFF's first table have together, wanted or not; libtiff copies them.

    Raises:
        ValueError: it is not a TIFF, or the table is not inside the file.
    """
    order, entries = next(_tables(data, 1), ("<", range(0)))
    heads = (struct.unpack_from(f"{order}HHI", data, entry) for entry in entries)
    return sum(number * _BYTES.get(kind, 1) for _, kind, number in heads)


def replace_value(data: bytes, tag: int, old: int, new: int) -> bytes:
    """Return a whole TIFF in which a tag of the first table has another 16-bit value; as it is without the old one."""
    order, entries = next(_tables(data, 1), ("<", range(0)))
    wanted, other = (struct.pack(f"{order}HHIH", tag, 3, 1, value) for value in (old, new))
    place = next((entry for entry in entries if data.startswith(wanted, entry)), None)
    return data if place is None else data[:place] + other + data[place + len(other) :]


def _tables(data: bytes, limit: int) -> Iterator[tuple[str, range]]:
    """Yield the byte order and the places of the entries of each table."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        raise ValueError("not a TIFF")
    try:
        (at,) = struct.unpack_from(f"{order}I", data, 4)
        for _ in range(limit):
            if at == 0:
                return
            (count,) = struct.unpack_from(f"{order}H", data, at)
            end = at + 2 + _ENTRY_BYTES * count
            if end > len(data):
                raise ValueError("a table is not inside the file")
            yield order, range(at + 2, end, _ENTRY_BYTES)
            (at,) = struct.unpack_from(f"{order}I", data, end)
    except struct.error as error:
        raise ValueError("a table is not inside the file") from error


def _read_tags(data: bytes, order: str, entries: range, wanted: Collection[int]) -> Tags:
    found: Tags = {}
    for entry in entries:
        tag, kind, number = struct.unpack_from(f"{order}HHI", data, entry)
        if tag not in wanted or tag in found:
            continue
        if kind not in _TYPES or not 0 < number <= _MAX_VALUES:
            raise ValueError(f"tag {tag} holds no whole numbers, or too many")
        values = f"{order}{number}{_TYPES[kind]}"
        where = entry + 8
        try:
            if struct.calcsize(values) > 4:
                (where,) = struct.unpack_from(f"{order}I", data, where)
            found[tag] = struct.unpack_from(values, data, where)
        except struct.error as error:
            raise ValueError("a value is not inside the file") from error
    return found
