"""Decoded length of a TIFF's LZW data. libtiff stops silently where they are damaged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CLEAR, _END, _FIRST = 256, 257, 258
_WIDTHS = np.repeat(np.array([9, 10, 11, 12], np.int32), [254, 512, 1024, 2048])
"""Bits of each code after the table was cleared; TIFF widens one code early."""
_NARROW = int((_WIDTHS == 9).sum())
"""Codes after a clear that have 9 bits. Where no table is longer, the places of all codes are known beforehand."""
_AT_ONCE = 2048
"""Codes of such short tables that are looked at together: a hostile file clears the table after each code."""
_NINE = np.full(_AT_ONCE, 9, np.int32)
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
        codes, ends = _short_tables(data, at)
        widths = np.full(len(codes), 9, np.int32)
        if len(ends) == 0:
            codes, ends = _codes(data, at, _WIDTHS)
            ends, widths = ends[:1], _WIDTHS
        if len(ends) == 0:
            raise ValueError("no end code")
        last = int(ends[-1])
        size += _expanded(codes[:last], ends[:-1])
        if codes[last] == _END:
            return size
        at += int(widths[: last + 1].sum())


def _codes(data: bytes, at: int, widths: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Return the codes of these widths from a bit on, and the places of those that clear the table or are the end."""
    ends = np.cumsum(widths, dtype=np.int32)
    count = int(np.searchsorted(ends, 8 * len(data) - at, side="right"))
    octets = np.frombuffer(data[at >> 3 : (at >> 3) + int(ends[-1]) // 8 + 2] + bytes(2), np.uint8)
    octets = octets.astype(np.int32)
    window = octets[:-2] << 16 | octets[1:-1] << 8 | octets[2:]  # 24 bits from each byte on
    places, widths = (at & 7) + (ends - widths)[:count], widths[:count]
    codes = (window[places >> 3] >> (24 - (places & 7) - widths)) & ((1 << widths) - 1)
    return codes, np.flatnonzero((codes == _CLEAR) | (codes == _END))


def _short_tables(data: bytes, at: int) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Return codes of 9 bits, and the places where tables end for as long as none needs wider codes, as `_codes`."""
    codes, ends = _codes(data, at, _NINE)
    wide = np.flatnonzero(np.diff(ends, prepend=-1) > _NARROW)
    over = np.flatnonzero(codes[ends] == _END)
    count = min(int(wide[0]) if len(wide) else len(ends), int(over[0]) + 1 if len(over) else len(ends))
    return codes, ends[:count]


def _expanded(codes: NDArray[np.int32], clears: NDArray[np.intp]) -> int:
    """Return what codes stand for: each entry of a table is one longer than the code that it adds to.

    Args:
        codes: of one table or more.
        clears: the places of the codes between two tables.

    Raises:
        ValueError: a code of an entry that is not yet in the table.
    """
    count = len(codes)
    begin = np.zeros(count + 1, np.int32)  # of each code's table
    begin[clears + 1] = clears + 1
    begin = np.maximum.accumulate(begin)[:count]
    is_code = np.ones(count + 1, np.bool_)
    is_code[clears] = is_code[count] = False
    if (is_code[:-1] & (codes >= _FREE[np.arange(count) - begin])).any():
        raise ValueError("a code that is not in the table")
    earlier, sizes = np.full(count + 1, count, np.int32), is_code.astype(np.int32)
    np.add(begin, codes - _FIRST, out=earlier[:-1], where=is_code[:-1] & (codes >= _FIRST))
    while earlier.size and earlier.min() < count:  # adds up each chain of entries, twice as far in each round
        sizes += sizes[earlier]
        earlier = earlier[earlier]
    return int(sizes.sum())
