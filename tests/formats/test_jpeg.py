"""A JPEG is decided on if it is whole: what a decoder fills in is found, and nothing that is whole is refused."""

from __future__ import annotations

import io
import itertools
import re

import cv2
import numpy as np
import pytest
from PIL import Image

from edgead.errors import DataError
from edgead.formats import jpeg

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (120, 200, 3), dtype=np.uint8)
PART = cv2.GaussianBlur(cv2.resize(NOISE, (600, 400)), (0, 0), 3)
START_OF_SCAN = re.compile(rb"\xff\xda")


def encode(image: np.ndarray, kind: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, **options)
    return stream.getvalue()


BASELINE = encode(PART, quality=90)
PROGRESSIVE = encode(PART, quality=90, progressive=True)
RESTARTS = encode(PART, quality=90, restart_marker_rows=1)
KINDS = {"baseline": BASELINE, "progressive": PROGRESSIVE, "restarts": RESTARTS, "grey": encode(PART[:, :, 0])}


def find_flaw(data: bytes) -> str:
    """Return why a JPEG is refused, or an empty text where it is decoded."""
    try:
        jpeg.decode(data)
    except DataError as flaw:
        return str(flaw)
    return ""


def middle(data: bytes) -> int:
    """Return a place amid the coded data."""
    return (data.index(b"\xff\xda") + len(data)) // 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_file_is_decoded_as_opencv_does(kind: str) -> None:
    data = KINDS[kind]
    assert find_flaw(data) == ""
    assert np.array_equal(jpeg.decode(data), cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
    assert np.array_equal(jpeg.decode(data + bytes(64)), jpeg.decode(data))  # a camera's buffer is longer


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_decoder_fills_in_is_found(kind: str) -> None:
    data, at = KINDS[kind], middle(KINDS[kind])
    end, foreign = data[-2:], RNG.integers(0, 255, 2000, dtype=np.uint8).tobytes()
    damaged = {
        "cut": data[:at],
        "cut with an end marker": data[:at] + end,
        "without an end marker": data[:-2],
        "a hole to the end": data[:at] + bytes(len(data) - at - 2) + end,
        "a small hole": data[:at] + bytes(32) + data[at + 32 :],
        "erased": data[:at] + b"\xff" * 64 + data[at + 64 :],
        "foreign bytes": data[:at] + foreign + data[at + len(foreign) :],
        "the next picture begins within": data[:at] + data,
    }
    assert {name: find_flaw(broken) for name, broken in damaged.items() if not find_flaw(broken)} == {}


def test_a_file_that_claims_more_or_fewer_rows_than_it_holds_is_found() -> None:
    at = re.search(rb"\xff\xc0..\x08", BASELINE, re.DOTALL).end()
    for rows in (300, 500, 4000):
        claims = BASELINE[:at] + rows.to_bytes(2, "big") + BASELINE[at + 2 :]
        assert re.search("cut short|do not belong", find_flaw(claims))


def test_missing_scans_are_found() -> None:
    """A decoder shows a progressive file that lacks its last scans, only coarser, and libjpeg does not warn."""
    starts = [found.start() for found in START_OF_SCAN.finditer(PROGRESSIVE)]
    assert len(starts) > 5
    for start in starts[1:]:
        assert "scans" in find_flaw(PROGRESSIVE[:start] + b"\xff\xd9")


def test_a_lost_restart_interval_is_found() -> None:
    marks = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", RESTARTS)]
    for first, last in ((3, 4), (2, 5), (3, 11)):  # eight of them later the numbers agree again
        assert find_flaw(RESTARTS[: marks[first]] + RESTARTS[marks[last] :]) != ""


def test_zeros_in_the_tables_are_found() -> None:
    at = BASELINE.index(b"\xff\xdb") + 5
    assert "quantisation" in find_flaw(BASELINE[:at] + bytes(32) + BASELINE[at + 32 :])
    at = BASELINE.index(b"\xff\xc4") + 5
    assert find_flaw(BASELINE[:at] + bytes(32) + BASELINE[at + 32 :]) != ""


def test_every_cut_and_every_tenth_hole_is_found() -> None:
    small = encode(PART[:64, :96], quality=80)
    start = small.index(b"\xff\xda")
    assert all(find_flaw(small[:cut]) for cut in range(len(small)))
    assert all(find_flaw(small[:cut] + b"\xff\xd9") for cut in range(start, len(small) - 2))
    whole = jpeg.decode(small)
    for at in range(start + 14, len(small) - 34, 10):
        data = small[:at] + bytes(32) + small[at + 32 :]
        assert find_flaw(data) or np.array_equal(jpeg.decode(data), whole)


def test_flat_images_are_whole_although_their_code_is_zeros() -> None:
    flat = [np.full((256, 320, 3), (3, 200, 30), np.uint8), np.full((256, 320), 255, np.uint8), NOISE]
    for image, quality, progressive, optimise in itertools.product(flat, (10, 95), (False, True), (False, True)):
        ok, data = cv2.imencode(
            ".jpg",
            image,
            [
                *(cv2.IMWRITE_JPEG_QUALITY, quality),
                *(cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)),
                *(cv2.IMWRITE_JPEG_OPTIMIZE, int(optimise)),
            ],
        )
        assert ok
        assert find_flaw(data.tobytes()) == ""


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    data = encode(PART[:, :250], exif=exif)
    assert np.array_equal(jpeg.decode(data), cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))


def test_four_inks() -> None:
    stream = io.BytesIO()
    Image.fromarray(PART).convert("CMYK").save(stream, "JPEG", quality=90)
    data = stream.getvalue()
    assert np.array_equal(jpeg.decode(data), cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
    assert find_flaw(data[: middle(data)] + b"\xff\xd9") != ""


def test_a_cameras_frame_without_huffman_tables() -> None:
    """UVC cameras leave out the standard tables."""
    _, encoded = cv2.imencode(".jpg", PART)
    whole = encoded.tobytes()
    frame = whole
    while (at := frame.find(b"\xff\xc4")) >= 0:
        frame = frame[:at] + frame[at + 2 + int.from_bytes(frame[at + 2 : at + 4], "big") :]
    assert np.array_equal(jpeg.decode(frame), jpeg.decode(whole))
    at = middle(frame)
    assert "hole" in find_flaw(frame[:at] + bytes(32) + frame[at + 32 :])


def test_limits_are_checked_before_decoding() -> None:
    at = BASELINE.index(b"\xff\xc0") + 5
    bomb = BASELINE[:at] + b"\xff\xff\xff\xff" + BASELINE[at + 4 :]
    with pytest.raises(DataError, match="65535×65535 pixels need more than 512 MiB"):
        jpeg.decode(bomb)
    scan = PROGRESSIVE[: START_OF_SCAN.search(PROGRESSIVE).start()]
    one = b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x01"
    assert "200 scans" in find_flaw(scan + one * 300 + b"\xff\xd9")
