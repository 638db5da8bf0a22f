"""Decoded length of a TIFF's LZW data. libtiff stops silently where they are damaged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CLEAR, _END, _FIRST = 256, 257, 258
_WIDTHS = np.repeat(np.array([9, 10, 11, 12], np.int32), [254, 512, 1024, 2048])
"""Bits of each code after the table was cleared; TIFF widens one code early."""
_STARTS = np.cumsum(_WIDTHS, dtype=np.int32) - _WIDTHS
_ENDS = _STARTS + _WIDTHS
_FEW = 64
"""Codes that are looked at first: a hostile file clears the table after each."""
_FREE = _FIRST + np.arange(len(_WIDTHS), dtype=np.int32)
"""Before each code: the lowest number that no entry of the table has."""


def decoded_size(data: bytes) -> int:
    """Return the number of bytes that `data` stand for.

    Raises:
        ValueError: a code that cannot be there, or no end.
    """
    at, size = 9, 0
    if int.from_bytes(data[:2].ljust(2, b"\0"), "big") >> 7 != _CLEAR:
        raise ValueError("no clear code at the beginning")
    while True:
        codes, ends = _codes(data, at, _FEW)
        if len(ends) == 0:
            codes, ends = _codes(data, at, len(_WIDTHS))
        if len(ends) == 0:
            raise ValueError("no end code")
        last = int(ends[0])
        size += _expanded(codes[:last])
        if codes[last] == _END:
            return size
        at += int(_ENDS[last])


def _codes(data: bytes, at: int, most: int) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Return the codes from a bit on, at most so many, and the places of those that clear the table or are the end."""
    count = int(np.searchsorted(_ENDS[:most], 8 * len(data) - at, side="right"))
    octets = np.frombuffer(data[at >> 3 : (at >> 3) + int(_ENDS[most - 1]) // 8 + 2] + bytes(2), np.uint8)
    octets = octets.astype(np.int32)
    window = octets[:-2] << 16 | octets[1:-1] << 8 | octets[2:]  # 24 bits from each byte on
    places, widths = (at & 7) + _STARTS[:count], _WIDTHS[:count]
    codes = (window[places >> 3] >> (24 - (places & 7) - widths)) & ((1 << widths) - 1)
    return codes, np.flatnonzero((codes == _CLEAR) | (codes == _END))


def _expanded(codes: NDArray[np.int32]) -> int:
    """Return what codes between two clears stand for: each of the table is one longer than the code that it adds to.

    Raises:
        ValueError: a code of an entry that is not yet in the table.
    """
    count = len(codes)
    if (codes >= _FREE[:count]).any():
        raise ValueError("a code that is not in the table")
    earlier, sizes = np.full(count + 1, count, np.int32), np.ones(count + 1, np.int32)
    np.subtract(codes, _FIRST, out=earlier[:-1], where=codes >= _FIRST)
    sizes[count] = 0
    while earlier.min() < count:  # adds up each chain of entries, twice as far in each round
        sizes += sizes[earlier]
        earlier = earlier[earlier]
    return int(sizes.sum())
