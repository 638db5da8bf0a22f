"""Where a part lies on a frame, and the reference picture that it is looked for by.

Points are (x, y) in pixels of a frame, counted from its upper left corner: the first pixel's centre is at (0.5, 0.5).
A frame turned and shifted so that its part lies as on the reference picture is called *aligned*.
"""

from __future__ import annotations

import base64
import binascii
import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from edgead.schema import SchemaError, Share, Within

SIDE = 256
"""Longest side of a stored reference picture in pixels."""
LEAST_SIDE = 16
"""Shortest side of it: a narrower strip shows too little to tell a place."""
SAME_ASPECT = 0.02
"""Relative difference up to which two aspect ratios count as equal."""

Matrix = NDArray[np.float64]
Pixels = Annotated[int, Within(1, 1 << 16)]
Stored = Annotated[int, Within(LEAST_SIDE, SIDE)]
Degrees = Annotated[float, Within(0, 180)]


@dataclass(frozen=True)
class Pose:
    """Where the part of one frame lies, compared with the reference picture.

    Attributes:
        angle: degrees by which it is turned about the centre of the window, clockwise.
        x, y: by how much that centre is shifted to the right and down, as shares of the frame's width and height.
    """

    angle: float
    x: float
    y: float

    def matrix(self, size: tuple[int, int], centre: tuple[float, float]) -> Matrix:
        """Return the ``(3, 3)`` matrix from points of the aligned frame to points of the frame.

        Args:
            size: (height, width) of the frame, or of a smaller picture of it.
            centre: x and y of the window's centre, as shares of the frame.
        """
        across, down = centre[0] * size[1], centre[1] * size[0]
        turn = math.radians(self.angle)
        turned = np.array([[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1]])
        matrix: Matrix = (
            shift_by(across + self.x * size[1], down + self.y * size[0]) @ turned @ shift_by(-across, -down)
        )
        return matrix

    def describe(self, size: tuple[int, int]) -> str:
        """Describe it in half a line, for a frame of (height, width)."""
        return f"shifted by {self.x * size[1]:.0f}, {self.y * size[0]:.0f} pixels and turned by {self.angle:.1f}°"


@dataclass(frozen=True)
class Alignment:
    """A reference picture, and how far from it parts may lie. It is fixed in training, a part of the geometry.

    Attributes:
        picture: name of the reference picture's file.
        frame: (height, width) of that picture in pixels.
        shape: (height, width) of what is stored of it: its window, reduced to `SIDE` at most.
        pixels: base64 of its grey values, one byte each, row by row.
        max_shift: farthest distance of the window's centre from where it is on the reference picture, as a share of
            the frame's longer side.
        max_rotation: largest angle in degrees; 0 where parts are not turned, 180 where they lie at any angle.
        least: correlation with the reference picture, up to 1, below which a part is not found.
        found, checked: on how many of so many good pictures the part was found in training.
    """

    picture: str
    frame: tuple[Pixels, Pixels]
    shape: tuple[Stored, Stored]
    pixels: str
    max_shift: Share
    max_rotation: Degrees
    least: Share
    found: Annotated[int, Within(0)]
    checked: Annotated[int, Within(0)]

    def check(self) -> None:
        """Refuse pixels that are not those of a picture of this shape.

        Raises:
            SchemaError: with the field.
        """
        wanted = math.prod(self.shape)
        try:
            held = len(base64.b64decode(self.pixels, validate=True)) if len(self.pixels) <= 2 * SIDE * SIDE else -1
        except (binascii.Error, ValueError):
            held = -1
        if held != wanted:
            raise SchemaError(f"align.pixels must be base64 of {wanted} bytes", "align.pixels")

    @property
    def grey(self) -> NDArray[np.uint8]:
        """``(h, w) uint8``, the stored reference picture."""
        return np.frombuffer(base64.b64decode(self.pixels), np.uint8).reshape(self.shape)

    def fits(self, size: tuple[int, int]) -> bool:
        """Tell whether a frame of (height, width) has the aspect ratio of the reference picture."""
        return abs(size[1] * self.frame[0] / (size[0] * self.frame[1]) - 1) <= SAME_ASPECT

    def describe(self) -> str:
        """Describe it in half a line."""
        return (
            f"aligned to {self.picture} (up to {self.max_shift:.3g} of the longer side and {self.max_rotation:.3g}°; "
            f"found on {self.found} of {self.checked} good images)"
        )


def shift_by(x: float, y: float) -> Matrix:
    """Return the matrix that shifts points."""
    return np.array([[1.0, 0, x], [0, 1.0, y], [0, 0, 1.0]])


def scale_by(x: float, y: float) -> Matrix:
    """Return the matrix that scales points."""
    return np.diag([x, y, 1.0])


def points_of(left: float, top: float, width: float, height: float, size: tuple[int, int]) -> Matrix:
    """Return the matrix from a picture's pixels, as OpenCV counts them, to the points of the box that it shows.

    Args:
        left, top, width, height: of the box.
        size: (height, width) of the picture in pixels.
    """
    return shift_by(left, top) @ scale_by(width / size[1], height / size[0]) @ shift_by(0.5, 0.5)
