"""JPEG: decode complete files, refuse those that a decoder would fill in. Also for the frames of a camera's MJPEG.

Decoders fill missing data with grey, or with the previous image, and continue. libjpeg-turbo detects most damage and
warns; `simplejpeg` turns its warnings into errors, at the cost of the decoding that is needed anyway. This module
detects three more: missing scans, quantisation by 0, and holes of zeros.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgead.errors import DataError, require
from edgead.formats.limits import refuse_size
from edgead.formats.orientation import read_orientation, turn

MAX_SCANS = 200
"""Most scans of a progressive file. Encoders write about ten; each takes as long as a decoding."""
HOLE = bytes(16)
"""Zeros in coded data that are a hole, unless the Huffman tables make zeros of flat areas."""

_EOI, _SOS, _DHT, _DQT, _APP1 = b"\xd9\xda\xc4\xdb\xe1"
_SOF = frozenset(range(0xC0, 0xD0)) - {_DHT, 0xC8, 0xCC}
_MARKER_AFTER_CODE = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_FILL = re.compile(rb"\xff+")
_CUT = "the file is cut short"


@dataclass
class _Header:
    """Facts from the segments, filled while they are read.

    Attributes:
        missing: of each component, by its number, the bits that are still to come of each of its 64 coefficients.
        zero_codes: by an AC table's number, the symbol that a run of zero bits stands for; those of JPEG's standard
            tables, which the frames of many cameras leave out.
    """

    width: int = 0
    height: int = 0
    orientation: int = 1
    missing: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    zero_codes: dict[int, int] = field(default_factory=lambda: {0: 0x01, 1: 0x00})


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG that is whole.

    Args:
        data: the file, from its start marker; what follows its end marker is ignored.

    Returns:
        ``(H, W, 3) uint8 BGR``, turned as its EXIF orientation says, owned by the caller.

    Raises:
        DataError: what is wrong: cut short, damaged, incomplete or too large.
    """
    header = _read_header(data)
    refuse_size(header.width, header.height, max(3, len(header.missing)))
    jpeg = require("simplejpeg", "jpeg")
    try:
        image = jpeg.decode_jpeg(data, "CMYK" if len(header.missing) == 4 else "BGR", strict=True)
    except ValueError as error:
        raise DataError(_explain(str(error))) from None
    if image.shape[2] == 4:  # simplejpeg leaves the inks as they are
        lib = require("cv2", "cpu")
        image = lib.imdecode(np.frombuffer(data, np.uint8), lib.IMREAD_COLOR | lib.IMREAD_IGNORE_ORIENTATION)
    return turn(image, header.orientation)


class EndFinder:
    """Finds the end of a JPEG whose bytes are still arriving."""

    def __init__(self) -> None:
        self._at, self._in_code = 2, False

    def find(self, data: bytearray) -> int:
        """Return the length of the picture that the data begin with; 0 as long as its end marker is not there.

        Args:
            data: what has arrived; in each call at least as much as in the one before.
        """
        while self._at + 2 <= len(data) and data.startswith(b"\xff\xd8"):
            if self._in_code:
                found = _MARKER_AFTER_CODE.search(data, self._at)
                self._at = found.start() if found else len(data) - 1
                self._in_code = found is None
                if not found:
                    return 0
            self._at = _last_fill_byte(data, self._at)
            head = data[self._at : self._at + 4]
            if head[:2] == bytes((0xFF, _EOI)):
                return self._at + 2
            end = self._at + 2 + int.from_bytes(head[2:], "big")
            if len(head) < 4 or head[0] != 0xFF or end > len(data):
                return 0
            self._at, self._in_code = end, head[1] == _SOS
        return 0


def _explain(warning: str) -> str:
    """Return libjpeg-turbo's words, with what they mean where that is known."""
    known = {
        "premature end": "the file is cut short or has a hole",
        "extraneous bytes": "it holds bytes that do not belong to it",
    }
    reason = next((text for part, text in known.items() if part in warning.lower()), "the file is damaged")
    return f"{reason} ({warning})"


