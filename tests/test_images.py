"""Decoding, conversion and the one preprocessing function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgead.errors import DataError
from edgead.images import PixelFormat, fit_frame, read_frame, to_frame
from edgead.masks import draw_overlay, read_mask

RNG = np.random.default_rng(0)
COLOUR = cv2.GaussianBlur(RNG.integers(0, 256, (60, 80, 3), dtype=np.uint8), (0, 0), 2)


@pytest.mark.parametrize("bits", [8, 17, 0, 12.5, None])
def test_a_number_of_bits_that_no_image_has_is_refused(bits: Any) -> None:
    with pytest.raises(DataError, match="a whole number from 9 to 16"):
        PixelFormat(bit_depth=bits)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jfif", ".tiff", ".webp", ".bmp", ".ppm"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    path.write_bytes(cv2.imencode(suffix.replace("jfif", "jpg"), COLOUR)[1].tobytes())
    frame = read_frame(path)
    assert frame.shape == (60, 80, 3)
    assert frame.dtype == np.uint8
    assert np.abs(frame.astype(int) - COLOUR).mean() < 4  # JPEG and WebP lose a little


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_grey_alpha_and_16_bit(tmp_path: Path, suffix: str) -> None:
    grey = COLOUR[:, :, 0]
    path = tmp_path / f"image{suffix}"
    cv2.imwrite(str(path), grey)
    assert np.array_equal(read_frame(path), np.repeat(grey[:, :, None], 3, axis=2))
    cv2.imwrite(str(path), np.dstack([COLOUR, np.full((60, 80), 7, np.uint8)]))
    assert np.array_equal(read_frame(path), COLOUR)
    cv2.imwrite(str(path), COLOUR.astype(np.uint16) << 8)
    assert np.array_equal(read_frame(path), COLOUR)
    cv2.imwrite(str(path), grey.astype(np.uint16) << 4)  # 12 bits in 16
    assert np.array_equal(read_frame(path, PixelFormat(bit_depth=12))[:, :, 0], grey)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jfif", ".tiff", ".webp", ".bmp", ".ppm"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.99])
def test_cut_files_are_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"image{suffix}"
    data = cv2.imencode(suffix.replace("jfif", "jpg"), COLOUR)[1].tobytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=f"image{suffix}"):
        read_frame(path)


def test_missing_file_and_text_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_frame(tmp_path / "absent.png")
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(DataError, match="not an image, or damaged"):
        read_frame(tmp_path / "text.png")


def test_to_frame_converts_at_the_door() -> None:
    assert to_frame(COLOUR) is COLOUR
    assert to_frame(COLOUR[:, :, 0]).shape == (60, 80, 3)
    assert to_frame(COLOUR[:, :, :1]).shape == (60, 80, 3)
    assert np.array_equal(to_frame(COLOUR.astype(np.uint16) * 256), COLOUR)
    assert np.array_equal(to_frame((COLOUR.astype(np.uint16) * 256).astype(">u2")), COLOUR)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
        np.ma.masked_equal(COLOUR, COLOUR[0, 0, 0]),
        "x",
    ],
)
def test_to_frame_refuses_the_rest(image: object) -> None:
    with pytest.raises(DataError, match=r"A frame must|of this frame are masked"):
        to_frame(image)  # type: ignore[arg-type]


def test_fit_is_the_identity_at_the_models_size() -> None:
    assert fit_frame(COLOUR, (60, 80)) is COLOUR


@pytest.mark.parametrize(
    "shape", [(1080, 1920), (1024, 1024), (901, 1203), (300, 260), (100, 90), (1000, 120), (256, 256)]
)
def test_fit_shape_and_mean(shape: tuple[int, int]) -> None:
    frame = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    fitted = fit_frame(frame, (256, 256))
    assert fitted.shape == (256, 256, 3)
    assert fitted.dtype == np.uint8
    assert fitted.flags.c_contiguous
    assert abs(float(fitted.mean()) - float(frame.mean())) < 1


def test_fit_does_not_alias() -> None:
    """A grating finer than the target's pixels must become flat grey; INTER_LINEAR makes false stripes of it."""
    columns = np.arange(1920)
    grating = (127.5 + 127.5 * np.sin(2 * np.pi * columns / 3.7)).astype(np.uint8)
    frame = np.broadcast_to(grating[None, :, None], (1080, 1920, 3)).copy()
    assert fit_frame(frame, (256, 256)).std() < 12
    assert cv2.resize(frame, (256, 256)).std() > 60


def test_fit_has_the_geometry_of_one_area_average() -> None:
    frame = cv2.GaussianBlur(RNG.integers(0, 256, (1080, 1920, 3), dtype=np.uint8), (0, 0), 9)
    expected = cv2.resize(frame, (256, 256), interpolation=cv2.INTER_AREA)
    assert np.abs(fit_frame(frame, (256, 256)).astype(int) - expected).max() <= 2


def test_masks_of_any_kind(tmp_path: Path) -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[5:9, 3:12] = 1  # VisA numbers its kinds of defect from 1
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    assert np.array_equal(read_mask(tmp_path / "mask.png"), mask > 0)
    cv2.imwrite(str(tmp_path / "mask.jpg"), mask * 255)
    assert (read_mask(tmp_path / "mask.jpg") ^ (mask > 0)).mean() < 0.02


def test_overlay_is_hot_where_the_map_is_and_leaves_the_rest() -> None:
    heat = np.zeros((30, 40), np.float32)
    heat[10:20, 10:20] = 1
    mask = cv2.resize(heat, (80, 60)) > 0.5
    picture = draw_overlay(COLOUR, heat, mask, 0.5)
    assert picture.shape == COLOUR.shape
    assert np.array_equal(picture[50:, 60:], COLOUR[50:, 60:])
    assert np.abs(picture[25:35, 25:35].astype(int) - COLOUR[25:35, 25:35]).mean() > 20


def test_an_overlay_is_drawn_on_frames_of_any_memory_layout() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    values = np.zeros((20, 30), np.float32)
    values[5:9, 5:9] = 1
    wanted = draw_overlay(frame, values, values > 0, 0.5)
    planes = np.ascontiguousarray(frame.transpose(2, 0, 1)).transpose(1, 2, 0)
    for view in (planes, np.asfortranarray(frame), frame[::-1].copy()[::-1], frame[:, :, ::-1].copy()[:, :, ::-1]):
        np.testing.assert_array_equal(draw_overlay(view, values, values > 0, 0.5), wanted)
