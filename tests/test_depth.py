"""Depth pictures: files, codes, ranges, fitting, and frames that are put together or refused."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import edgead
from edgead.datasets import find_depth_range, load_frames, open_category
from edgead.depth import as_depth, encode, find_depth_file, find_ends, measure_range
from edgead.errors import DataError
from edgead.folders import list_images
from edgead.images import PixelFormat, fit_depth, fit_frame, read_depth, read_frame, to_frame
from edgead.masks import draw_overlay

POINTS = np.random.default_rng(0).uniform(0.3, 0.6, (20, 30, 3)).astype(np.float32)


def write_picture(path: Path, picture: np.ndarray[Any, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)
    return path


def write_planar(path: Path, points: np.ndarray[Any, Any], order: str = "<", planes: int = 2) -> Path:
    """A TIFF by hand: float32 without compression, one strip for each channel, or one for all."""
    height, width, channels = points.shape
    data = (np.moveaxis(points, 2, 0) if planes == 2 else points).astype(f"{order}f4").tobytes()
    count = channels if planes == 2 else 1
    start = 8 + 2 + 12 * 10 + 4
    extra = start + 16 * channels  # bits and formats of each channel, then where the strips begin and how long they are
    strips = [(extra + 32 * channels + i * (len(data) // count), len(data) // count) for i in range(count)]
    one = count == 1
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, channels, start),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, count, strips[0][0] if one else extra),
        (277, 3, 1, channels),
        (279, 4, count, strips[0][1] if one else extra + 16 * channels),
        (284, 3, 1, planes),
        (339, 3, channels, start + 8 * channels),
    ]
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8) + struct.pack(f"{order}H", len(tags))
    for tag, kind, length, value in tags:
        short = kind == 3 and length == 1
        head += struct.pack(f"{order}HHI", tag, kind, length)
        head += struct.pack(f"{order}Hxx", value) if short else struct.pack(f"{order}I", value)
    body = bytearray(head + b"\0" * 4)
    for at, numbers, form in (
        (start, [32] * channels, "H"),
        (start + 8 * channels, [3] * channels, "H"),
        (extra, [offset for offset, _ in strips], "I"),
        (extra + 16 * channels, [length for _, length in strips], "I"),
    ):
        body = body.ljust(at, b"\0") + struct.pack(f"{order}{len(numbers)}{form}", *numbers)
    path.write_bytes(bytes(body.ljust(strips[0][0], b"\0")) + data)
    return path


def test_z_of_points_as_opencv_writes_them_and_as_others_do(tmp_path: Path) -> None:
    ours = write_picture(tmp_path / "ours.tiff", POINTS[:, :, ::-1])
    assert np.array_equal(read_depth(ours), POINTS[:, :, 2])
    for order in "<>":
        theirs = write_planar(tmp_path / "theirs.tiff", POINTS, order, planes=1)
        assert np.array_equal(read_depth(theirs), POINTS[:, :, 2])


def test_one_channel_of_metres_or_millimetres(tmp_path: Path) -> None:
    metres = write_picture(tmp_path / "metres.tiff", POINTS[:, :, 2])
    assert np.array_equal(read_depth(metres), POINTS[:, :, 2])
    counts = np.rint(POINTS[:, :, 2] * 1000).astype(np.uint16)
    assert np.array_equal(read_depth(write_picture(tmp_path / "millimetres.png", counts)), counts.astype(np.float32))


@pytest.mark.parametrize("order", ["<", ">"])
def test_what_opencv_reads_wrongly_is_refused(tmp_path: Path, order: str) -> None:
    planar = write_planar(tmp_path / "planar.tiff", POINTS, order)
    with pytest.raises(DataError, match=r"planar\.tiff: .* interleaved"):
        read_depth(planar)
    (tmp_path / "big.tiff").write_bytes((b"II+\0" if order == "<" else b"MM\0+") + b"\0" * 60)
    with pytest.raises(DataError, match="BigTIFF"):
        read_depth(tmp_path / "big.tiff")
    (tmp_path / "cut.tiff").write_bytes(planar.read_bytes()[:30])
    with pytest.raises(DataError, match="cut short"):
        read_depth(tmp_path / "cut.tiff")


def test_what_is_no_measurement() -> None:
    found = as_depth(np.array([[0.5, 0, -1], [np.nan, np.inf, 2]]))
    masked = np.ma.masked_equal([[0.5, 7, 7], [7, 7, 2]], 7)  # the values below the mask were distances
    assert np.array_equal(as_depth(masked), found)
    points = as_depth(np.ma.dstack([masked, masked, masked]))
    assert np.array_equal(points, found)
    assert found.dtype == np.float32
    assert found.tolist() == [[0.5, 0, 0], [0, 0, 2]]
    for picture, message in (
        (np.zeros((4, 4)), "no measurement"),
        (np.ones((4, 4, 2)), r"not \(4, 4, 2\)"),
        (np.ones(4), r"not \(4,\)"),
        (np.ones((4, 4), np.complex64), "not complex64"),
        ([[1.0]], "not <class 'list'>"),
    ):
        with pytest.raises(DataError, match=message):
            as_depth(picture)  # type: ignore[arg-type]


def test_codes_are_linear_over_the_range_and_end_there() -> None:
    depth = np.array([[0, 0.1, 0.4, 0.5, 0.6, 9]], np.float32)
    assert encode(depth, (0.4, 0.6)).tolist() == [[0, 1, 1, 128, 255, 255]]
    with pytest.raises(DataError, match=r"outside the range of training \(0\.4 to 0\.6\)\.\nCheck its unit"):
        encode(depth * 1000, (0.4, 0.6))


def test_the_range_is_that_of_all_pictures_without_stray_points() -> None:
    near, far = np.linspace(0.40, 0.45, 10_000), np.linspace(0.45, 0.50, 10_000)
    near[0], far[-1] = 0.01, 30
    far[:500] = 0
    found = measure_range([find_ends(each[:, None].astype(np.float32)) for each in (near, far)])
    assert found == pytest.approx((0.40 - 0.01, 0.50 + 0.01), abs=3e-4)
    assert measure_range([find_ends(np.full((4, 4), 2, np.float32))]) == pytest.approx((1.98, 2.02))


def test_no_depth_is_made_of_what_was_not_measured() -> None:
    codes = np.zeros((8, 8), np.uint8)
    codes[:, :3] = 200  # of each 2×2 in the second column of pixels, one half was measured
    codes[:2, 6:] = [[10, 0], [0, 21]]
    fitted = fit_depth(codes, (4, 4))
    assert fitted[:, :2].tolist() == [[200, 200]] * 4
    assert fitted[0].tolist() == [200, 200, 0, 16]
    assert not fitted[1:, 2:].any()
    larger = fit_depth(codes, (16, 16))
    assert set(np.unique(larger[6:])) == {0, 200}
    assert np.array_equal(fit_depth(np.full((7, 9), 255, np.uint8), (3, 5)), np.full((3, 5), 255))


@pytest.mark.parametrize("size", [(16, 24), (33, 50), (100, 90), (64, 80)])
def test_colours_are_fitted_as_without_depth(size: tuple[int, int]) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (64, 80, 4), dtype=np.uint8)
    fitted = fit_frame(frame, size)
    assert np.array_equal(fitted[:, :, :3], fit_frame(np.ascontiguousarray(frame[:, :, :3]), size))
    assert np.array_equal(fitted[:, :, 3], fit_depth(frame[:, :, 3], size))
    out = np.zeros((*size, 4), np.uint8)
    assert fit_frame(frame, size, out) is out
    assert np.array_equal(out, fitted)
    assert fitted.flags.c_contiguous


def test_a_frame_is_put_together(tmp_path: Path) -> None:
    colour = np.random.default_rng(2).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    expected = np.rint(1 + (POINTS[:, :, 2] - 0.3) / 0.3 * 254)
    for depth in (POINTS, POINTS[:, :, 2], POINTS[:, :, 2].astype(np.float64)):
        frame = edgead.with_depth(colour, depth, (0.3, 0.6))
        assert np.array_equal(frame[:, :, :3], colour)
        assert np.abs(frame[:, :, 3] - expected).max() <= 1
    file = write_picture(tmp_path / "rgb" / "a.png", colour)
    write_picture(tmp_path / "xyz" / "a.tiff", POINTS[:, :, ::-1])
    assert np.array_equal(read_frame(file, PixelFormat(depth_range=(0.3, 0.6))), frame)
    assert np.array_equal(read_frame(file), colour)
    picture = draw_overlay(frame, np.ones((5, 5), np.float32), np.zeros((20, 30), np.bool_), 1.0)
    assert picture.shape == (20, 30, 3)


def test_frames_that_do_not_fit_a_model_with_depth_or_one_without() -> None:
    colour, pixels = np.zeros((20, 30, 3), np.uint8), PixelFormat(depth_range=(0.3, 0.6))
    for image in (colour, colour[:, :, 0], np.zeros((20, 30, 4), np.uint16)):
        with pytest.raises(DataError, match=r"needs depth: .*\n.*edgead\.with_depth"):
            to_frame(image, pixels)
    with pytest.raises(DataError, match="30×10 pixels, its colour image 30×20"):
        edgead.with_depth(colour, POINTS[:10], (0.3, 0.6))
    with pytest.raises(DataError, match="takes no depth"):
        edgead.with_depth(colour, POINTS, None)
    for no_range in ((0.5, 0.5), (0.6, 0.3), (0.3,), (0.3, math.inf), "near", 3):
        with pytest.raises(DataError, match="must be two distances, the nearer one first"):
            edgead.with_depth(colour, POINTS, no_range)  # type: ignore[arg-type]


def test_files_of_a_data_set(rgbd_parts: Path) -> None:
    category = open_category(rgbd_parts)
    assert (category.layout, len(category.normals), len(category.validation)) == ("mvtec3d", 10, 4)
    (near, far), odd = find_depth_range(category.normals)
    assert not odd
    assert 0.435 < near < 0.45 < 0.5 < far < 0.52
    frames = load_frames(category.normals, (32, 40), PixelFormat(depth_range=(near, far)))
    colours = load_frames(category.normals, (32, 40))
    assert np.array_equal(frames.frames[..., :3], colours.frames)
    assert frames.fingerprint != colours.fingerprint
    depth = frames.frames[0, ..., 3].astype(int)
    assert depth[16, 20] < 80 < 200 < depth[0, 0]  # the dome is nearer than the table
    assert not depth[:, 39].any()
    assert {path.parent.name for path in list_images(rgbd_parts / "test", recursive=True)} == {"rgb"}


def test_depth_that_is_not_there(tmp_path: Path, rgbd_parts: Path) -> None:
    file = write_picture(tmp_path / "rgb" / "007.png", np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(
        DataError, match=r"rgb/007\.png has no depth: .*xyz/007\.tiff \(or \.tif, \.png\) does not exist"
    ):
        find_depth_file(file)
    with pytest.raises(DataError, match=r"None of the 1 good images has readable depth\. First error:\n.*007\.tiff"):
        find_depth_range([file])
    whole = open_category(rgbd_parts).normals
    frames = load_frames([file, *whole], (16, 16), PixelFormat(depth_range=(0.4, 0.6)))
    assert frames.paths == whole
    assert "007.tiff" in frames.skipped[0]
