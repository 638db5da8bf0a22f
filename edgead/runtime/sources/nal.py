"""The units (NAL units) of H.264 and HEVC, and damage that shows in them before anything is decoded."""

from __future__ import annotations

from collections.abc import Iterator


class Units:
    """Splits the packets of one stream into units.

    Args:
        codec: ``h264`` or ``hevc``.
        extradata: of the stream. MP4 and Matroska bring a record, with the bytes of each unit's length in it; without
            one, units begin with a start code (Annex B of both standards).
    """

    def __init__(self, codec: str, extradata: bytes | None) -> None:
        at = {"h264": 4, "hevc": 21}[codec]
        extradata = extradata or b""
        has_record = extradata[:1] == b"\x01" and len(extradata) > at + 1
        self._length_bytes = (extradata[at] & 3) + 1 if has_record else 0

    def split(self, packet: bytes) -> Iterator[bytes]:
        """Give the units of a packet.

        Raises:
            ValueError: a unit that does not lie in its packet, or is damaged.
        """
        for unit in self._with_lengths(packet) if self._length_bytes else _between_start_codes(packet):
            # The standards forbid these, so that nothing in a unit looks like the start of one: a hole of zeros.
            if not unit or unit[0] & 0x80 or unit[-1] == 0 or b"\0\0\0" in unit or b"\0\0\2" in unit:
                raise ValueError("it has a hole")
            yield unit

    def _with_lengths(self, packet: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(packet):
            start = at + self._length_bytes
            at = start + int.from_bytes(packet[at:start], "big")
            if at > len(packet):
                raise ValueError("it is cut short")
            yield packet[start:at]


def _between_start_codes(packet: bytes) -> Iterator[bytes]:
    before, *units = packet.split(b"\0\0\1")
    if before.strip(b"\0"):
        raise ValueError("it begins in the middle")
    for unit in units:
        yield unit.rstrip(b"\0")  # zeros before a start code are allowed
