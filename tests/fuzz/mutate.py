"""Changes to files that keep enough of their structure to get deep into a reader."""

from __future__ import annotations

import copy
import io
import json
import random
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

Change = Callable[[bytes, random.Random], bytes]

RAW = {
    "@nan@": "NaN",
    "@inf@": "-Infinity",
    "@huge@": "9" * 5000,
    "@exponent@": "1e999999",
    "@deep@": "[" * 3000 + "]" * 3000,
    "@deeper@": '{"a":' * 200_000,
    "@many@": "[" + "0," * 4000 + "0]",
}
"""Placeholders in JSON ↦ text that `json.dumps` does not write."""
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e308, 2**31, 2**63, 2**64, -(2**63), 10**30, 10**400),
    *("", "x", "\0", "\ud800", "a\nb", "../../x", "/etc/passwd", "C:\\x", "..", ".", "a" * 300, "é" * 5000, "\x1b[31m"),
    *("1", "nan", "-inf", "true", "1e5", "100000000000000000000", "\u202e", "good", "s3://b/x", "file:///etc/passwd"),
    *([], {}, [[]], [None], [1, 2], ["x"], {"a": 1}, {"": None}, [[[[[[1]]]]]], *RAW),
)
INTEGERS = (0, 1, 2, 3, 7, 8, 16, 64, 127, 128, 255, 256, 1024, 0x7FFF, 0x8000, 0xFFFF, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF)
TOML_VALUES = (
    *("1", "-1", "0", "true", "nan", "inf", "-inf", "1e400", "9" * 4000, "0x" + "f" * 40, "1979-05-27", "07:32:00"),
    *('""', '"x"', "'\\ud800'", '"\\ud800"', '"../../x"', '"/etc/passwd"', '"' + "a" * 3000 + '"', "[]", "{}"),
    *("[[]]", "[1, 2]", '["x"]', "[{a = 1}]", "{a = {b = 1}}", "[" * 500 + "]" * 500, "{a = " * 400, '"""', "'''"),
)


def change_bytes(data: bytes, rng: random.Random) -> bytes:
    """Change any file: bits, numbers, blocks."""
    found = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(found) + 1)
        kind = rng.randrange(8)
        if kind == 0 and found:
            found[at % len(found)] ^= 1 << rng.randrange(8)
        elif kind == 1 and found:
            found[at % len(found)] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))
        elif kind == 2:
            size, order = rng.choice((2, 4, 8)), rng.choice(("little", "big"))
            number = rng.choice(INTEGERS) if rng.random() < 0.7 else rng.getrandbits(8 * size)
            found[at : at + size] = (number & ((1 << 8 * size) - 1)).to_bytes(size, order)
        elif kind == 3:
            del found[at : at + rng.choice((1, 2, 4, 16, 256))]
        elif kind == 4:
            found[at:at] = rng.randbytes(rng.choice((1, 2, 4, 16)))
        elif kind == 5:
            begin = rng.randrange(len(found) + 1)
            found[at:at] = found[begin : begin + rng.choice((1, 4, 16, 64, 512))]
        elif kind == 6:
            del found[at:]
        else:
            found[at:at] = bytes([rng.choice((0, 0xFF))]) * rng.choice((1, 4, 32))
    return bytes(found)


def change_json(data: bytes, rng: random.Random) -> bytes:
    """Change values, names and nesting of a JSON text."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return change_bytes(data, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        value = _change_value(value, rng)
    return dump_json(value, rng)


def dump_json(value: Any, rng: random.Random) -> bytes:
    """Write JSON, now and then with a name twice, and with what JSON has not."""
    try:
        text = json.dumps(value, ensure_ascii=rng.random() < 0.8)
    except RecursionError:
        return b"[]"
    for mark, raw in RAW.items():
        text = text.replace(f'"{mark}"', raw)
    if rng.random() < 0.05 and text.startswith("{") and len(text) > 2:
        text = text[:-1] + "," + text[1:]
    return text.encode("utf-8", "surrogatepass")


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return each part of a JSON value as what it is in, and its name or number there."""
    found: list[tuple[Any, Any]] = []
    open_ones = [value]
    while open_ones:
        inner = open_ones.pop()
        if isinstance(inner, dict):
            keys: Any = inner
        elif isinstance(inner, list):
            keys = range(min(len(inner), 50))
        else:
            continue
        for key in keys:
            found.append((inner, key))
            if isinstance(inner[key], (dict, list)):
                open_ones.append(inner[key])
    return found


