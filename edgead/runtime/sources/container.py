"""Checks whether a video file is as long as its header says.

The number of frames is an estimate in most containers; the number of bytes is exact: MP4, Matroska and AVI consist of
blocks that begin with their length, so a truncated file is detected whatever decodes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067
_PACKET = 188
_ISO = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof", b"styp", b"sidx", b"uuid", b"mfra", b"pdin"}


def find_cut(path: Path) -> str:
    """Return how a video file is truncated, or that its recording was never finished.

    Returns:
        Empty if it is complete, or has no length: Matroska written for a network, and transport streams, of which only
        the last packet is checked.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF":
            claimed = _riff_end(file, size)
        elif head[:4] == _EBML.to_bytes(4, "big"):
            claimed = _matroska_end(file)
        elif head[4:8] in _ISO:
            claimed = _iso_end(file, size)
        else:
            is_cut = size % _PACKET and _is_transport(file)
            return "the file is truncated: its last packet is incomplete" if is_cut else ""
    if claimed < 0:
        return "the recording was never finished: its header has no length"
    return f"the file is truncated: it has {size} bytes, its header says {claimed}" if claimed > size else ""


def _is_transport(file: BinaryIO) -> bool:
    """MPEG transport stream: packets of one size, each of which begins with the same byte."""
    file.seek(0)
    return file.read(3 * _PACKET)[::_PACKET] == b"GGG"


def _riff_end(file: BinaryIO, size: int) -> int:
    """AVI: one RIFF block after another; a length of 0 is filled in when the recording ends."""
    at = 0
    while at + 12 <= size:
        file.seek(at)
        head = file.read(8)
        length = int.from_bytes(head[4:], "little")
        if head[:4] != b"RIFF":
            break
        if length == 0:
            return -1
        at += 8 + length
    return at


def _iso_end(file: BinaryIO, size: int) -> int:
    """MP4 and QuickTime: one box after another; a length of 0 reaches to the end of the file."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        if length == 0:
            return size
        if length < 8:
            break
        at += length
    return at


def _matroska_end(file: BinaryIO) -> int:
    """Matroska and WebM: a header, then one segment; an unknown length is allowed."""
    file.seek(0)
    at = 0
    for _ in range(8):
        name, at = _number(file, at, keep_marker=True)
        length, at = _number(file, at)
        if length < 0:
            return 0
        at += length
        if name == _SEGMENT:
            return at
    return 0


def _number(file: BinaryIO, at: int, keep_marker: bool = False) -> tuple[int, int]:
    """Read EBML's number of 1 to 8 bytes; -1 where all bits are set, which means that it is unknown."""
    file.seek(at)
    head = file.read(8)
    count = 9 - head[0].bit_length() if head and head[0] else 9
    if count > len(head):
        return -1, at
    value = int.from_bytes(head[:count], "big")
    if keep_marker:
        return value, at + count
    value &= (1 << (7 * count)) - 1
    return (-1 if value == (1 << (7 * count)) - 1 else value), at + count
