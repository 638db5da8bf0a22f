"""Counts H.264 pictures: FFmpeg continues silently if one is missing.

Each picture has a ``frame_num``, one more than that of the last reference picture (ITU-T H.264, 7.4.3). If it is
larger, a reference picture was lost, and the following pictures are predicted from a wrong one.
"""

from __future__ import annotations

from dataclasses import dataclass

_SLICE, _KEY_SLICE, _SPS = 1, 5, 7
_WITH_CHROMA = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}
"""Profiles with a chroma format field."""


class FrameCount:
    """Counts the pictures of one stream.

    Args:
        extradata: of the stream: parameter sets in Annex B form, or an ``avcC`` record.
    """

    def __init__(self, extradata: bytes | None) -> None:
        self._parameters: _Parameters | None = None
        self._last: int | None = None
        extradata = extradata or b""
        if extradata[:1] == b"\x01":  # a record: the length, then the first parameter set
            size = int.from_bytes(extradata[6:8], "big")
            units = [extradata[8 : 8 + size]]
        else:
            units = extradata.split(b"\0\0\1")
        for unit in units:
            if unit[:1] and unit[0] & 0x1F == _SPS:
                self.is_missing(unit)

    def is_missing(self, unit: bytes) -> bool:
        """Return whether a reference picture of the unit's picture is missing.

        Raises:
            ValueError: its header is truncated.
        """
        kind = unit[0] & 0x1F
        if kind == _SPS:
            self._parameters = _Parameters.read(unit)
        if kind not in (_SLICE, _KEY_SLICE) or self._parameters is None or self._parameters.gaps_allowed:
            return False
        number, last = self._parameters.frame_num(unit), self._last
        if kind == _KEY_SLICE or unit[0] & 0x60:  # a reference picture
            self._last = number
        following = None if last is None else (last + 1) % (1 << self._parameters.bits)
        return kind != _KEY_SLICE and last is not None and number not in (last, following)


@dataclass(frozen=True)
class _Parameters:
    """Fields of a sequence parameter set about ``frame_num``: its size, its place, and whether gaps are allowed."""

    bits: int
    colour_planes: int
    gaps_allowed: bool

    @classmethod
    def read(cls, unit: bytes) -> _Parameters:
        """Read a sequence parameter set (7.3.2.1.1).

        Raises:
            ValueError: it is truncated.
        """
        bits, planes = _Bits(unit[1:]), 0
        profile = bits.take(8)
        bits.take(16)
        bits.golomb()
        if profile in _WITH_CHROMA:
            chroma = bits.golomb()
            planes = bits.take(1) if chroma == 3 else 0
            bits.golomb()
            bits.golomb()
            bits.take(1)
            if bits.take(1):
                for each in range(12 if chroma == 3 else 8):
                    if bits.take(1):
                        _skip_scaling_list(bits, 16 if each < 6 else 64)
        number_bits = bits.golomb() + 4
        order = bits.golomb()
        if order == 0:
            bits.golomb()
        elif order == 1:
            bits.take(1)
            bits.golomb()
            bits.golomb()
            for _ in range(min(bits.golomb(), 255)):
                bits.golomb()
        bits.golomb()
        return cls(number_bits, planes, bool(bits.take(1)))

    def frame_num(self, unit: bytes) -> int:
        """Return the ``frame_num`` in a slice's header (7.3.3).

        Raises:
            ValueError: it is truncated.
        """
        bits = _Bits(unit[1:40])
        for _ in range(3):
            bits.golomb()
        bits.take(2 * self.colour_planes)
        return bits.take(self.bits)


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            code = bits.golomb()
            following = (last + ((code + 1) // 2 if code % 2 else -(code // 2))) % 256
        last = following or last


class _Bits:
    """Reads bits of a unit, without its emulation prevention bytes."""

    def __init__(self, unit: bytes) -> None:
        unit = unit.replace(b"\0\0\3", b"\0\0")
        self._value, self._left = int.from_bytes(unit, "big"), 8 * len(unit)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("truncated")
        return self._value >> self._left & ((1 << count) - 1)

    def golomb(self) -> int:
        """Read an unsigned Exp-Golomb number (9.1)."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)