def _change_value(value: Any, rng: random.Random) -> Any:
    places = _places(value)
    at = rng.randrange(len(places) + 1)
    if at == len(places):
        return copy.deepcopy(rng.choice(VALUES)) if rng.random() < 0.1 else value
    (inner, key), kind = places[at], rng.randrange(10)
    if kind < 5:
        inner[key] = copy.deepcopy(rng.choice(VALUES))
    elif kind == 5:
        del inner[key]
    elif kind == 6 and isinstance(inner, dict):
        inner[str(rng.choice(VALUES))] = inner.pop(key)
    elif kind == 7:
        inner[key] = [inner[key]] if rng.random() < 0.5 else {"a": inner[key]}
    elif kind == 8 and isinstance(inner[key], (int, float)) and not isinstance(inner[key], bool):
        inner[key] = -inner[key] if rng.random() < 0.5 else inner[key] * rng.choice((2, 10, 1000, 0))
    elif kind == 8 and isinstance(inner[key], str):
        inner[key] = change_bytes(inner[key].encode("utf-8", "replace"), rng).decode("utf-8", "replace")
    elif kind == 9 and isinstance(inner[key], list) and inner[key]:
        inner[key] *= rng.choice((2, 3, 50))
    return value


def change_lines(data: bytes, rng: random.Random) -> bytes:
    """Change lines of JSON: one of them, or their order and number."""
    lines = data.split(b"\n")
    at, kind = rng.randrange(len(lines)), rng.randrange(8)
    if kind < 5:
        lines[at] = change_json(lines[at], rng)
    elif kind == 5:
        lines.insert(at, rng.choice(lines))
    elif kind == 6:
        del lines[at]
    else:
        return change_bytes(data, rng)
    return b"\n".join(lines)


def change_toml(data: bytes, rng: random.Random) -> bytes:
    """Change values, names and tables of a TOML text."""
    lines = data.decode("utf-8", "replace").split("\n")
    for _ in range(rng.choice((1, 1, 2))):
        at, kind = rng.randrange(len(lines)), rng.randrange(8)
        if kind < 4:
            name = lines[at].partition("=")[0] if "=" in lines[at] else "a"
            lines[at] = f"{name}= {rng.choice(TOML_VALUES)}"
        elif kind == 4:
            lines.insert(at, rng.choice(lines))
        elif kind == 5:
            del lines[at]
            lines = lines or [""]
        elif kind == 6:
            lines.insert(
                at, rng.choice(("[a]", "[[methods]]", "[part]", "[products.x]", "[a.b.c]", "a.b.c = 1", "[[a]]"))
            )
        else:
            lines[at] = change_bytes(lines[at].encode(), rng).decode("utf-8", "replace")
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def change_png(data: bytes, rng: random.Random) -> bytes:
    """Change chunks of a PNG and correct their checksums."""
    if rng.random() < 0.2 or data[:8] != b"\x89PNG\r\n\x1a\n":
        return change_bytes(data, rng)
    at, chunks = 8, []
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return change_bytes(data, rng)
    number, kind = rng.randrange(len(chunks)), rng.randrange(6)
    name, body = chunks[number]
    if kind < 3:
        if name == b"IDAT" and rng.random() < 0.5:
            try:
                body = zlib.compress(change_bytes(zlib.decompress(body), rng))
            except zlib.error:
                body = change_bytes(body, rng)
        else:
            body = change_bytes(body, rng)
        chunks[number] = name, body[: 1 << 16]
    elif kind == 3:
        chunks.insert(number, rng.choice(chunks))
    elif kind == 4:
        del chunks[number]
    else:
        chunks[number] = rng.choice((b"acTL", b"eXIf", b"PLTE", b"tRNS", b"IHDR", b"IDAT", b"iCCP", b"zTXt")), body
    written = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return data[:8] + written


