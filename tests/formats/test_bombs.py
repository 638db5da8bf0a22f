"""Small image files that stand for gigabytes or hours: refused, or read without what is not needed."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgead.errors import DataError
from edgead.formats import lzw
from edgead.formats.decoding import decode_image

FUZZ = Path(__file__).parents[1] / "fuzz"
PART = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
PNG, JPEG, PPM = (cv2.imencode(suffix, PART)[1].tobytes() for suffix in (".png", ".jpg", ".ppm"))
Tag = tuple[int, int, int, int]
"""Number, type, count, and value or its place."""


def chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def tiff(entries: list[Tag], data: bytes) -> bytes:
    """A TIFF of one table; -1 as a value is the place of the data."""
    place = 8 + 2 + 12 * len(entries) + 4
    table = b"".join(struct.pack("<HHII", *head, place if value < 0 else value) for *head, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4) + data


def grey(width: int, height: int, compression: int, size: int) -> list[Tag]:
    """Tags of a picture in one strip, which is the data."""
    start: list[Tag] = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, compression)]
    return [*start, (262, 3, 1, 1), (273, 4, 1, -1), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, size)]


def texts(kind: bytes, head: bytes) -> bytes:
    """A PNG with 20 texts of 8 MB each, in 160 kB."""
    text = zlib.compress(b"a" * 7_900_000)
    return PNG[:33] + b"".join(chunk(kind, head % number + text) for number in range(20)) + PNG[33:]


def exif() -> bytes:
    """A JPEG with 4,000 tags, all of the same 17 kB."""
    size = 65_000 - 8 - 2 - 12 * 4000 - 4
    body = b"Exif\0\0" + tiff([(1000 + number, 1, size, -1) for number in range(4000)], bytes(size))
    return JPEG[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + JPEG[2:]


def tile() -> bytes:
    """A picture of one pixel in a tile of 16,384 × 16,384 pixels of 6 bytes."""
    tags: list[Tag] = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 1, 16), (259, 3, 1, 8), (262, 3, 1, 2), (277, 3, 1, 3)]
    data = zlib.compress(bytes(1 << 20))
    return tiff([*tags, (322, 4, 1, 1 << 14), (323, 4, 1, 1 << 14), (324, 4, 1, -1), (325, 4, 1, len(data))], data)


def overlapping_strips() -> bytes:
    """A thousand strips of one row each, all of them the whole file."""
    rows, data = 1000, zlib.compress(bytes(8)) + bytes(10_000)
    tags, place = grey(8, rows, 8, len(data)), 8 + 2 + 12 * 9 + 4
    tags[5], tags[7], tags[8] = (273, 4, rows, place), (278, 4, 1, 1), (279, 4, rows, place + 4 * rows)
    numbers = struct.pack("<I", place + 8 * rows) * rows + struct.pack("<I", len(data)) * rows
    return tiff(tags, numbers + data)


HARMLESS = {
    "PNG, zTXt": lambda: texts(b"zTXt", b"%d\0\0"),
    "PNG, iTXt": lambda: texts(b"iTXt", b"%d\0\1\0\0\0"),
    "PNG, zTXt after the pixels": lambda: texts(b"zTXt", b"%d\0\0")[:33] + PNG[33:-12] + texts(b"zTXt", b"%d\0\0")[33:],
    "PNG, data after its end": lambda: PNG + chunk(b"IHDR", PNG[16:29]) + b"\x7f\xff\xff\xffIDAT",
    "JPEG, EXIF": exif,
    "JPEG, fill bytes": lambda: JPEG[:2] + b"\xff" * (4 << 20) + JPEG[2:],
}
"""Bombs with a picture that is read. They are made where they are used: that takes seconds."""
REFUSED = {
    "PNG without pixels": (lambda: PNG[:33] + PNG[-12:] + b"\x7f\xff\xff\xffIDAT", "no pixels"),
    "TIFF, values on each other": (
        lambda: tiff(
            [*grey(8, 8, 1, 64), *((40_000 + number, 1, 1 << 18, -1) for number in range(2000))], bytes(1 << 18)
        ),
        "values are not inside the file, or overlap",
    ),
    "TIFF, tables on each other": (
        lambda: tiff([(254, 4, 1, 1)] * 65_535, b"")[:-4] + struct.pack("<I", 8),
        "tables overlap",
    ),
    "TIFF, width twice": (
        lambda: tiff([(256, 4, 1, 30_000), (257, 4, 1, 30_000), *grey(1, 1, 1, 1)], b"a"),
        "30000×30000 pixels need more than 512 MiB",
    ),
    "TIFF, width of another type": (lambda: tiff([(256, 11, 1, 0), *grey(1, 1, 1, 1)], b"a"), "no whole numbers"),
    "TIFF, tile": (tile, "16384×16384 pixels need more than 512 MiB"),
    "TIFF, strips on each other": (overlapping_strips, "strips overlap"),
    "TIFF, Deflate": (lambda: tiff(grey(8, 8, 8, 200_000), zlib.compress(bytes(200 << 20))), "cut short|damaged"),
    "PNM, number": (lambda: b"P5 " + b"9" * 5000 + b" 1 255\n", "header is damaged"),
    "PNM, space": (lambda: b"P6" + b" " * (4 << 20) + PPM[2:], "header is damaged"),
}
"""Bombs ↦ the error they cause."""


@pytest.mark.parametrize("name", HARMLESS)
def test_a_picture_is_read_without_what_is_not_needed(name: str) -> None:
    data = HARMLESS[name]()
    assert np.array_equal(decode_image(data), decode_image(PNG if data.startswith(b"\x89") else JPEG))


@pytest.mark.parametrize("name", REFUSED)
def test_a_bomb_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, said = REFUSED[name]
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    data = make()
    with pytest.raises(DataError, match=said):
        decode_image(data)


def test_alpha_and_palette_are_kept() -> None:
    """They are pixels too."""
    clear = np.dstack([PART, np.full((8, 8), 7, np.uint8)])
    data = cv2.imencode(".png", clear)[1].tobytes()
    with_text = data[:33] + chunk(b"tEXt", b"a\0b") + data[33:]
    assert np.array_equal(decode_image(with_text, cv2.IMREAD_UNCHANGED), clear)


def test_lzw_codes_longer_than_the_first_look() -> None:
    """Tables of all lengths: what the codes stand for is as long as the data."""
    for size in (1, 60, 300, 5000, 70_000):
        picture = np.random.default_rng(size).integers(0, 256, (1, size), dtype=np.uint8)
        data = cv2.imencode(".tiff", picture, [cv2.IMWRITE_TIFF_COMPRESSION, 5])[1].tobytes()
        assert np.array_equal(decode_image(data, cv2.IMREAD_UNCHANGED), picture)
    with pytest.raises(ValueError, match="no clear code"):
        lzw.decoded_size(b"")


def coded(codes: list[int]) -> bytes:
    """Codes of tables so short that all have 9 bits."""
    bits = "".join(f"{code:09b}" for code in codes)
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


@pytest.mark.parametrize("table", [[], [65], [65, 258, 259], list(range(253))], ids=len)
def test_lzw_tables_that_are_cleared_all_the_time(table: list[int]) -> None:
    """Each table took as long as one of 4,000 codes: a quarter of a megabyte of them five seconds."""
    stands_for = 6 if 258 in table else len(table)  # A, AA, AAA
    count = 200_000 // (len(table) + 1)
    began = time.process_time()
    assert lzw.decoded_size(coded([*[256, *table] * count, 257])) == count * stands_for
    assert time.process_time() - began < 2
    with pytest.raises(ValueError, match="not in the table"):
        lzw.decoded_size(coded([*[256, *table] * 5, 256, 258, *[256, *table] * 5, 257]))


MEASURE = """
import sys
sys.path[:0] = sys.argv[1:]
from guard import Memory
from edgead.errors import DataError
from edgead.formats.decoding import decode_image
from test_bombs import HARMLESS, PNG, REFUSED
memory = Memory()
for name, make in {**HARMLESS, **{name: make for name, (make, _) in REFUSED.items()}}.items():
    data = make()
    memory.restart()
    try:
        decode_image(data)
    except DataError:
        pass
    print(f"{memory.grown:.0f} MiB: {name}")
"""


def test_no_bomb_takes_memory() -> None:
    """In a process of its own, because other tests may give memory back meanwhile."""
    folders = (str(FUZZ), str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", MEASURE, *folders], capture_output=True, text=True, check=True)
    grown = {line: int(line.split()[0]) for line in done.stdout.splitlines()}
    assert len(grown) == len(HARMLESS) + len(REFUSED)
    assert not [line for line, amount in grown.items() if amount > 96]
