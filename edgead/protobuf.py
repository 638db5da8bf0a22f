"""The wire format of protocol buffers, which ONNX files are: the onnx package is not installed on the line."""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of each field that holds bytes.

    Raises:
        ValueError, IndexError: not a message, or cut off.
    """
    return ((number, value) for number, value in every_field(data) if isinstance(value, memoryview))


def every_field(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yield number and content of each field that holds bytes or a whole number. Raises as `fields` does."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, place = _varint(data, place)
            yield number, value
        elif kind in (_FIXED64, _FIXED32):
            place += 8 if kind == _FIXED64 else 4
        elif kind == _BYTES:
            length, place = _varint(data, place)
            if place + length > len(data):
                raise ValueError("cut off")
            yield number, data[place : place + length]
            place += length
        else:
            raise ValueError(f"wire type {kind}")


def message(*content: tuple[int, int | bytes | str]) -> bytes:
    """Return a message with these fields: number and value. Whole numbers must not be negative."""
    parts = []
    for number, value in content:
        if isinstance(value, int):
            parts.append(_number(number << 3 | _VARINT) + _number(value))
        else:
            data = value.encode() if isinstance(value, str) else value
            parts.append(_number(number << 3 | _BYTES) + _number(len(data)) + data)
    return b"".join(parts)


def _number(value: int) -> bytes:
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes((*digits, value))


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, place
    raise ValueError("a number without an end")
