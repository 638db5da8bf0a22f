"""Finds a part on a frame: how it is shifted and turned, compared with a reference picture.

A coarse search compares the reference picture with the frame at every place and at angles 10° apart (normalised
correlation, ``cv2.matchTemplate``). The best few places are refined (enhanced correlation coefficient,
``cv2.findTransformECC``), which gives a fraction of a pixel and a correlation that says how sure the place is.
Brightness and contrast do not matter. Scale is not looked for. Reasons: docs/adr/0054.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.errors import MisplacedError, require
from edgead.geometry import Geometry, Size
from edgead.geometry.pose import LEAST_SIDE, SIDE, Alignment, Matrix, Pose, points_of
from edgead.geometry.resampling import halve, warp

COARSE = 64
"""Longest side of the reference picture in the coarse search, in pixels."""
STEP = 10.0
"""Degrees between angles of the coarse search: the refinement finds a part that is turned by half of it."""
BEYOND = 1.1
"""The search goes so much farther than the largest shift, so that a part just outside is told from no part."""
CANDIDATES, OTHERS = 4, 2
"""Places of the coarse search that are refined, at angles within the limit and beyond it."""
CLEARER = 1.2
"""Of two places, the second must fall short of a full correlation by so many times as much as the first."""
SAME_ANGLE, SAME_PLACE = 3.0, 0.03
"""Degrees, and share of the reference picture's longer side, within which two places count as one."""
LEAST_CONTRAST = 2.0
"""Standard deviation of a reference picture's grey values; one with less shows nothing."""
MARGIN = 6
"""Pixels around a picture that is refined, for the rest of the shift."""
STEPS, SETTLED = 40, 1e-5
"""Of a refinement: most steps, and the change of the correlation below which it ends."""

Grey = NDArray[np.float32]


@dataclass(frozen=True)
class _Place:
    """A pose with its correlation, up to 1."""

    pose: Pose
    correlation: float


@dataclass(frozen=True)
class _Search:
    """A frame in which the part is looked for.

    Attributes:
        geometry: with the reference picture.
        frame: (height, width) of the frame.
        image: ``(h, w) float32`` grey, reduced to the reference picture's scale.
        area: left, top, width and height of what it shows of the frame, in pixels of it.
        scale: pixels of the reference picture for a pixel of the frame.
    """

    geometry: Geometry
    frame: Size
    image: Grey
    area: tuple[int, int, int, int]
    scale: float

    def reduced(self, by: float) -> _Search:
        """Return the same at a smaller scale."""
        sides = [max(1, round(side * by)) for side in self.image.shape]
        return dataclasses.replace(self, image=_shrink(self.image, (sides[0], sides[1])), scale=self.scale * by)

    def take(self, pose: Pose, size: Size, margin: int = 0) -> Grey:
        """Return the window of the aligned frame ``[h + 2·margin, w + 2·margin]`` if the part were at a pose."""
        matrix = pose.matrix(self.frame, self.geometry.centre) @ self.window_points(size, margin)
        full = (size[0] + 2 * margin, size[1] + 2 * margin)
        return warp(self.image, np.linalg.inv(points_of(*self.area, self.image.shape)) @ matrix, full)

    def window_points(self, size: Size, margin: int = 0) -> Matrix:
        """Return the matrix from pixels of such a window to points of the aligned frame."""
        (x, y), (height, width) = self.geometry.centre, (size[0] + 2 * margin, size[1] + 2 * margin)
        across, down = width / self.scale, height / self.scale
        left, top = x * self.frame[1] - across / 2, y * self.frame[0] - down / 2
        return points_of(left, top, across, down, (height, width))


def locate(frame: NDArray[np.uint8], geometry: Geometry) -> Geometry:
    """Return the geometry with where the part lies on a frame; itself where it aligns nothing, or knows it already.

    Args:
        frame: ``(H, W, 3 or 4) uint8 BGR``; depth is ignored.
        geometry: of a run or bundle.

    Raises:
        MisplacedError: the part is not found, or lies too far from where it is on the reference picture.
    """
    if geometry.align is None or geometry.pose is not None:
        return geometry
    return dataclasses.replace(geometry, pose=find_pose(frame, geometry)[0])


