"""Files of every format: whole ones are decoded as OpenCV does, damaged ones are refused or decoded to the same."""

from __future__ import annotations

import contextlib
import io
import os
import random
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from edgead.errors import ConfigError, DataError
from edgead.formats import limits, lzw
from edgead.formats.decoding import decode_image
from edgead.formats.tags import replace_value
from edgead.images import COLOUR, is_image, read_depth, read_frame, read_image
from edgead.masks import read_mask
from edgead.runtime.sources.files import open_path

RNG = np.random.default_rng(0)
PART = cv2.GaussianBlur(RNG.integers(0, 256, (150, 200, 3), dtype=np.uint8), (0, 0), 2)
WIDE = PART.astype(np.uint16) * 257


def by_opencv(suffix: str, image: np.ndarray = PART, *options: int) -> bytes:
    written, data = cv2.imencode(suffix, image, options)
    assert written
    return data.tobytes()


def by_pillow(kind: str, image: np.ndarray = PART, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, **options)
    return stream.getvalue()


def tiff(compression: str | None, image: np.ndarray = PART) -> bytes:
    return by_pillow("TIFF", image, compression=compression)


FILES = {
    "jpeg": by_opencv(".jpg", PART, cv2.IMWRITE_JPEG_QUALITY, 90),
    "progressive jpeg": by_opencv(".jpg", PART, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "jpeg with restarts": by_opencv(".jpg", PART, cv2.IMWRITE_JPEG_RST_INTERVAL, 5),
    "png": by_opencv(".png"),
    "png, 16 bits": by_opencv(".png", WIDE),
    "tiff, plain": tiff(None),
    "tiff, LZW": tiff("tiff_lzw"),
    "tiff, LZW, 16 bits": by_opencv(".tiff", WIDE),
    "tiff, Deflate": tiff("tiff_adobe_deflate"),
    "tiff, PackBits": tiff("packbits"),
    "bmp": by_opencv(".bmp"),
    "bmp, palette": by_pillow("BMP", PART[:, :, 0]),
    "ppm": by_opencv(".ppm"),
    "pgm, 16 bits": by_opencv(".pgm", WIDE[:, :, 0]),
    "pbm": by_opencv(".pbm", PART[:, :, 0]),
    "webp": by_opencv(".webp"),
    "webp, lossless": by_opencv(".webp", PART, cv2.IMWRITE_WEBP_QUALITY, 101),
}
SUMMED = ["png", "png, 16 bits", "tiff, Deflate"]
"""Formats that hold a checksum."""
CODED = ["tiff, LZW", "tiff, LZW, 16 bits"]
"""Formats of codes in which damage shows, unless one literal takes the place of another."""

Damage = Callable[[bytes, int, random.Random], bytes]


def zeros(data: bytes, at: int, draw: random.Random) -> bytes:
    size = draw.choice((16, 64, 512, 2000))
    return data[:at] + bytes(size) + data[at + size :]


def foreign(data: bytes, at: int, draw: random.Random) -> bytes:
    size = draw.choice((256, 512, 2000))
    return data[:at] + draw.randbytes(size) + data[at + size :]


def lost(data: bytes, at: int, draw: random.Random) -> bytes:
    return data[:at] + data[at + draw.choice((64, 512, 2000)) :]


def one_bit(data: bytes, at: int, draw: random.Random) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


def zeros_to_the_end(data: bytes, at: int, draw: random.Random) -> bytes:
    return data[:at] + bytes(len(data) - at - 2) + data[-2:]


def cut_but_ended(data: bytes, at: int, draw: random.Random) -> bytes:
    return data[:at] + data[-2:]


def cut(data: bytes, at: int, draw: random.Random) -> bytes:
    return data[:at]


def wrongly_decided(data: bytes, damage: Damage, beginning: float, count: int = 60) -> list[int]:
    """Return the seeds of the damages after which a picture is decoded that is not the whole one."""
    whole, wrong = decode_image(data), []
    for seed in range(count):
        draw = random.Random(seed)
        at = draw.randrange(int(len(data) * beginning), len(data) * 9 // 10)
        try:
            decoded = decode_image(damage(data, at, draw))
        except DataError:
            continue
        if not np.array_equal(decoded, whole):
            wrong.append(seed)
    return wrong


@pytest.mark.parametrize("name", FILES)
def test_whole_files_are_decoded_as_opencv_does(name: str) -> None:
    expected = cv2.imdecode(np.frombuffer(FILES[name], np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    assert np.array_equal(decode_image(FILES[name]), expected)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_anywhere_is_refused(name: str) -> None:
    assert wrongly_decided(FILES[name], cut, 0.0) == []
    assert wrongly_decided(FILES[name], cut, 0.85) == []
    with pytest.raises(DataError):
        decode_image(FILES[name][:-4])


@pytest.mark.parametrize("damage", [zeros, foreign, lost, zeros_to_the_end, cut_but_ended])
@pytest.mark.parametrize("name", SUMMED + CODED)
def test_damage_is_found_where_a_format_can_show_it(name: str, damage: Damage) -> None:
    assert wrongly_decided(FILES[name], damage, 0.1) == []


@pytest.mark.parametrize("name", SUMMED)
def test_a_checksum_finds_one_bit(name: str) -> None:
    assert wrongly_decided(FILES[name], one_bit, 0.1) == []


@pytest.mark.parametrize("damage", [zeros, zeros_to_the_end, cut_but_ended])
@pytest.mark.parametrize("name", ["jpeg", "progressive jpeg", "jpeg with restarts"])
def test_holes_and_cuts_of_jpegs_are_found(name: str, damage: Damage) -> None:
    assert wrongly_decided(FILES[name], damage, 0.2) == []


@pytest.mark.parametrize("name", ["jpeg", "progressive jpeg", "jpeg with restarts"])
@pytest.mark.parametrize("damage", [foreign, lost])
def test_most_foreign_bytes_in_jpegs_are_found(name: str, damage: Damage) -> None:
    """Not all: a decoder can find its place again after them, by chance at the right block."""
    assert len(wrongly_decided(FILES[name], damage, 0.2)) <= 6


@pytest.mark.parametrize("name", FILES)
def test_damaged_headers_raise_nothing_else(name: str) -> None:
    data = FILES[name]
    for seed in range(150):
        draw = random.Random(seed)
        broken = bytearray(data)
        for _ in range(draw.choice((1, 3, 20))):
            place = draw.choice((draw.randrange(min(600, len(data))), -1 - draw.randrange(300)))
            broken[place] = draw.choice((0, 1, 255, draw.randrange(256)))
        with contextlib.suppress(DataError):
            assert decode_image(bytes(broken)).size > 0


def test_tiles_of_a_tiff() -> None:
    """Those at the edges reach over the picture."""
    grey = PART[:40, :50, 0]
    padded = np.zeros((48, 64), np.uint8)
    padded[:40, :50] = grey
    tiles = [zlib.compress(padded[y : y + 16, x : x + 16].tobytes()) for y in (0, 16, 32) for x in (0, 16, 32, 48)]

    def write(parts: list[bytes]) -> bytes:
        data = b"".join(parts)
        starts = np.cumsum([8] + [len(part) for part in parts])[:-1].tolist()
        arrays = struct.pack(f"<{2 * len(parts)}I", *starts, *map(len, parts))
        at, count = 8 + len(data), len(parts)
        tags = [(256, 50), (257, 40), (258, 8), (259, 8), (262, 1), (277, 1), (322, 16), (323, 16)]
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
        entries += struct.pack("<HHIIHHII", 324, 4, count, at, 325, 4, count, at + 4 * count)
        table = struct.pack("<H", 10) + entries + bytes(4)
        return b"II*\0" + struct.pack("<I", at + len(arrays)) + data + arrays + table

    assert np.array_equal(decode_image(write(tiles))[:, :, 0], grey)
    tiles[5] = tiles[5][:20] + bytes(20) + tiles[5][40:]
    with pytest.raises(DataError, match="Deflate-coded"):
        decode_image(write(tiles))
    with pytest.raises(DataError, match="wrong number of strips"):
        decode_image(write(tiles[:-1]))


def test_lzw_sizes() -> None:
    """Long chains of entries, several clears, a strip of one byte."""
    flat, noise = np.zeros((300, 400), np.uint8), RNG.integers(0, 256, (300, 400), dtype=np.uint8)
    for image in (flat, noise, flat[:1, :1], np.tile(np.arange(250, dtype=np.uint8), (400, 1))):
        assert np.array_equal(decode_image(tiff("tiff_lzw", image))[:, :, 0], image)
    for broken in (b"", b"\x80", b"\x80\x00", bytes(50), b"\xff" * 50):
        with pytest.raises(ValueError, match="code"):
            lzw.decoded_size(broken)


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "WEBP", "PNG"])
def test_files_of_several_pictures_are_refused(tmp_path: Path, kind: str) -> None:
    good, bad = Image.new("RGB", (40, 30)), Image.new("RGB", (40, 30), (255, 0, 0))
    path = tmp_path / f"pages.{kind.lower()}"
    good.save(path, kind, save_all=True, append_images=[bad, good])
    with pytest.raises(
        DataError, match="GIF is not supported" if kind == "GIF" else r"pages\..* holds 3 (pages|frames)"
    ):
        read_frame(path)


def test_several_pnm_pictures_in_one_file_are_refused() -> None:
    with pytest.raises(DataError, match="holds 2 pictures"):
        decode_image(FILES["ppm"] * 2)
    assert np.array_equal(decode_image(FILES["ppm"] + b"\n"), PART)


@pytest.mark.parametrize(("kind", "read"), [(1, True), (4, True), (0, False)])
def test_a_preview_or_a_mask_in_a_tiff_is_not_a_page(kind: int, read: bool) -> None:
    data = FILES["tiff, plain"]
    (table,) = struct.unpack_from("<I", data, 4)
    link = table + 2 + 12 * int.from_bytes(data[table : table + 2], "little")
    second = struct.pack("<HHHIII", 1, 254, 4, 1, kind, 0)
    data = data[:link] + struct.pack("<I", len(data)) + data[link + 4 :] + second
    if read:
        assert np.array_equal(decode_image(data), PART[:, :, ::-1])
    else:
        with pytest.raises(DataError, match="holds 2 pages"):
            decode_image(data)


@pytest.mark.parametrize(
    ("suffix", "said"), [(".heic", "HEIC"), (".gif", "GIF"), (".avif", "AVIF"), (".dng", "raw"), (".jp2", "JPEG 2000")]
)
def test_formats_that_are_not_read_are_images_and_refused_by_name(tmp_path: Path, suffix: str, said: str) -> None:
    path = tmp_path / f"photo{suffix}"
    path.write_bytes(b"whatever")
    assert is_image(path)
    with pytest.raises(DataError, match=rf"photo\{suffix}: .*{said}.* is not supported. Convert it"):
        read_frame(path)


def test_content_counts_and_not_the_suffix(tmp_path: Path) -> None:
    (tmp_path / "phone.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(DataError, match="HEIC is not supported"):
        read_frame(tmp_path / "phone.jpg")
    (tmp_path / "really.jpg").write_bytes(FILES["png"])
    assert np.array_equal(read_frame(tmp_path / "really.jpg"), PART)
    for suffix in (".jfif", ".JPE", ".ppm", ".PGM", ".pbm", ".pnm", ".dib"):
        assert is_image(tmp_path / f"image{suffix}")


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [(np.int32, "32-bit signed integers"), (np.float32, "32-bit floating"), (np.float64, "64-bit floating")],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_tiffs_of_other_numbers_are_refused_by_name(tmp_path: Path, dtype: type, kind: str, channels: int) -> None:
    path = tmp_path / "image.tiff"
    cv2.imwrite(str(path), PART[:, :, :channels].astype(dtype))
    with pytest.raises(DataError, match=rf"image.tiff: .*{kind}"):
        read_frame(path)
    assert read_image(path).dtype.kind in "fi"  # as a depth image it is read


def test_other_kinds_of_pixels_are_read() -> None:
    colours = Image.fromarray(PART[:, :, ::-1])
    for mode, kind in (("1", "PNG"), ("P", "PNG"), ("LA", "PNG"), ("1", "TIFF"), ("P", "TIFF"), ("CMYK", "TIFF")):
        stream = io.BytesIO()
        image = colours.convert(mode)
        image.save(stream, kind)
        assert np.array_equal(decode_image(stream.getvalue()), np.asarray(image.convert("RGB"))[:, :, ::-1])


def test_a_tiff_in_which_0_is_white_is_read_so_or_refused(tmp_path: Path) -> None:
    """X-ray cameras write them. OpenCV turns 8 bits, and returns the negative of 16: of one part, two pictures."""
    grey = PART[:, :, 0]
    for image in (grey, grey.astype(np.uint16) << 8):
        data = bytes(cv2.imencode(".tif", image)[1])
        (tmp_path / f"{image.itemsize}.tif").write_bytes(replace_value(data, 262, 1, 0))
    assert np.array_equal(read_frame(tmp_path / "1.tif")[:, :, 0], 255 - grey)
    for read in (read_frame, read_mask):
        with pytest.raises(DataError, match=r"0 is white in it \(photometric interpretation 0\), with 16 bits"):
            read(tmp_path / "2.tif")
    assert np.array_equal(read_depth(tmp_path / "2.tif"), grey.astype(np.float32) * 256)  # distances have no white


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_colours_under_alpha_are_as_they_are_stored(kind: str) -> None:
    """libtiff multiplies them by the alpha: a half-transparent TIFF was half as bright as the same PNG."""
    alpha = RNG.integers(1, 256, PART.shape[:2], dtype=np.uint8)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = by_pillow(kind, np.dstack([PART[:, :, ::-1], alpha]), **options)
    assert np.array_equal(decode_image(data), PART)
    assert np.array_equal(decode_image(data, cv2.IMREAD_UNCHANGED), np.dstack([PART, alpha]))


@pytest.mark.parametrize("name", FILES)
def test_size_is_limited_before_decoding(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(limits.VARIABLE, "0")
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(DataError, match="200×150 pixels need more than 0 MiB"):
        decode_image(FILES[name])


def test_a_bomb_is_refused() -> None:
    """A PNG of 14,000 × 14,000 black pixels has 200 kB."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 14000, 14000, 8, 0, 0, 0, 0)
    bomb = FILES["png"][:8] + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + FILES["png"][33:]
    with pytest.raises(DataError, match="14000×14000 pixels need more than 512 MiB"):
        decode_image(bomb)


def test_the_limit_must_be_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(limits.VARIABLE, "much")
    with pytest.raises(ConfigError, match="EDGEAD_MAX_IMAGE_MIB must be a number"):
        decode_image(FILES["png"])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_format_and_every_opencv_turns_alike(orientation: int, tmp_path: Path) -> None:
    """Older versions of OpenCV apply the orientation of JPEGs alone."""
    exif = Image.Exif()
    exif[274] = orientation
    frames = []
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 100, "subsampling": 0})):
        path = tmp_path / kind.lower()
        Image.fromarray(PART).save(path, kind, exif=exif, **options)
        frames.append(read_frame(path))
        assert np.array_equal(read_image(path), frames[-1])
    assert frames[0].shape == ((150, 200, 3) if orientation < 5 else (200, 150, 3))
    assert np.array_equal(frames[0], frames[1])
    assert np.abs(frames[0].astype(int) - frames[2]).max() < 8


def test_a_bmp_that_is_still_written(tmp_path: Path) -> None:
    path, data = tmp_path / "part.bmp", FILES["bmp"]
    for length in range(0, len(data), 4001):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=r"cut short|empty|not an image"):
            read_frame(path)
    path.write_bytes(data)
    assert np.array_equal(read_frame(path), PART)


def test_a_file_whose_end_was_only_reserved(tmp_path: Path) -> None:
    path, data = tmp_path / "part.bmp", by_opencv(".bmp", np.tile(PART, (3, 3, 1)))
    path.write_bytes(data[:5000])
    os.truncate(path, len(data))
    with path.open("rb") as stream:
        if os.lseek(stream.fileno(), 0, os.SEEK_HOLE) == len(data):
            pytest.skip("this file system does not know its holes")
    with pytest.raises(DataError, match="hole at byte"):
        read_frame(path)


def test_a_file_that_is_changed_while_it_is_read(tmp_path: Path) -> None:
    """A writer puts another picture into the file, over and over, in its place."""
    path = tmp_path / "part.bmp"
    dark, light = (by_opencv(".bmp", np.full((2000, 2000, 3), value, np.uint8)) for value in (10, 200))
    path.write_bytes(dark)
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            for picture in (light, dark):
                with path.open("r+b") as stream:
                    for at in range(0, len(picture), 1 << 20):
                        stream.write(picture[at : at + (1 << 20)])
                        stream.flush()
                        done.wait(0.01)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with pytest.raises(DataError, match="changed while it was read"):
            _ = [read_image(path) for _ in range(1000)]
    finally:
        done.set()
        writer.join()
    path.write_bytes(light)
    assert read_image(path).min() == 200


def test_an_image_of_any_name_is_not_taken_for_a_video(tmp_path: Path) -> None:
    """OpenCV's FFmpeg would read it, and conceal what is missing."""
    for name, data in FILES.items():
        path = tmp_path / name
        path.write_bytes(data[: len(data) // 2])
        with open_path(str(path), "", COLOUR) as source:
            [captured] = source
        assert (captured.image, captured.cause) == (None, "unreadable")


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Is a directory"):
        read_frame(tmp_path)
    with pytest.raises(DataError, match="No such file"):
        read_frame(tmp_path / "absent.png")


def test_no_real_image_is_refused(real_data: Path) -> None:
    paths = sorted(path for path in real_data.rglob("*") if path.suffix in (".jpg", ".png"))[::15]
    assert len(paths) > 100
    for path in paths:
        expected = cv2.imread(str(path), cv2.IMREAD_COLOR)
        assert np.array_equal(read_frame(path), expected), path
