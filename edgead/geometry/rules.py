"""How a frame is brought to a model: which part of it is seen, whether its aspect is kept, how it is cut to tiles.

A frame may be turned and shifted first, so that its part lies as on a reference picture
(`edgead.geometry.alignment`). Then the frame's *window* (all of it, or a crop) is fitted to the *canvas*, which the
graph sees in tiles of its own size. Without tiles the canvas has the graph's size. `edgead.images.fit_frame` applies
it, `edgead.geometry.tiling` cuts and stitches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from edgead.errors import ConfigError, unknown
from edgead.geometry.pose import Alignment, Pose
from edgead.schema import OneOf, SchemaError, Share, Within, left_out, transient

FITS = ("stretch", "letterbox")
"""``stretch``: the window fills the canvas. ``letterbox``: its aspect is kept, and its edge pixels fill the rest."""
AUTO = "auto"
"""In place of a reference picture: one of the good pictures."""
OVERLAP = 0.125
"""Of neighbouring tiles, as a share of a tile, where none is given."""
MOST_OVERLAP = 0.5
MOST_PIXELS = 1 << 26
"""Of a canvas: 8192 × 8192. A frame and its map take 7 bytes a pixel (8 with depth), 450 MiB at most."""
MAX_SHIFT, MOST_SHIFT, MAX_ROTATION = 0.2, 0.5, 30.0
"""Default and largest shift of a part, as a share of the frame's longer side; default rotation in degrees."""
LOW, HIGH = 1, 64
"""Rows or columns of tiles."""

Size = tuple[int, int]
Box = tuple[slice, slice]
Sides = Annotated[int, Within(LOW, HIGH)]


@dataclass(frozen=True)
class Placement:
    """Where a frame lies on a canvas: `window`, rows and columns of the frame, is shown by `inner`, of the canvas."""

    window: Box
    inner: Box

    @property
    def window_size(self) -> Size:
        """(height, width) of the window in pixels of the frame."""
        return _size(self.window)

    @property
    def inner_size(self) -> Size:
        """(height, width) of what shows it on the canvas."""
        return _size(self.inner)

    @property
    def shrink(self) -> float:
        """By how much pictures shrink, along the side that shrinks more; below 1 where they grow."""
        return max(seen / shown for seen, shown in zip(self.window_size, self.inner_size))


