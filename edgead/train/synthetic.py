"""Synthetic anomalies: Perlin-shaped masks filled with foreign texture (Zavrtanik et al., DRAEM, ICCV 2021, 3.3).

Every function takes its random generator and depends on nothing else that is random.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from edgead.images import Frame, Mask, cv2

Rng = np.random.Generator
Floats = NDArray[np.float32]


def perlin_noise(rng: Rng, size: tuple[int, int], cells: tuple[int, int]) -> Floats:
    """Perlin gradient noise on a lattice of `cells` (rows, columns), with unit gradients and the fade 6t⁵−15t⁴+10t³.

    Returns:
        ``[H, W] float32`` within [−1, 1]; zero on the lattice points.
    """
    angles = rng.uniform(0, 2 * np.pi, (cells[0] + 1, cells[1] + 1))
    gradients = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    rows = np.arange(size[0]) * cells[0] / size[0]
    columns = np.arange(size[1]) * cells[1] / size[1]
    r0, c0 = rows.astype(int), columns.astype(int)
    fr, fc = np.meshgrid(rows - r0, columns - c0, indexing="ij")

    def corner(dr: int, dc: int) -> NDArray[np.float64]:
        gradient = gradients[np.ix_(r0 + dr, c0 + dc)]
        return np.asarray(gradient[..., 0] * (fr - dr) + gradient[..., 1] * (fc - dc))

    fade_r, fade_c = (t**3 * (t * (t * 6 - 15) + 10) for t in (fr, fc))
    top = corner(0, 0) + fade_c * (corner(0, 1) - corner(0, 0))
    bottom = corner(1, 0) + fade_c * (corner(1, 1) - corner(1, 0))
    return np.asarray(np.sqrt(2) * (top + fade_r * (bottom - top)), np.float32)


def rotate(image: NDArray[Any], degrees: float) -> NDArray[Any]:
    """Rotate about the centre, bilinear, same size; what comes in from outside is zero."""
    height, width = image.shape[:2]
    matrix = cv2().getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return np.asarray(cv2().warpAffine(image, matrix, (width, height), flags=cv2().INTER_LINEAR))


def anomaly_noise(rng: Rng, size: tuple[int, int], largest: int = 5) -> Floats:
    """Draw the noise whose peaks are an anomaly: Perlin noise of 2^0 to 2^largest cells an axis, rotated."""
    cells = (2 ** int(rng.integers(0, largest + 1)), 2 ** int(rng.integers(0, largest + 1)))
    noise = perlin_noise(rng, size, cells)
    return np.asarray(rotate(noise, rng.uniform(-90, 90)), np.float32)


def perlin_mask(rng: Rng, size: tuple[int, int], threshold: float = 0.5, largest: int = 5) -> Mask:
    """Draw the shape of an anomaly: noise above a threshold. About one mask in twenty is empty."""
    return np.asarray(anomaly_noise(rng, size, largest) > threshold)


# The ten texture augmenters, after imgaug's definitions. Colour order does not matter: textures are arbitrary.


def _gamma(rng: Rng, image: Frame) -> Frame:
    ramp = np.arange(256, dtype=np.float64)[:, None] / 255
    table = (255 * ramp ** rng.uniform(0.5, 2.0, 3)).astype(np.uint8)
    return np.stack([table[image[:, :, channel], channel] for channel in range(3)], axis=2)


def _brightness(rng: Rng, image: Frame) -> Frame:
    lib = cv2()
    spaces = [("YCrCb", 0), ("HSV", 2), ("HLS", 1), ("Lab", 0), ("Luv", 0), ("YUV", 0)]
    space, channel = spaces[int(rng.integers(len(spaces)))]
    converted = lib.cvtColor(image, getattr(lib, f"COLOR_RGB2{space}"))
    values = converted[:, :, channel].astype(np.float32)
    factor, shift = rng.uniform(0.8, 1.2), rng.integers(-30, 31)
    values = values * factor + shift if rng.random() < 0.5 else (values + shift) * factor
    converted[:, :, channel] = np.clip(values, 0, 255).astype(np.uint8)
    return np.asarray(lib.cvtColor(converted, getattr(lib, f"COLOR_{space}2RGB")))


def _sharpness(rng: Rng, image: Frame) -> Frame:
    return np.asarray(ImageEnhance.Sharpness(Image.fromarray(image)).enhance(rng.uniform(0, 2)))


def _hue_and_saturation(rng: Rng, image: Frame) -> Frame:
    lib = cv2()
    hsv = lib.cvtColor(image, lib.COLOR_RGB2HSV).astype(np.int32)
    hue, saturation = rng.integers(-50, 51, 2)
    hsv[:, :, 0] = (hsv[:, :, 0] + round(hue * 180 / 255)) % 180
    hsv[:, :, 1] = np.clip(hsv[:, :, 1] + saturation, 0, 255)
    return np.asarray(lib.cvtColor(hsv.astype(np.uint8), lib.COLOR_HSV2RGB))


def _solarize(rng: Rng, image: Frame) -> Frame:
    if rng.random() < 0.5:
        return image
    return np.asarray(ImageOps.solarize(Image.fromarray(image), int(rng.integers(32, 129))))


def _posterize(rng: Rng, image: Frame) -> Frame:
    return np.asarray(ImageOps.posterize(Image.fromarray(image), int(rng.integers(1, 9))))


def _invert(_: Rng, image: Frame) -> Frame:
    return 255 - image


def _autocontrast(rng: Rng, image: Frame) -> Frame:
    return np.asarray(ImageOps.autocontrast(Image.fromarray(image), cutoff=int(rng.integers(0, 21))))


def _equalize(_: Rng, image: Frame) -> Frame:
    return np.asarray(ImageOps.equalize(Image.fromarray(image)))


def _turn(rng: Rng, image: Frame) -> Frame:
    return np.asarray(rotate(image, rng.uniform(-45, 45)), np.uint8)


AUGMENTERS: tuple[Callable[[Rng, Frame], Frame], ...] = (
    _gamma,
    _brightness,
    _sharpness,
    _hue_and_saturation,
    _solarize,
    _posterize,
    _invert,
    _autocontrast,
    _equalize,
    _turn,
)


def augment_texture(rng: Rng, texture: Frame) -> Frame:
    """Apply three different augmenters out of ten, in the drawn order, to ``[H, W, 3] uint8``."""
    for index in rng.choice(len(AUGMENTERS), 3, replace=False):
        texture = AUGMENTERS[index](rng, np.ascontiguousarray(texture))
    return texture


def procedural_texture(rng: Rng, size: tuple[int, int]) -> Frame:
    """Make a texture without any picture: layered noise, stripes or a flat tone between two random colours."""
    kind = rng.integers(3)
    if kind == 0:
        field = sum(perlin_noise(rng, size, (2**k, 2**k)) / 2**i for i, k in enumerate(rng.integers(1, 7, 3)))
    elif kind == 1:
        rows, columns = np.meshgrid(*(np.linspace(0, 1, side) for side in size), indexing="ij")
        turn, cycles = rng.uniform(0, np.pi), rng.uniform(4, 40)
        field = np.sin(2 * np.pi * cycles * (rows * np.sin(turn) + columns * np.cos(turn)))
        field = field + 0.5 * perlin_noise(rng, size, (4, 4))
    else:
        field = rng.normal(0, rng.uniform(0.02, 0.3), size) + 0.2 * perlin_noise(rng, size, (2, 2))
    blend = np.clip(np.asarray(field) * 0.5 + 0.5, 0, 1)[:, :, None]
    dark, light = rng.uniform(0, 255, (2, 3))
    return np.asarray(dark + (light - dark) * blend).astype(np.uint8)


def shuffled_patches(rng: Rng, frame: Frame, grid: int = 8) -> Frame:
    """Cut a frame into grid × grid cells and shuffle them (sides are cut to a multiple and the rest kept)."""
    rows, columns = frame.shape[0] // grid, frame.shape[1] // grid
    cells = frame[: rows * grid, : columns * grid].reshape(grid, rows, grid, columns, 3).swapaxes(1, 2)
    shuffled = rng.permutation(cells.reshape(grid * grid, rows, columns, 3))
    out = frame.copy()
    out[: rows * grid, : columns * grid] = (
        shuffled.reshape(grid, grid, rows, columns, 3).swapaxes(1, 2).reshape(rows * grid, columns * grid, 3)
    )
    return out


def foreign_picture(rng: Rng, size: tuple[int, int], textures: NDArray[np.uint8]) -> Frame:
    """Draw one of the pictures ``[T, H, W, 3]``, or a procedural texture where there are none."""
    return textures[rng.integers(len(textures))] if len(textures) else procedural_texture(rng, size)


def draw_texture(rng: Rng, frame: Frame, textures: NDArray[np.uint8]) -> Frame:
    """Draw what fills an anomaly, augmented.

    With pictures in `textures` ``[T, H, W, 3]`` it is one of them, as in the paper. Without any, it is a procedural
    texture or the frame's own shuffled patches, half and half.
    """
    if len(textures) or rng.random() < 0.5:
        texture = foreign_picture(rng, (frame.shape[0], frame.shape[1]), textures)
    else:
        texture = shuffled_patches(rng, frame)
    return augment_texture(rng, texture)


def blend(frame: Floats, texture: Frame, mask: Mask, opacity: float) -> Floats:
    """Blend a texture into a frame inside a mask (DRAEM, equation 3).

    Args:
        frame: ``[H, W, 3] float32`` in [0, 1].
        texture: ``[H, W, 3] uint8``.
        mask: ``[H, W] bool``.
        opacity: of the texture, 0 to 1.

    Returns:
        ``[H, W, 3] float32``; equal to `frame` outside the mask.
    """
    mixed = (1 - opacity) * frame + opacity * (texture.astype(np.float32) / 255)
    return np.where(mask[:, :, None], mixed, frame).astype(np.float32)


MOST_DRAWS = 12
"""Tries to get an anomaly into the region where it is wanted."""
FEWEST_PIXELS = 5
"""An anomaly that covers less is drawn again."""


def make_anomaly(
    rng: Rng, frame: Frame, textures: NDArray[np.uint8], lowest_opacity: float = 0.2, region: Mask | None = None
) -> tuple[Floats, Mask]:
    """Put one anomaly on a good frame, inside `region` ``[H, W]`` where one is given.

    Returns:
        The frame with it, ``[H, W, 3] float32`` in [0, 1], and its mask ``[H, W] bool``: empty where no shape met
        the region.
    """
    mask = np.zeros(frame.shape[:2], np.bool_)
    for _ in range(MOST_DRAWS):
        drawn = perlin_mask(rng, (frame.shape[0], frame.shape[1]))
        mask = drawn if region is None else drawn & region
        if mask.sum() >= FEWEST_PIXELS:
            break
    texture = draw_texture(rng, frame, textures)
    image = frame.astype(np.float32) / np.float32(255)
    return blend(image, texture, mask, rng.uniform(lowest_opacity, 1.0)), mask