def _read_header(data: bytes) -> _Header:
    """Read all segments up to the scan that completes the picture.

    Raises:
        DataError: it never is complete, or is damaged in a way that the decoder would not notice.
    """
    header = _Header()
    for marker, start, end in _segments(data):
        body = data[start:end]
        try:
            if marker == _SOS:
                _read_scan(body, header)
                _refuse_hole(data, end, body, header)
                if not any(bits.any() for bits in header.missing.values()):
                    return header
            elif marker == _DHT:
                header.zero_codes.update(_zero_codes(body))
            elif marker == _DQT and 0 in _quantisers(body):
                raise DataError("the file is damaged (a quantisation table holds zeros)")
            elif marker == _APP1 and body.startswith(b"Exif"):
                header.orientation = read_orientation(body)
            elif marker in _SOF:
                _read_frame_header(body, header)
        except (IndexError, KeyError, ValueError) as error:
            raise DataError("the file is damaged (in its header)") from error
    raise DataError(f"{_CUT}: some of its scans are missing")


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield each segment up to the end marker: its marker, and where its body begins and ends.

    Raises:
        DataError: a segment is not inside the file, or is missing.
    """
    at, scans = 2, 0
    while True:
        if data[at : at + 2] == b"\xff\xff":
            at = _last_fill_byte(data, at)
        if at + 4 > len(data):
            if data[at : at + 2] == bytes((0xFF, _EOI)):
                return
            raise DataError(_CUT)
        if data[at] != 0xFF:
            raise DataError("the file is damaged (in its header)")
        marker = data[at + 1]
        if marker == _EOI:
            return
        start, end = at + 4, at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if end > len(data):
            raise DataError(_CUT)
        yield marker, start, end
        at = end
        if marker == _SOS:
            scans += 1
            if scans > MAX_SCANS:
                raise DataError(f"it holds more than {MAX_SCANS} scans")
            found = _MARKER_AFTER_CODE.search(data, at)
            at = found.start() if found else len(data)


def _last_fill_byte(data: bytes | bytearray, at: int) -> int:
    found = _FILL.match(data, at)
    return found.end() - 1 if found else at


def _read_frame_header(body: bytes, header: _Header) -> None:
    header.height, header.width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    header.missing = {body[6 + 3 * each]: np.full(64, 0xFF, np.uint8) for each in range(body[5])}


def _read_scan(body: bytes, header: _Header) -> None:
    """Note what a scan brings: the coefficients from its first to its last, down to its lowest bit."""
    first, last, approximation = body[-3:]
    for component in body[1:-3:2]:
        header.missing[component][first : last + 1] = approximation & 0x0F


def _refuse_hole(data: bytes, start: int, body: bytes, header: _Header) -> None:
    """Refuse a run of zeros in the coded data that begins at `start`, where zeros stand for one detail after another.

    A decoder reads them as some detailed blocks and may find its place again after them, without a warning.
    """
    if body[-2] == 0:
        return  # a scan of means alone: zeros are flat areas
    symbols = [header.zero_codes[tables & 0x0F] for tables in body[2:-3:2]]
    if not any(symbol & 0x0F or symbol == 0xF0 for symbol in symbols):  # zeros are ends of blocks
        return
    hole = data.find(HOLE, start)
    if hole >= 0 and not _MARKER_AFTER_CODE.search(data, start, hole):
        raise DataError("the file has a hole (zeros in its coded data)")


def _zero_codes(body: bytes) -> Iterator[tuple[int, int]]:
    """Yield each AC table of a segment: its number and its first symbol, the code of which is all zeros."""
    at = 0
    while at < len(body):
        kind, count = body[at], sum(body[at + 1 : at + 17])
        if kind >> 4:
            yield kind & 0x0F, body[at + 17]
        at += 17 + count


def _quantisers(body: bytes) -> Iterator[int]:
    """Yield all values of a segment's tables."""
    at = 0
    while at < len(body):
        size = 1 + (body[at] >> 4)
        table = body[at + 1 : at + 1 + 64 * size]
        yield from (int.from_bytes(table[each : each + size], "big") for each in range(0, len(table), size))
        at += 1 + 64 * size