def find_pose(frame: NDArray[np.uint8], geometry: Geometry) -> tuple[Pose, float]:
    """Return where the part of a frame lies, and the correlation with the reference picture, up to 1.

    Raises:
        MisplacedError: see `locate`.
    """
    align, size = geometry.align, (frame.shape[0], frame.shape[1])
    assert align is not None
    if not align.fits(size):
        raise MisplacedError(
            f"misplaced: a frame of {size[1]}×{size[0]} pixels has another aspect ratio than the reference picture of "
            f"{align.frame[1]}×{align.frame[0]}",
            "of another aspect ratio",
        )
    places = _search(frame, geometry, align)
    best = places[0].correlation if places else 0.0
    if not places or best < align.least:
        raise MisplacedError(
            f"misplaced: the part is not found (correlation with the reference picture {best:.2f}, at least "
            f"{align.least:.2f} is needed)",
            "not found",
        )
    # Places beyond the limits are looked at too: a part that lies there must not be taken for one that lies inside.
    alike = places[:1] + [place for place in places[1:] if 1 - place.correlation < CLEARER * (1 - best)]
    inside = [place for place in alike if not _why_too_far(place.pose, geometry, size)]
    if not inside:
        pose = places[0].pose
        why = _why_too_far(pose, geometry, size)
        raise MisplacedError(f"misplaced: the part is {pose.describe(size)}; {why}", "too far")
    if len(inside) > 1:
        one, other = (place.pose.describe(size) for place in inside[:2])
        raise MisplacedError(f"misplaced: the part fits at two places, {one}, or {other}", "at two places")
    return inside[0].pose, inside[0].correlation


def reference_of(frame: NDArray[np.uint8], geometry: Geometry) -> tuple[Size, str]:
    """Return what an `Alignment` stores of a reference picture: its shape and its pixels.

    Args:
        frame: the picture, ``(H, W, 3 or 4) uint8 BGR``.
        geometry: its crop is the window.

    Raises:
        MisplacedError: it shows too little to tell a place.
    """
    size = (frame.shape[0], frame.shape[1])
    scale = min(1.0, SIDE / max(_window(geometry, size)))
    search = _open(frame, geometry, _reach(geometry, size, 0.0), scale)
    shape = _shape(geometry, size, search.scale)
    if min(shape) < LEAST_SIDE:
        raise MisplacedError(f"its window has only {shape[1]}×{shape[0]} pixels", "too small")
    grey = np.rint(search.take(Pose(0, 0, 0), shape)).clip(0, 255).astype(np.uint8)
    if grey.std() < LEAST_CONTRAST:
        raise MisplacedError(
            f"its window is of one brightness (standard deviation {grey.std():.1f} grey levels)", "of one brightness"
        )
    return shape, base64.b64encode(grey.tobytes()).decode("ascii")


def _search(frame: NDArray[np.uint8], geometry: Geometry, align: Alignment) -> list[_Place]:
    """Return the places where the part may be, the best one first."""
    size = (frame.shape[0], frame.shape[1])
    reach = _reach(geometry, size, align.max_shift * BEYOND * max(size))
    fine = _open(frame, geometry, reach, max(align.shape) / max(_window(geometry, size)))
    template, small, by = _template(align)
    coarse = fine.reduced(by)
    turns = align.max_rotation > 0
    found = [_refine(coarse, small, place, turns) or place for place in _scan(coarse, small, align)]
    found = _distinct(found, geometry, size)
    worth = [place for place in found if 1 - place.correlation <= 2 * (1 - found[0].correlation) + 0.02]
    refined = [_refine(fine, template, place, turns) for place in worth]
    return _distinct([place for place in refined if place], geometry, size)


