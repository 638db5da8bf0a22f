"""TIFF: strips and tiles must be inside the file and decode to as many bytes as the image needs; one page.

OpenCV returns what libtiff could decode; the rest is black or left over.
"""

from __future__ import annotations

import zlib

from edgead.errors import DataError
from edgead.formats import lzw
from edgead.formats.limits import refuse_pages, refuse_size
from edgead.formats.tags import Tags, claimed_bytes, read_tables, replace_value

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_STRIPS, _STRIP_SIZES, _ROWS, _SAMPLES, _PLANAR = 273, 279, 278, 277, 284
_TILES, _TILE_SIZES, _TILE_WIDTH, _TILE_HEIGHT, _FORMAT = 324, 325, 322, 323, 339
_EXTRA, _MULTIPLIED, _SEPARATE = 338, 1, 2
"""What a fourth channel is: alpha by which the colours are multiplied already, or are not."""
_WANTED = {
    *(_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIPS, _STRIP_SIZES, _ROWS, _SAMPLES, _PLANAR),
    *(_TILES, _TILE_SIZES, _TILE_WIDTH, _TILE_HEIGHT, _FORMAT),
}
_NONE = 1
_COMPRESSIONS = {_NONE: "not", 5: "LZW", 8: "Deflate", 32946: "Deflate", 32773: "PackBits"}
_WHITE_IS_ZERO, _YCBCR = 0, 6
_REDUCED, _MASK = 1, 4
_FORMATS = {1: "unsigned integers", 2: "signed integers", 3: "floating-point numbers"}
_MAX_PAGES = 1000
_PIECE = 1 << 16
"""Bytes that are inflated at a time: to 64 MB at most."""
_PLAIN = "Save it as an uncompressed TIFF or a PNG"


def check(data: bytes) -> None:
    """Refuse a TIFF that is not whole, holds several pages, or is of a kind that OpenCV would read wrongly.

    Raises:
        DataError: what is wrong.
    """
    if data[2:4] in (b"+\0", b"\0+"):
        raise DataError(f"BigTIFF is not supported. {_PLAIN}")
    try:
        pages = list(read_tables(data, _MAX_PAGES, _WANTED))
        if claimed_bytes(data) > len(data):
            raise ValueError("its values are not inside the file, or overlap")
    except ValueError as error:
        raise DataError(f"the file is cut short or damaged ({error})") from None
    whole = [page for page in pages if not _first(page, _SUBFILE, 0) & (_REDUCED | _MASK)]
    if not whole or whole[0] is not pages[0]:
        raise DataError(f"its first page is not the image itself. {_PLAIN}")
    refuse_pages(len(whole), "pages")
    try:
        _check_page(data, pages[0])
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise DataError("the file is damaged (a tag is missing or invalid)") from error


def keep_colours(data: bytes) -> bytes:
    """Return a checked TIFF of which a decoder returns the colours as they are stored.

    libtiff multiplies colours of 8 bits by an alpha channel that they are not multiplied by yet.
    """
    return replace_value(data, _EXTRA, _SEPARATE, _MULTIPLIED)


def refuse_numbers(data: bytes) -> None:
    """Refuse a whole TIFF that a frame cannot be made of: its pixels are signed, floating-point or above 16 bits.

    Raises:
        DataError: what they are.
    """
    page = next(read_tables(data, 1, _WANTED))
    bits, kind = max(page.get(_BITS, (1,))), _first(page, _FORMAT, 1)
    if bits > 16 or kind in (2, 3):
        raise DataError(f"its pixels are {bits}-bit {_FORMATS.get(kind, 'values')}. Scale them to 8 or 16 bits")
    refuse_negative(data)


