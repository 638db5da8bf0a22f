"""Alignment to a reference picture: what is found, what is refused, and maps that come back to the frame."""

from __future__ import annotations

import base64
import dataclasses
import json

import cv2
import numpy as np
import pytest
from aligned_parts import SIZE, aligning, distance, lying, part_frame

from edgead import schema
from edgead.errors import ConfigError, MisplacedError
from edgead.geometry import STRETCH, Geometry, GeometryRequest
from edgead.geometry.alignment import find_pose, locate, reference_of
from edgead.geometry.pose import LEAST_SIDE, SIDE, Pose
from edgead.images import fit_frame
from edgead.masks import place_mask, spread_map
from edgead.runtime.defects import boxes_of, mark_in_frame
from edgead.schema import SchemaError

POSE = Pose(-140.0, 0.03, -0.02)
CROP = (0.22, 0.28, 0.56, 0.44)
GEOMETRIES = [
    STRETCH,
    Geometry(CROP),
    Geometry(None, "letterbox"),
    Geometry(CROP, "letterbox", (2, 3), 0.25),
    Geometry(None, "stretch", (2, 2), 0.125),
]


@pytest.mark.parametrize("base", GEOMETRIES, ids=Geometry.describe)
@pytest.mark.parametrize("depth", [False, True], ids=["colour", "depth"])
def test_a_part_that_lies_anywhere_looks_as_the_reference(base: Geometry, depth: bool) -> None:
    geometry, size = aligning(part_frame(), base), base.canvas((64, 80))
    straight, frame = part_frame(), lying(part_frame(), POSE, base.centre)
    if depth:
        straight, frame = (np.dstack([each, each[:, :, 0] + 1]) for each in (straight, frame))
    wanted, out = fit_frame(straight, size, geometry=base), np.empty((*size, frame.shape[2]), np.uint8)
    assert fit_frame(frame, size, out, geometry) is out
    away = np.abs(out.astype(int) - wanted)
    assert away.mean() < 4
    if not depth:
        assert np.quantile(away, 0.97) < 25, "only edges differ"
    assert np.abs(fit_frame(frame, size, geometry=base).astype(int) - wanted).mean() > 3 * away.mean()


def test_a_hair_at_the_edge_of_the_frame_does_not_become_a_streak() -> None:
    """A turned frame shows a corner beyond itself. What is seen there is no longer than what it continues."""
    frame, upright = lying(part_frame(), Pose(-40.0, 0.0, 0.0)), part_frame()
    frame[:6, 200:203] = 255
    fitted = fit_frame(frame, SIZE, geometry=aligning(upright))
    assert 0 < (fitted[:, :, 0] > 200).sum() < 3 * (6 * 3)


@pytest.mark.parametrize("noise", range(8))
def test_the_reference_picture_itself_is_found(noise: int) -> None:
    """Its correlation is 1, which rounding may exceed, and no other place can be as good."""
    frame = np.asarray(cv2.resize(part_frame(noise), (448, 448)), np.uint8)
    pose, correlation = find_pose(frame, aligning(frame))
    assert 0.999 < correlation <= 1
    assert abs(pose.angle) < 0.1
    assert max(abs(pose.x), abs(pose.y)) < 0.001