@functools.lru_cache(maxsize=8)
def _template(align: Alignment) -> tuple[Grey, Grey, float]:
    """Return the reference picture at both scales, and by how much the second one is smaller."""
    grey = align.grey.astype(np.float32)
    by = min(1.0, COARSE / max(grey.shape))
    sides = [max(1, round(side * by)) for side in grey.shape]
    # The reduced picture is read at exactly that scale: rounded sides would stretch it.
    source = points_of(0, 0, grey.shape[1], grey.shape[0], (sides[0], sides[1]))
    left, top = ((side - rounded / by) / 2 for side, rounded in zip(grey.shape[::-1], sides[::-1]))
    wanted = points_of(left, top, sides[1] / by, sides[0] / by, (sides[0], sides[1]))
    small = warp(_shrink(grey, (sides[0], sides[1])), np.linalg.inv(source) @ wanted, (sides[0], sides[1]))
    return grey, small, by


def _scan(search: _Search, template: Grey, align: Alignment) -> list[_Place]:
    """Return the best places of the coarse search, of those that are close to each other only the best."""
    lib, size = _cv2(), (template.shape[0], template.shape[1])
    margin = math.ceil(align.max_shift * BEYOND * max(search.frame) * search.scale) + 1
    angles, maps = np.arange(-180.0, 180.0, STEP) if align.max_rotation else np.zeros(1), []
    for angle in angles:
        turned = search.take(Pose(angle, 0, 0), size, margin)
        maps.append(lib.matchTemplate(turned, template, lib.TM_CCOEFF_NORMED))
    found = np.nan_to_num(np.stack(maps), nan=-1.0, posinf=-1.0, neginf=-1.0)
    offsets = np.arange(2 * margin + 1) - margin
    turns = np.radians(angles)[:, None, None]
    across, down = offsets[None, None, :], offsets[None, :, None]
    x, y = np.cos(turns) * across - np.sin(turns) * down, np.sin(turns) * across + np.cos(turns) * down
    places: list[_Place] = []
    near, allowed = 0.1 * max(size), (np.abs(angles) <= align.max_rotation + STEP / 2)[:, None, None]
    for number in range(CANDIDATES + OTHERS):
        looked_at = np.where(allowed == (number < CANDIDATES), found, -1.0)
        index = np.unravel_index(int(np.argmax(looked_at)), found.shape)
        if looked_at[index] <= 0:
            continue
        across_by, down_by = (float(side[index]) / search.scale for side in (x, y))
        pose = Pose(float(angles[index[0]]), across_by / search.frame[1], down_by / search.frame[0])
        places.append(_Place(pose, float(found[index])))
        away = np.abs((angles - angles[index[0]] + 180) % 360 - 180)[:, None, None]
        found[(away <= 1.5 * STEP) & (np.hypot(x - x[index], y - y[index]) <= near)] = -1.0
    return places


def _refine(search: _Search, template: Grey, place: _Place, turns: bool) -> _Place | None:
    """Return a place moved to where the correlation is highest; None where that cannot be told."""
    lib, size = _cv2(), (template.shape[0], template.shape[1])
    near = search.take(place.pose, size, MARGIN)
    motion = lib.MOTION_EUCLIDEAN if turns else lib.MOTION_TRANSLATION
    rest = np.array([[1, 0, MARGIN], [0, 1, MARGIN]], np.float32)
    until = (lib.TERM_CRITERIA_COUNT | lib.TERM_CRITERIA_EPS, STEPS, SETTLED)
    try:
        correlation, rest = lib.findTransformECC(template, near, rest, motion, until, None, 1)
    except lib.error:  # the pictures do not agree, or are of one brightness
        return None
    if not (math.isfinite(correlation) and np.isfinite(rest).all()):
        return None
    centre = search.geometry.centre
    step = search.window_points(size, MARGIN) @ np.vstack([rest, [0, 0, 1]])
    step = step @ np.linalg.inv(search.window_points(size))
    moved = place.pose.matrix(search.frame, centre) @ step
    across, down = centre[0] * search.frame[1], centre[1] * search.frame[0]
    at = moved @ np.array([across, down, 1.0])
    angle = math.degrees(math.atan2(moved[1, 0], moved[0, 0]))
    pose = Pose(angle, float(at[0] - across) / search.frame[1], float(at[1] - down) / search.frame[0])
    return _Place(pose, min(float(correlation), 1.0))  # rounding: the reference picture itself may exceed it


