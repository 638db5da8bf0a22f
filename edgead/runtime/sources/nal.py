"""Splits H.264 and HEVC into NAL units and detects damage before decoding."""

from __future__ import annotations

from collections.abc import Iterator


class Units:
    """Splits the packets of one stream into units.

    Args:
        codec: ``h264`` or ``hevc``.
        extradata: of the stream. MP4 and Matroska have a record with the size of each unit's length field; without one,
            units begin with a start code (Annex B of both standards).
    """

    def __init__(self, codec: str, extradata: bytes | None) -> None:
        at = {"h264": 4, "hevc": 21}[codec]
        extradata = extradata or b""
        has_record = extradata[:1] == b"\x01" and len(extradata) > at + 1
        self._length_bytes = (extradata[at] & 3) + 1 if has_record else 0

    def split(self, packet: bytes) -> Iterator[bytes]:
        """Yield the units of a packet.

        Raises:
            ValueError: a unit is truncated or damaged.
        """
        for unit in self._with_lengths(packet) if self._length_bytes else _between_start_codes(packet):
            # The standards forbid these bytes in a unit, because they look like a start code: lost data became zeros.
            if not unit or unit[0] & 0x80 or unit[-1] == 0 or b"\0\0\0" in unit or b"\0\0\2" in unit:
                raise ValueError("it contains a gap")
            yield unit

    def _with_lengths(self, packet: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(packet):
            start = at + self._length_bytes
            at = start + int.from_bytes(packet[at:start], "big")
            if at > len(packet):
                raise ValueError("it is truncated")
            yield packet[start:at]


def _between_start_codes(packet: bytes) -> Iterator[bytes]:
    before, *units = packet.split(b"\0\0\1")
    if before.strip(b"\0"):
        raise ValueError("its beginning is missing")
    for unit in units:
        yield unit.rstrip(b"\0")  # zeros before a start code are allowed