def change_zip(data: bytes, rng: random.Random) -> bytes:
    """Change the files inside an archive, their names, or the archive itself."""
    if rng.random() < 0.3:
        return change_bytes(data, rng)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(info.file_size for info in archive.infolist()) > 1 << 20:
                return change_bytes(data, rng)
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:
        return change_bytes(data, rng)
    if not members:
        return change_bytes(data, rng)
    number, kind = rng.randrange(len(members)), rng.randrange(10)
    name, body = members[number]
    if kind < 6:
        begin = body[:128] if rng.random() < 0.7 else body  # a header is where the lengths are
        members[number] = name, change_bytes(begin, rng) + body[len(begin) :]
    elif kind == 6:
        members.insert(number, rng.choice(members))
    elif kind == 7:
        other = str(rng.choice(VALUES)).encode("utf-8", "replace").decode()[:200]
        members[number] = other + rng.choice(("", ".npy")), body
    elif kind == 8:
        del members[number]
    else:
        digits = str(rng.choice((0, -1, 10**12, 2**63, 10**40))).encode()
        members[number] = name, re.sub(rb"\d+", digits, body[:128], count=1) + body[128:]
    stream, how = io.BytesIO(), rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    try:
        with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", how) as archive:
            warnings.simplefilter("ignore")  # of names that occur twice
            for name, body in members:
                info = zipfile.ZipInfo(name or "x", (1980, 1, 1, 0, 0, 0))
                info.compress_type = how
                archive.writestr(info, body)
    except (ValueError, UnicodeError, zipfile.LargeZipFile):
        return change_bytes(data, rng)
    return stream.getvalue()


def change_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Change the JSON at the beginning and correct its length."""
    length = int.from_bytes(data[:8], "little")
    if rng.random() < 0.3 or length > len(data):
        return change_bytes(data, rng)
    header = change_json(data[8 : 8 + length], rng)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def change_message(data: bytes, rng: random.Random) -> bytes:
    """Change a field somewhere in a message of protocol buffers, with right lengths around it."""
    if rng.random() < 0.15:
        return change_bytes(data, rng)
    try:
        fields = [*_fields(data)]
    except (IndexError, ValueError):
        fields = []
    if not fields:
        return change_bytes(data, rng)
    number = rng.randrange(len(fields))
    key, body = fields[number]
    if isinstance(body, bytes) and len(body) > 4 and rng.random() < 0.75:
        fields[number] = key, change_message(body, rng)
    else:
        kind = rng.randrange(6)
        if kind == 0:
            del fields[number]
        elif kind == 1:
            fields.insert(number, rng.choice(fields))
        elif kind == 2:
            fields[number] = key, rng.choice((*INTEGERS, 1 << 62, (1 << 64) - 1)) if isinstance(body, int) else b""
        elif kind == 3:
            fields[number] = rng.randrange(1, 30) << 3 | key & 7, body
        elif isinstance(body, bytes):
            words = (b"Loop", b"If", b"../x", b"/etc/passwd", b"location", b"\xff\xfe", b"Conv", b"Reshape", b"frames")
            fields[number] = key, rng.choice(words) if kind == 4 else change_bytes(body, rng)
        else:
            fields[number] = key, body ^ (1 << rng.randrange(16))
    return b"".join(_field(key, body) for key, body in fields)


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    at = 0
    while at < len(data):
        key, at = _number(data, at)
        if key & 7 == 0:
            value, at = _number(data, at)
            yield key, value
        elif key & 7 == 2:
            length, at = _number(data, at)
            if at + length > len(data):
                raise ValueError
            yield key, data[at : at + length]
            at += length
        elif key & 7 in (1, 5):
            size = 8 if key & 7 == 1 else 4
            yield key, data[at : at + size]
            at += size
        else:
            raise ValueError


def _number(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
        if byte < 128:
            return value, at


def _field(key: int, body: bytes | int) -> bytes:
    if isinstance(body, int):
        return _varint(key) + _varint(body)
    return _varint(key) + (_varint(len(body)) if key & 7 == 2 else b"") + body


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
