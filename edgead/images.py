"""Image input: decode, convert, resize to a model. The one preprocessing of training, export and runtime.

A *frame* is ``(H, W, 3) uint8 BGR``, as OpenCV gives it, or with depth ``(H, W, 4)``, see `edgead.depth`. Everything
that else is converted to a frame here, or refused. `fit_frame` is the only function that changes a frame's size on
its way into a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.depth import (
    FARTHEST,
    NEAREST,
    Depth,
    DepthRange,
    as_depth,
    check_range,
    encode,
    find_depth_file,
)
from edgead.errors import DataError, require
from edgead.formats import identify
from edgead.formats.decoding import decode_image
from edgead.formats.reading import read_file
from edgead.geometry import STRETCH, Geometry
from edgead.geometry.alignment import locate
from edgead.geometry.resampling import halve
from edgead.geometry.turning import align_window

Frame = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class PixelFormat:
    """How pixels are read to make a frame.

    Attributes:
        bit_depth: significant bits of 16-bit images, 9 to 16 (12 for a camera that stores 12 bits in 16).
        depth_range: frames have depth, coded over this range; None for colour alone.

    Raises:
        DataError: a `bit_depth` that is not a whole number from 9 to 16.
    """

    bit_depth: int = 16
    depth_range: DepthRange | None = None

    def __post_init__(self) -> None:
        if self.bit_depth not in range(9, 17):  # more would darken the frame, fewer would saturate it
            raise DataError(f"bit_depth must be a whole number from 9 to 16, not {self.bit_depth!r}.")

    @property
    def channels(self) -> int:
        """Channels of a frame: 3, or 4 with depth."""
        return 3 if self.depth_range is None else 4


COLOUR = PixelFormat()
"""Images without depth; those of 16 bits use all of them."""
WRITTEN = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
"""Endings of pictures that can be written."""


def cv2() -> Any:
    """Return OpenCV, imported at first use."""
    return require("cv2", "cpu")


def is_image(path: Path) -> bool:
    """Tell by its name whether a file is an image, also of a format that is refused by name (hidden files are not)."""
    return path.suffix.lower() in identify.IMAGE_SUFFIXES and not path.name.startswith(".")


def is_image_file(path: Path) -> bool:
    """Tell by its name or by its content whether a file is an image.

    Raises:
        DataError: it cannot be read.
    """
    if is_image(path):
        return True
    try:
        with path.open("rb") as stream:
            return identify.is_image(stream.read(16))
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from error


def _decode(path: Path, flags: int | None = None) -> NDArray[Any]:
    try:
        identify.refuse_by_suffix(path.suffix)
        return decode_image(read_file(path), flags)
    except DataError as error:
        raise DataError(f"Cannot read {path}: {error}.") from error


def read_frame(path: str | Path, pixels: PixelFormat = COLOUR) -> Frame:
    """Read an image file as a frame.

    PNG, JPEG, TIFF, WebP, BMP and binary PNM; colour, grey (becomes three equal channels) or with an alpha channel
    (dropped); 8 or 16 bits a channel. An EXIF orientation is applied. Only what is whole is decoded, see
    docs/sources.md.

    Args:
        path: the file. The depth of ``…/rgb/NAME.png`` is read from ``…/xyz/NAME.tiff``.
        pixels: the file's, and whether depth is wanted.

    Returns:
        ``(H, W, 3) uint8 BGR``, or ``(H, W, 4)`` with depth, owned by the caller.

    Raises:
        DataError: the file cannot be read, is not whole, holds several pictures, is too large, or holds pixels that
            are neither 8 nor 16 bit; or the same of its depth.
    """
    path, depth_file = Path(path), None
    try:
        frame = to_frame(_decode(path), PixelFormat(pixels.bit_depth))
        if pixels.depth_range is None:
            return frame
        depth_file = find_depth_file(path)
        return with_depth(frame, read_depth(depth_file), pixels.depth_range)
    except DataError as error:
        file = str(depth_file or path)
        raise DataError(str(error) if file in str(error) else f"{file}: {error}") from None


def read_image(path: Path) -> NDArray[Any]:
    """Read an image file without conversion: all channels (a JPEG is always BGR).

    Raises:
        DataError: the file cannot be read.
    """
    return _decode(path, cv2().IMREAD_UNCHANGED)


def read_depth(path: Path) -> Depth:
    """Read a depth image: one channel, or points x, y, z as in MVTec 3D-AD, of which z is taken.

    Returns:
        ``(H, W) float32`` in the file's unit, 0 where nothing was measured.

    Raises:
        DataError: the file cannot be read, or is none.
    """
    picture = read_image(path)
    return as_depth(picture[:, :, ::-1] if picture.ndim == 3 else picture)  # OpenCV turns the channels round


def with_depth(frame: NDArray[Any], depth: NDArray[Any], depth_range: DepthRange | None, bit_depth: int = 16) -> Frame:
    """Put a colour image and its depth image together to the frame that a model with depth takes.

    Args:
        frame: ``(H, W, 3) uint8 BGR``, or anything else that `to_frame` takes.
        depth: ``(H, W)`` distances of any real type, or ``(H, W, 3)`` points x, y, z, seen by the same camera, in the
            unit of the training's depth. What is 0, negative, not finite or masked was not measured.
        depth_range: the model's, `edgead.Inspector.depth_range`.
        bit_depth: significant bits of a uint16 `frame`.

    Returns:
        ``(H, W, 4) uint8``: B, G, R and the depth's code, see `edgead.depth`. A new array.

    Raises:
        DataError: one of them is no image, their sizes differ, nothing was measured, or nothing inside the range; a
            `bit_depth` outside 9 to 16; `depth_range` is no range.
    """
    if depth_range is None:
        raise DataError("The model takes no depth (its depth range is None). Pass the colour image only.")
    check_range(depth_range)
    frame = to_frame(frame, PixelFormat(bit_depth))
    distances = as_depth(depth)
    if distances.shape != frame.shape[:2]:
        (h, w), (height, width) = distances.shape, frame.shape[:2]
        raise DataError(f"The depth image is {w}×{h} pixels, its colour image {width}×{height}.")
    merged: Frame = cv2().merge([*cv2().split(frame), encode(distances, depth_range)])
    return merged


def to_frame(image: NDArray[Any], pixels: PixelFormat = COLOUR) -> Frame:
    """Convert an array to a frame, or refuse it.

    Args:
        image: ``(H, W)`` or ``(H, W, 1|3|4)``, uint8 or uint16, grey, BGR or BGRA. A frame is returned as it is,
            without a copy. Where depth is wanted: what `with_depth` returns, and nothing else.
        pixels: the image's.

    Returns:
        ``(H, W, 3) uint8 BGR``, or ``(H, W, 4)`` with depth.

    Raises:
        DataError: another type or shape. Floating-point images are refused because their range is a guess.
    """
    if not isinstance(image, np.ndarray):
        raise DataError(
            f"A frame must be a NumPy array, not {type(image).__name__}. "
            "A file is read with  edgead.images.read_frame(PATH)"
        )
    if np.ma.is_masked(image):
        raise DataError("Some pixels of this frame are masked (numpy.ma). Fill them if they may be judged.")
    image = np.asarray(image)  # a matrix always has two sides, and would be turned for ever
    if pixels.depth_range is not None:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 4 or 0 in image.shape:
            raise DataError(
                f"This model needs depth: a frame must be (H, W, 4) uint8, not {image.shape} {image.dtype}.\n"
                "Make it with  edgead.with_depth(frame, depth, inspector.depth_range)"
            )
        if not image[:, :, 3].any():
            raise DataError("The frame holds no depth: the code of every pixel is 0.")
        return image
    if image.dtype.newbyteorder("=") == np.uint16:  # in either byte order
        image = np.minimum(image >> (pixels.bit_depth - 8), 255).astype(np.uint8)
    if image.dtype != np.uint8:
        raise DataError(f"A frame must hold uint8 or uint16 values, not {image.dtype}. Convert it to 0..255.")
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or 0 in image.shape:
        raise DataError(f"A frame must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not {image.shape}.")
    if image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    return image if image.shape[2] == 3 else image[:, :, :3]


def fit_frame(frame: Frame, size: tuple[int, int], out: Frame | None = None, geometry: Geometry = STRETCH) -> Frame:
    """Fit a frame to a model's canvas without aliasing. Without a geometry it is stretched, as in the papers.

    Shrinking averages areas. Halving both sides is done with OpenCV's vectorised 2×2 average as long as both are
    even and stay at or above the target; that reads most pixels of a large frame and is several times faster than
    one area average over arbitrary ratios, with the same geometry. Depth is averaged over what was measured alone.

    Args:
        frame: ``(H, W, 3 or 4) uint8``.
        size: (height, width) of the canvas in pixels; without tiles the model's input size.
        out: ``(height, width, 3 or 4) uint8``, written and returned, so that a stream allocates nothing here.
        geometry: the model's: what it is aligned to, crop, and stretch or letterbox. Its tiles are cut by
            `edgead.geometry.tiling`. To know where the part lies, pass the geometry that
            `edgead.geometry.alignment.locate` returns.

    Returns:
        ``(height, width, 3 or 4) uint8``, C-contiguous. Without `out` it is `frame` itself when that has the size
        already.

    Raises:
        MisplacedError: the geometry aligns frames, and the part is not found where it may be.
    """
    lib = cv2()
    geometry = locate(frame, geometry)
    place = geometry.place((frame.shape[0], frame.shape[1]), size)
    if geometry.pose is not None:
        frame = align_window(frame, geometry, place)
    elif geometry.crop is not None:
        frame = frame[place.window]  # OpenCV reads the rows where they are
    if place.inner_size != size:
        (top, left), (height, width) = (side.start for side in place.inner), place.inner_size
        around = (top, size[0] - top - height, left, size[1] - left - width)
        padded: Frame = lib.copyMakeBorder(fit_frame(frame, (height, width)), *around, lib.BORDER_REPLICATE, dst=out)
        return padded
    if frame.shape[2] == 4 and frame.shape[:2] != size:
        colour, depth = fit_frame(lib.cvtColor(frame, lib.COLOR_BGRA2BGR), size), fit_depth(frame[:, :, 3], size)
        merged: Frame = lib.merge([*lib.split(colour), depth], dst=out)
        return merged
    frame = _resize(halve(frame, size), size, out)
    if out is None:
        return np.ascontiguousarray(frame)
    if frame is not out:
        np.copyto(out, frame)
    return out


def fit_depth(codes: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize codes ``(H, W)`` to (height, width): the mean of those under a pixel that are measurements.

    A pixel is missing where all under it are: no distance is made of a code that means "not measured".
    """
    share = _resize((codes > 0).astype(np.float32), size)
    total = _resize(codes.astype(np.float32), size)
    mean = np.rint(total / np.where(share > 0, share, 1))
    return np.where(share > 0, np.clip(mean, NEAREST, FARTHEST), 0).astype(np.uint8)