@dataclass(frozen=True)
class Geometry:
    """How frames are brought to a model. It is fixed in training and stored in the run and in its bundles.

    Attributes:
        crop: x, y, width, height of the window as shares of the frame; None for the whole frame.
        fit: one of `FITS`.
        tiles: rows and columns of tiles.
        overlap: of neighbouring tiles, as a share of a tile.
        align: what frames are aligned to before they are cropped; None where they stay as they are.
        pose: where the part lies on the one frame that this geometry is for, see `edgead.geometry.alignment.locate`;
            None for the geometry of a run or bundle. It is not stored, and does not count where geometries are
            compared.
    """

    crop: tuple[Share, Share, Share, Share] | None = left_out()
    fit: Annotated[str, OneOf(FITS)] = "stretch"
    tiles: tuple[Sides, Sides] = (1, 1)
    overlap: Annotated[float, Within(0, MOST_OVERLAP)] = 0.0
    align: Alignment | None = left_out()
    pose: Pose | None = transient()

    def check(self, size: Size) -> None:
        """Refuse an empty or protruding crop, and a canvas that is too large.

        Args:
            size: (height, width) of the graph in pixels.

        Raises:
            SchemaError: with the field.
        """
        if self.crop is not None:
            x, y, width, height = self.crop
            if not (width > 0 and height > 0 and x + width <= 1 + 1e-9 and y + height <= 1 + 1e-9):
                raise SchemaError(f"crop is {list(self.crop)}; it must lie inside the frame", "crop")
        if self.align is not None:
            self.align.check()
        canvas = self.canvas(size)
        if math.prod(canvas) > MOST_PIXELS:
            raise SchemaError(
                f"tiles make a canvas of {canvas[1]}×{canvas[0]} pixels; it must have at most {MOST_PIXELS:,}", "tiles"
            )

    @property
    def centre(self) -> tuple[float, float]:
        """x and y of the window's centre, as shares of the frame."""
        x, y, width, height = self.crop or (0, 0, 1, 1)
        return x + width / 2, y + height / 2

    @property
    def is_whole(self) -> bool:
        """Whether the canvas shows the whole frame, stretched: its map covers the frame as it is."""
        return self.crop is None and self.fit == "stretch" and self.pose is None

    @property
    def count(self) -> int:
        """Tiles of a frame."""
        return self.tiles[0] * self.tiles[1]

    def strides(self, size: Size) -> Size:
        """Return the distances of neighbouring tiles, rows and columns, in pixels of the canvas."""
        height, width = (side - int(self.overlap * side) for side in size)
        return height, width

    def canvas(self, size: Size) -> Size:
        """Return (height, width) of the canvas for a graph's (height, width)."""
        height, width = (
            side + (number - 1) * stride for side, number, stride in zip(size, self.tiles, self.strides(size))
        )
        return height, width

    def place(self, frame: Size, canvas: Size) -> Placement:
        """Return where a frame of (height, width) lies on a canvas of (height, width)."""
        window = _window(self.crop, frame)
        if self.fit == "stretch":
            return Placement(window, (slice(0, canvas[0]), slice(0, canvas[1])))
        seen = _size(window)
        scale = min(side / length for side, length in zip(canvas, seen))
        shown = [min(side, max(1, round(length * scale))) for side, length in zip(canvas, seen)]
        top, left = ((side - length) // 2 for side, length in zip(canvas, shown))
        return Placement(window, (slice(top, top + shown[0]), slice(left, left + shown[1])))

    def region_size(self, size: Size) -> Size:
        """Return (height, width) of a region of the whole frame, which has a canvas's pixels where the crop is."""
        height, width = self.canvas(size)
        if self.crop is None:
            return height, width
        return min(1 << 14, math.ceil(height / self.crop[3])), min(1 << 14, math.ceil(width / self.crop[2]))

    def describe(self) -> str:
        """Describe it in half a line."""
        parts = [] if self.align is None else [self.align.describe()]
        if self.crop is not None:
            parts.append(f"crop {','.join(f'{share:.4g}' for share in self.crop)} of the frame")
        parts.append(self.fit)
        if self.count > 1:
            parts.append(f"{self.tiles[0]}×{self.tiles[1]} tiles that overlap by {self.overlap:.3g}")
        return ", ".join(parts)


STRETCH = Geometry()
"""The whole frame, stretched to the graph's size: what bundles without a geometry do."""


@dataclass(frozen=True)
class GeometryRequest:
    """A geometry as a user asks for it, perhaps in pixels of the pictures.

    Attributes:
        crop: x, y, width, height; shares of the picture where width and height are at most 1, else pixels.
        fit, overlap: see `Geometry`.
        align: file of the reference picture, or ``"auto"``; None where frames are not aligned.
        max_shift, max_rotation: see `edgead.geometry.pose.Alignment`.
        tiles: rows and columns, or with `tiles_in_pixels` the height and width of a tile in pixels of the pictures.
    """

    crop: tuple[float, float, float, float] | None = None
    fit: str = "stretch"
    tiles: tuple[int, int] | None = None
    tiles_in_pixels: bool = False
    overlap: float = OVERLAP
    align: str | None = None
    max_shift: float = MAX_SHIFT
    max_rotation: float = MAX_ROTATION

    @classmethod
    def parse(
        cls,
        crop: str | None,
        fit: str,
        tiles: str | None,
        overlap: float | None,
        align: str | None = None,
        max_shift: float | None = None,
        max_rotation: float | None = None,
    ) -> GeometryRequest:
        """Read what the options of `edgead train` say.

        Raises:
            ConfigError: with the option and how it is written.
        """
        if fit not in FITS:
            raise ConfigError(unknown("fit", fit, FITS))
        if overlap is not None and tiles is None:
            raise ConfigError("--overlap is a setting of --tiles; give both.")
        overlap = OVERLAP if overlap is None else overlap
        if not 0 <= overlap <= MOST_OVERLAP:
            raise ConfigError(f"--overlap is a share of a tile from 0 to {MOST_OVERLAP}, not {overlap:g}.")
        for option, given in (("--max-shift", max_shift), ("--max-rotation", max_rotation)):
            if given is not None and align is None:
                raise ConfigError(f"{option} is a setting of --align; give both.")
        shift = MAX_SHIFT if max_shift is None else max_shift
        rotation = MAX_ROTATION if max_rotation is None else max_rotation
        if not 0 < shift <= MOST_SHIFT:
            raise ConfigError(
                f"--max-shift is a share of the longer side, above 0 and up to {MOST_SHIFT}, not {shift:g}."
            )
        if not 0 <= rotation <= 180:
            raise ConfigError(f"--max-rotation is an angle from 0 to 180 degrees, not {rotation:g}.")
        number, in_pixels = _parse_tiles(tiles) if tiles is not None else (None, False)
        window = None if crop is None else _parse_crop(crop)
        return cls(window, fit, number, in_pixels, overlap, align, shift, rotation)

    @property
    def crops_pixels(self) -> bool:
        """Whether the crop is in pixels, so that all pictures must have one size."""
        return self.crop is not None and max(self.crop[2:]) > 1

    def resolve(self, frame: Size, size: Size) -> Geometry:
        """Return the geometry for pictures of (height, width) and a graph of (height, width).

        Raises:
            ConfigError: the crop protrudes, or there would be too many tiles.
        """
        crop = self.crop
        if crop is not None and self.crops_pixels:
            x, y, width, height = crop
            if x + width > frame[1] or y + height > frame[0]:
                raise ConfigError(
                    f"--crop {x:g},{y:g},{width:g},{height:g} extends beyond the images, which have "
                    f"{frame[1]}×{frame[0]} pixels."
                )
            crop = (x / frame[1], y / frame[0], width / frame[1], height / frame[0])
        tiles = self.tiles or (1, 1)
        if self.tiles is not None and self.tiles_in_pixels:
            seen = _size(_window(crop, frame))
            rows, columns = (
                _number(length, side, self.overlap, own) for length, side, own in zip(seen, self.tiles, size)
            )
            tiles = rows, columns
        if max(tiles) > HIGH:
            raise ConfigError(
                f"--tiles would make {tiles[0]}×{tiles[1]} tiles; {HIGH} rows and columns are the most.\n"
                "Make the tiles larger, or the model's input: --set size=…"
            )
        geometry = Geometry(crop, self.fit, tiles, self.overlap if max(tiles) > 1 else 0.0)
        try:
            geometry.check(size)
        except SchemaError as error:
            raise ConfigError(f"--{error}.") from None
        return geometry


def _number(length: int, side: int, overlap: float, own: int) -> int:
    """Return how many tiles of `side` pixels, which overlap by that share, a length of the picture needs."""
    stride = own - int(overlap * own)
    return max(1, math.ceil((length / side * own - own) / stride - 1e-9) + 1)


def _window(crop: tuple[float, float, float, float] | None, frame: Size) -> Box:
    if crop is None:
        return slice(0, frame[0]), slice(0, frame[1])
    x, y, width, height = crop
    return _span(y, height, frame[0]), _span(x, width, frame[1])


def _span(low: float, length: float, side: int) -> slice:
    start = min(side - 1, round(low * side))
    return slice(start, max(start + 1, min(side, round((low + length) * side))))


def _size(box: Box) -> Size:
    rows, columns = box
    return rows.stop - rows.start, columns.stop - columns.start


def _parse_crop(text: str) -> tuple[float, float, float, float]:
    usage = "--crop is X,Y,WIDTH,HEIGHT: shares of the image from 0 to 1, or whole pixels"
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"{usage}; not '{text}'.") from None
    numbers = (x, y, width, height)
    if not all(0 <= number < math.inf for number in numbers) or not min(width, height) > 0:
        raise ConfigError(f"{usage}; not '{text}'.")
    if max(width, height) <= 1:
        if x + width > 1 + 1e-9 or y + height > 1 + 1e-9:
            raise ConfigError(f"--crop {text} extends beyond the image: x + width and y + height are at most 1.")
    elif any(number != int(number) for number in numbers):
        raise ConfigError(f"{usage}; '{text}' mixes both.")
    return numbers


def _parse_tiles(text: str) -> tuple[tuple[int, int], bool]:
    number = text.lower().removesuffix("px")
    in_pixels = number != text.lower()
    try:
        sides = [int(part) for part in number.split("x")]
        if in_pixels and len(sides) == 1:
            sides *= 2
        rows, columns = sides
    except ValueError:
        rows = columns = 0
    if min(rows, columns) < 1:
        raise ConfigError(
            "--tiles is ROWSxCOLUMNS as in 3x4, or the size of a tile in pixels of the images as in 512px or "
            f"512x640px (height first); not '{text}'."
        )
    return (rows, columns), in_pixels