@pytest.mark.parametrize("base", GEOMETRIES, ids=Geometry.describe)
def test_a_defect_comes_back_to_where_it_is_on_the_frame(base: Geometry) -> None:
    frame = lying(part_frame(defect=True), POSE, base.centre)
    geometry = locate(frame, aligning(part_frame(), base))
    canvas = base.canvas((96, 120))
    values = fit_frame(frame, canvas, None, geometry)[:, :, 0].astype(np.float32)
    wanted = frame[:, :, 0] > 180
    found = mark_in_frame(values, 180, None, SIZE, geometry)
    assert (found & wanted).sum() / (found | wanted).sum() > 0.6
    [box], [true] = boxes_of(found), boxes_of(wanted)
    assert all(abs(box[side] - true[side]) <= 3 for side in ("x", "y", "width", "height")), (box, true)
    spread = spread_map(values, geometry, SIZE, SIZE, outside=0.0)
    assert (spread[wanted].mean(), spread[~wanted].mean()) > (180, 0)
    assert (spread > 180)[wanted].mean() > 0.7
    stretched = spread_map(values, geometry, SIZE, (256, 256), outside=0.0)  # as for pixel metrics
    assert np.abs(stretched - cv2.resize(spread, (256, 256))).mean() < 1
    small = mark_in_frame(values, 180, None, (SIZE[0] // 2, SIZE[1] // 2), geometry)
    assert abs(boxes_of(small)[0]["x"] * 2 - true["x"]) <= 4


def test_masks_are_aligned_as_frames() -> None:
    frame = lying(part_frame(defect=True), POSE)
    geometry = locate(frame, aligning(part_frame()))
    placed = place_mask(frame[:, :, 0] > 180, (96, 120), geometry)
    fitted = fit_frame(frame, (96, 120), None, geometry)[:, :, 0] > 180
    assert (placed & fitted).sum() / (placed | fitted).sum() > 0.6


def test_a_mark_beyond_the_frame_is_on_its_edge() -> None:
    """A FAIL must show something, even if the map is highest where the aligned frame repeats the frame's edge."""
    frame = lying(part_frame(), Pose(0, 0.15, 0))
    geometry = locate(frame, aligning(part_frame()))
    values = np.zeros((64, 80), np.float32)
    values[30, 79] = 9  # the reference picture's right edge lies to the right of this frame
    mask = mark_in_frame(values, 5, None, SIZE, geometry)
    rows, columns = np.nonzero(mask)
    assert columns.min() == SIZE[1] - 1
    assert abs(rows.mean() - 30.5 / 64 * SIZE[0]) < 4


def test_a_region_stays_with_the_part() -> None:
    geometry, size = aligning(part_frame()), (64, 80)
    region = np.zeros(geometry.region_size(size), np.bool_)
    region[:, :36] = True  # the defect lies at 146 of 280 pixels: outside
    for pose in (Pose(0, 0, 0), POSE):
        frame = lying(part_frame(defect=True), pose)
        found = locate(frame, geometry)
        values = fit_frame(frame, size, None, found)[:, :, 0].astype(np.float32)
        assert mark_in_frame(values, 180, None, SIZE, found).any()
        assert not mark_in_frame(values, 180, region, SIZE, found).any()


def test_a_frame_is_looked_at_once() -> None:
    geometry = aligning(part_frame())
    found = locate(part_frame(), geometry)
    assert locate(part_frame(), found) is found
    assert found == geometry, "where one part lies does not make another geometry"
    assert locate(part_frame(), STRETCH) is STRETCH


@pytest.mark.parametrize("turns", [180.0, 0.0])
def test_round_parts_have_no_angle(turns: float) -> None:
    frame = np.full((*SIZE, 3), 60, np.uint8)
    cv2.circle(frame, (140, 100), 50, (200, 200, 200), -1)
    geometry, moved = aligning(frame, max_rotation=turns), lying(frame, Pose(0, 0.1, 0.05))
    if turns:
        with pytest.raises(MisplacedError, match="fits at two places"):
            find_pose(moved, geometry)
    else:
        assert distance(find_pose(moved, geometry)[0], Pose(0, 0.1, 0.05), SIZE) < 0.5


@pytest.mark.parametrize("pattern", ["stripes", "ramp"])
def test_patterns_without_a_place_are_misplaced(pattern: str) -> None:
    columns = np.arange(SIZE[1], dtype=np.float64)
    values = 128 + 90 * np.sin(columns / 4) if pattern == "stripes" else columns * 0.7 + 20
    frame = np.repeat(np.tile(values, (SIZE[0], 1))[:, :, None], 3, axis=2).astype(np.uint8)
    with pytest.raises(MisplacedError, match=r"fits at two places|not found|is shifted by"):
        find_pose(frame, aligning(frame, max_rotation=0.0))


def test_the_crop_must_be_on_the_frame() -> None:
    base = Geometry((0.2, 0.2, 0.6, 0.6))
    geometry = aligning(part_frame(), base, max_shift=0.4)
    locate(lying(part_frame(), Pose(0, 0.15, 0)), geometry)
    with pytest.raises(MisplacedError, match="a corner of the crop would lie outside") as caught:
        locate(lying(part_frame(), Pose(0, 0.3, 0)), geometry)
    assert caught.value.why == "too far"


def test_another_aspect_ratio_is_misplaced() -> None:
    with pytest.raises(MisplacedError, match="280×150 pixels has another aspect ratio than the reference picture of"):
        locate(part_frame()[:150], aligning(part_frame()))


@pytest.mark.parametrize(
    ("frame", "crop", "words"),
    [
        (np.full((*SIZE, 3), 9, np.uint8), None, "of one brightness"),
        (part_frame(), (0.5, 0.5, 0.02, 0.5), "only 6×100 pixels"),
    ],
    ids=["blank", "strip"],
)
def test_what_shows_too_little_is_no_reference(frame: np.ndarray, crop: tuple[float, ...] | None, words: str) -> None:
    with pytest.raises(MisplacedError, match=words):
        reference_of(frame, Geometry(crop))


def test_it_is_stored_as_json_and_without_a_pose() -> None:
    geometry = locate(part_frame(), aligning(part_frame(), Geometry(CROP, "letterbox", (2, 2), 0.25)))
    written = json.loads(json.dumps(schema.write(geometry)))
    assert "pose" not in written
    assert len(base64.b64decode(written["align"]["pixels"])) == np.prod(written["align"]["shape"])
    read = schema.read(Geometry, written)
    read.check((64, 64))
    assert (read, read.pose) == (geometry, None)
    hostile = schema.read(Geometry, {**written, "pose": {"angle": 0, "x": 0, "y": 0}})
    assert hostile.pose is None, "a stored pose would switch the search off"
    assert read.align is not None
    assert "aligned to reference.png (up to 0.2 of the longer side and 180°; found on 9 of 10" in read.describe()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"pixels": "AAAA"}, "align.pixels"),
        ({"pixels": "?" * 100}, "align.pixels"),
        ({"pixels": "A" * (3 * SIDE * SIDE)}, "align.pixels"),
        ({"shape": [LEAST_SIDE - 1, 64]}, "shape"),
        ({"shape": [SIDE + 1, 64]}, "shape"),
        ({"max_shift": 1.5}, "max_shift"),
        ({"max_rotation": -1}, "max_rotation"),
    ],
    ids=str,
)
def test_a_damaged_alignment_is_refused(changes: dict[str, object], field: str) -> None:
    written = schema.write(aligning(part_frame()))
    with pytest.raises(SchemaError, match=field):
        schema.read(Geometry, {**written, "align": {**written["align"], **changes}}).check((64, 64))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((None, 0.1, None), "--max-shift is a setting of --align"),
        ((None, None, 10.0), "--max-rotation is a setting of --align"),
        (("auto", 0.0, None), "--max-shift is a share of the longer side, above 0 and up to 0.5, not 0"),
        (("auto", 0.6, None), "not 0.6"),
        (("auto", float("nan"), None), "not nan"),
        (("auto", None, 181.0), "--max-rotation is an angle from 0 to 180 degrees, not 181"),
        (("auto", None, -1.0), "not -1"),
    ],
)
def test_wrong_options(arguments: tuple[str | None, float | None, float | None], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        GeometryRequest.parse(None, "stretch", None, None, *arguments)


def test_limits_decide_for_the_same_frame() -> None:
    frame = lying(part_frame(), Pose(12, 0.1, 0))
    geometry = aligning(part_frame())
    assert geometry.align is not None
    locate(frame, geometry)
    for changes, words in (({"max_shift": 0.095}, "at most 27 pixels"), ({"max_rotation": 11.5}, "at most 11.5°")):
        strict = dataclasses.replace(geometry, align=dataclasses.replace(geometry.align, **changes))
        with pytest.raises(MisplacedError, match=words):
            locate(frame, strict)
