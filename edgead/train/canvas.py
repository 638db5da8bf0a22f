"""Pictures on a run's canvas: its geometry, what a defect keeps of its pixels, and the tiles that training sees."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgead.console import Console
from edgead.datasets.frames import allocate, cut_tiles
from edgead.errors import DataError
from edgead.geometry import Geometry, GeometryRequest, Size
from edgead.geometry.tiling import Tiling
from edgead.images import Frame, PixelFormat, read_frame
from edgead.train.foreground import FOREGROUNDS, foreground_mask
from edgead.train.method import Method, TrainingData
from edgead.train.reference import fix_alignment

MOST_SHRINK = 4.0
"""Pictures that shrink by more are warned of: a defect of four pixels is left with one."""
MOST_GROWTH = 8.0
"""Pictures that grow by more are warned of: mostly a crop in shares where pixels were meant."""
LEAST_PART = 0.01
"""Share of a tile that shows the part; with less of it, anomalies go everywhere on the tile."""


def fix_geometry(
    requested: GeometryRequest, paths: Sequence[Path], size: Size, pixels: PixelFormat, console: Console
) -> tuple[Geometry, Size]:
    """Return the geometry for a run's pictures, and (height, width) of the first one that can be read.

    Args:
        requested: what the user asks for. A size of tiles in pixels is that of the first picture.
        paths: of the pictures.
        size: (height, width) of the network's input.
        pixels: how pictures are read.
        console: shows progress where all pictures are read.

    Raises:
        ConfigError: see `GeometryRequest.resolve` and `edgead.train.reference.fix_alignment`.
        DataError: no picture can be read; or the crop is in pixels, and the pictures' sizes differ.
    """
    colour, first, reason = PixelFormat(pixels.bit_depth), None, ""
    for path in console.track("reading sizes")(paths) if requested.crops_pixels else paths:
        try:
            height, width = read_frame(path, colour).shape[:2]
        except DataError as error:
            reason = reason or str(error)
            continue
        if first and first != (height, width):
            raise DataError(
                f"{path} has {width}×{height} pixels, another image has {first[1]}×{first[0]}: a crop in pixels "
                "would show another part of it.\nGive --crop as shares of the image, for instance 0.1,0.1,0.8,0.8."
            )
        if first is None:
            first = (height, width)
            requested.resolve(first, size)  # an error is reported before all pictures are read
        if not requested.crops_pixels:
            break
    if first is None:
        raise DataError(f"None of the {len(paths)} images can be read; the first error:\n{reason}")
    return fix_alignment(requested, requested.resolve(first, size), paths, colour, console), first


def describe_shrink(geometry: Geometry, picture: Size, size: Size, scale: float | None) -> list[str]:
    """Say in a few lines what is left of a defect's pixels: a warning beyond `MOST_SHRINK` and `MOST_GROWTH`.

    Args:
        geometry: of the run.
        picture: (height, width) of a picture in pixels.
        size: (height, width) of the network's input.
        scale: pixels of the pictures for a millimetre; None if unknown.
    """
    place = geometry.place(picture, geometry.canvas(size))
    shrink = place.shrink
    lines = []
    height, width = place.window_size
    kept = "" if scale is None else f": of a defect of 1 mm ({scale:.3g} pixels) {scale / shrink:.2g} pixels are left"
    if shrink > MOST_SHRINK:
        rows, columns = (max(1, math.ceil(length / side / 2)) for length, side in zip((height, width), size))
        lines.append(
            f"Warning: images of {width}×{height} pixels shrink by {shrink:.1f}{kept or ': small defects vanish'}.\n"
            f"Keep more of them with tiles, for instance --tiles {rows}x{columns}, a --crop, or a larger input "
            "(--set size=…)." + ("" if scale else " --scale tells what is left of a defect of 1 mm.")
        )
    elif shrink < 1 / MOST_GROWTH:
        lines.append(
            f"Warning: the network sees only {width}×{height} pixels of the images, enlarged {1 / shrink:.0f} times: "
            "there is less detail than it can see." + (" Is --crop right?" if geometry.crop else "")
        )
    elif scale is not None:
        lines.append(f"Images shrink by {shrink:.2g}{kept}" if shrink > 1 else f"Images do not shrink{kept}")
    return lines


def describe_tiles(geometry: Geometry, size: Size, pictures: int, channels: int) -> str:
    """Say what tiles make of the pictures, and what they take in memory."""
    tiling, number = Tiling(geometry, size), pictures * geometry.count
    (height, width), (rows, columns) = tiling.canvas, geometry.tiles
    taken = number * math.prod(size) * channels / 1e9
    return (
        f"Tiles: {rows}×{columns} of {size[1]}×{size[0]} from a canvas of {width}×{height} pixels; {number:,} tiles of "
        f"{pictures} images take {taken:.2g} GB"
    )


def tile_masks(
    canvases: NDArray[np.uint8], masks: NDArray[np.bool_] | None, how: str, tiling: Tiling
) -> NDArray[np.bool_] | None:
    """Return where the part is on tiles ``[N · count, h, w] bool``; None where methods are to look for themselves.

    On a tile alone the part's brightness says nothing, so it is looked for on the whole canvas.

    Args:
        canvases: ``[N, H, W, C] uint8``.
        masks: ``[N, H, W] bool``, the user's; None where there are none.
        how: the configuration's foreground.
        tiling: of the canvases.
    """
    if tiling.count == 1:
        return masks
    if masks is None:
        if how not in FOREGROUNDS or how == "all":
            return None
        masks = allocate(canvases.shape[:3], np.bool_)
        for number, canvas in enumerate(canvases):
            masks[number] = foreground_mask(_colours(canvas), how)
    tiles = cut_tiles(masks, tiling)
    for tile in tiles:
        if tile.mean() < LEAST_PART:
            tile[:] = True
    return tiles


def draw_on_tiles(
    method: Method, data: TrainingData, tiling: Tiling, number: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw synthetic anomalies on a tile each.

    Args:
        method: that draws them.
        data: its good images are whole canvases, its masks those of their tiles, from `tile_masks`.
        tiling: of the canvases.
        number: of anomalies.
        rng: random numbers.

    Returns:
        Canvases ``[number, H, W, C]``, of which one tile is changed, and these tiles ``[number, h, w, C]``, uint8.
    """
    canvases = allocate((number, *data.normals.shape[1:]), np.uint8)
    tiles = np.empty((number, *tiling.size, data.normals.shape[3]), np.uint8)
    for index in range(number):
        which, place = int(rng.integers(len(data.normals))), int(rng.integers(tiling.count))
        masks, at = data.foreground_masks, which * tiling.count + place
        alone = dataclasses.replace(
            data,
            normals=np.ascontiguousarray(tiling.tile(data.normals[which], place))[None],
            foreground_masks=None if masks is None else masks[at : at + 1],
        )
        tiles[index] = method.example(alone, rng)["frame"]
        canvases[index] = data.normals[which]
        tiling.tile(canvases[index], place)[:] = tiles[index]
    return canvases, tiles


def busiest_tile(canvas: Frame, tiling: Tiling) -> Frame:
    """Return the tile whose values vary most: that of a part rather than of its background."""
    tiles = [tiling.tile(canvas, number) for number in range(tiling.count)]
    return np.ascontiguousarray(max(tiles, key=lambda tile: float(tile.var())))


def _colours(canvas: Frame) -> Frame:
    return np.ascontiguousarray(canvas[:, :, :3])