def refuse_negative(data: bytes) -> None:
    """Refuse a whole TIFF in which 0 is white, if it has more than 8 bits: OpenCV returns its negative.

    Raises:
        DataError: it is one.
    """
    page = next(read_tables(data, 1, _WANTED))
    bits = max(page.get(_BITS, (1,)))
    if bits > 8 and _first(page, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO:
        raise DataError(f"0 is white in it (photometric interpretation 0), with {bits} bits. Save it with black as 0")


def has_two_channels(data: bytes) -> bool:
    """Tell whether a whole TIFF has grey and one more channel, which is its alpha."""
    return _first(next(read_tables(data, 1, _WANTED)), _SAMPLES, 1) == 2


def _first(page: Tags, tag: int, default: int) -> int:
    return page.get(tag, (default,))[0]


def _check_page(data: bytes, page: Tags) -> None:
    width, height, bits = page[_WIDTH][0], page[_HEIGHT][0], max(page.get(_BITS, (1,)))
    samples, compression = _first(page, _SAMPLES, 1), _first(page, _COMPRESSION, 1)
    pixel = max(3, samples) * max(1, bits // 8)
    refuse_size(width, height, pixel)
    if samples > 1 and _first(page, _PLANAR, 1) == 2:  # https://github.com/opencv/opencv/pull/29567
        raise DataError("its channels are stored separately. Save it with interleaved channels")
    if compression not in _COMPRESSIONS or _first(page, _PHOTOMETRIC, 1) == _YCBCR:
        raise DataError(f"a TIFF with this compression (number {compression}) is not supported. {_PLAIN}")
    starts, sizes = page.get(_TILES) or page[_STRIPS], page.get(_TILE_SIZES) or page[_STRIP_SIZES]
    count, rows = _chunks(page, width, height, pixel)
    if not len(starts) == len(sizes) == count:
        raise DataError("the file is damaged (wrong number of strips)")
    if compression != _NONE and sum(sizes) > len(data):
        raise DataError("the file is damaged (its strips overlap)")
    row = -(-(_first(page, _TILE_WIDTH, width) * samples * bits) // 8)
    for number, (start, size) in enumerate(zip(starts, sizes)):
        wanted = row * (rows if _TILES in page else min(rows, height - number * rows))
        if start + size > len(data):
            raise DataError("the file is cut short")
        whole = size >= wanted if compression == _NONE else _decodes_to(data[start : start + size], compression, wanted)
        if not whole:
            raise DataError(f"the file is damaged or has a hole ({_COMPRESSIONS[compression]}-coded strip)")


def _chunks(page: Tags, width: int, height: int, pixel: int) -> tuple[int, int]:
    """Return how many strips or tiles there must be, and the rows of each; the last strip may have fewer."""
    if _TILES in page:
        across, rows = page[_TILE_WIDTH][0], page[_TILE_HEIGHT][0]
        refuse_size(across, rows, pixel)
        return -(-width // across) * -(-height // rows), rows
    rows = min(_first(page, _ROWS, height), height)
    return -(-height // rows), rows


def _decodes_to(data: bytes, compression: int, size: int) -> bool:
    name = _COMPRESSIONS[compression]
    try:
        if name == "LZW":
            return lzw.decoded_size(data) == size
        return (_inflated_size(data, size) if name == "Deflate" else _unpacked_size(data)) == size
    except (ValueError, zlib.error):
        return False


def _inflated_size(data: bytes, limit: int) -> int:
    """Return how many bytes Deflate-coded data are; the checksum at their end is compared.

    Raises:
        ValueError: more than `limit`, or there is no end.
        zlib.error: damaged.
    """
    inflater = zlib.decompressobj()
    size = at = 0
    while at < len(data) and size <= limit and not inflater.eof:
        size += len(inflater.decompress(data[at : at + _PIECE], limit + 1 - size))
        at += _PIECE
    if not inflater.eof:
        raise ValueError("no end")
    return size


def _unpacked_size(data: bytes) -> int:
    """Return how many bytes PackBits-coded data are.

    Raises:
        ValueError: a run is not inside the data.
    """
    at = size = 0
    while at < len(data):
        count = data[at]
        size += count + 1 if count < 128 else 257 - count if count > 128 else 0
        at += count + 2 if count < 128 else 2 if count > 128 else 1
    if at > len(data):
        raise ValueError("a run is not inside the data")
    return size