def _distinct(places: Sequence[_Place], geometry: Geometry, size: Size) -> list[_Place]:
    """Return places by falling correlation, without those that are close to a better one."""
    kept: list[_Place] = []
    near = SAME_PLACE * max(_window(geometry, size))
    for place in sorted(places, key=lambda each: -each.correlation):
        if all(_apart(place.pose, other.pose, size, near) for other in kept):
            kept.append(place)
    return kept


def _apart(one: Pose, other: Pose, size: Size, near: float) -> bool:
    turned = abs((one.angle - other.angle + 180) % 360 - 180)
    return turned > SAME_ANGLE or math.hypot((one.x - other.x) * size[1], (one.y - other.y) * size[0]) > near


def _why_too_far(pose: Pose, geometry: Geometry, size: Size) -> str:
    """Return which limit a pose exceeds; empty for none."""
    align = geometry.align
    assert align is not None
    shift = math.hypot(pose.x * size[1], pose.y * size[0])
    if shift > align.max_shift * max(size):
        return f"at most {align.max_shift * max(size):.0f} pixels are allowed"
    if abs(pose.angle) > align.max_rotation and align.max_rotation < 180:
        return f"at most {align.max_rotation:g}° are allowed"
    if geometry.crop is None:
        return ""
    x, y, width, height = geometry.crop
    across, down = (x * size[1], (x + width) * size[1]), (y * size[0], (y + height) * size[0])
    corners = np.array([(u, v, 1) for u in across for v in down])
    seen = (pose.matrix(size, geometry.centre) @ corners.T)[:2].T
    if (seen < -1).any() or (seen > np.array(size[::-1]) + 1).any():
        return "a corner of the crop would lie outside the frame"
    return ""


def _window(geometry: Geometry, size: Size) -> tuple[float, float]:
    """Return height and width of the window in pixels of the frame."""
    _, _, width, height = geometry.crop or (0, 0, 1, 1)
    return height * size[0], width * size[1]


def _shape(geometry: Geometry, size: Size, scale: float) -> Size:
    height, width = (max(1, round(side * scale)) for side in _window(geometry, size))
    return height, width


def _reach(geometry: Geometry, size: Size, shift: float) -> tuple[int, int, int, int]:
    """Return left, top, width and height of where a part shifted so far may be on a frame, at any angle."""
    across, down = geometry.centre[0] * size[1], geometry.centre[1] * size[0]
    far = math.hypot(*_window(geometry, size)) / 2 + shift
    left, top = max(0, math.floor(across - far)), max(0, math.floor(down - far))
    return left, top, min(size[1], math.ceil(across + far)) - left, min(size[0], math.ceil(down + far)) - top


def _open(frame: NDArray[np.uint8], geometry: Geometry, area: tuple[int, int, int, int], scale: float) -> _Search:
    """Return a search in an area of the frame, which is reduced (a frame that is smaller than usual grows)."""
    size = (frame.shape[0], frame.shape[1])
    left, top, width, height = area
    seen = frame[top : top + height, left : left + width]
    small = _shrink(seen, (max(1, round(height * scale)), max(1, round(width * scale))))
    code = _cv2().COLOR_BGRA2GRAY if small.shape[2] == 4 else _cv2().COLOR_BGR2GRAY
    return _Search(geometry, size, _cv2().cvtColor(small, code).astype(np.float32), area, scale)


def _shrink(image: NDArray[Any], size: Size) -> NDArray[Any]:
    lib, image = _cv2(), halve(image, size)
    how = lib.INTER_AREA if image.shape[0] > size[0] else lib.INTER_LINEAR
    return image if image.shape[:2] == size else np.asarray(lib.resize(image, size[::-1], interpolation=how))


def _cv2() -> Any:
    return require("cv2", "cpu")