def _resize(image: NDArray[Any], size: tuple[int, int], out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Average areas along an axis that shrinks, interpolate along one that grows; `out` is used where it can be."""
    lib, (height, width), (h, w) = cv2(), size, image.shape[:2]
    # INTER_AREA averages areas only when no axis grows, so an axis that grows has its own step.
    shrunk = (min(w, width), min(h, height))
    if shrunk != (w, h):
        target = out if shrunk == (width, height) else None
        image = lib.resize(image, shrunk, dst=target, interpolation=lib.INTER_AREA)
    if shrunk != (width, height):
        image = lib.resize(image, (width, height), dst=out, interpolation=lib.INTER_LINEAR)
    return image


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Encode ``(H, W)``, ``(H, W, 3) BGR`` or ``(H, W, 4)`` uint8 as PNG."""
    return encode_image(image, ".png")


def encode_image(image: NDArray[np.uint8], suffix: str) -> bytes:
    """Encode ``(H, W)``, ``(H, W, 3) BGR`` or, as PNG, ``(H, W, 4)`` uint8.

    Args:
        image: the picture.
        suffix: one of `WRITTEN`, in any case.

    Raises:
        DataError: another suffix, or OpenCV refuses the picture.
    """
    if suffix.lower() not in WRITTEN:
        raise DataError(f"Pictures are written as {', '.join(WRITTEN)}, not as '{suffix}'.")
    done, data = cv2().imencode(suffix.lower(), image)
    if not done:
        raise DataError(f"OpenCV could not encode a {suffix} of {image.shape} {image.dtype}.")
    return bytes(data)
