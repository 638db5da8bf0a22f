"""Parts that lie anywhere are found, and nothing else is."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from aligned_parts import SIZE, aligning, distance, lying, part_frame
from hypothesis import given
from hypothesis import strategies as st
from settings import few

from edgead.errors import MisplacedError
from edgead.geometry.alignment import find_pose
from edgead.geometry.pose import Pose

SHIFT = 0.2
"""Largest shift, as a share of the longer side."""
POSITION, ANGLE = 0.004, 0.5
"""Share of the longer side, and degrees, by which what is found may differ from the truth."""


@st.composite
def poses(draw: st.DrawFn, rotation: float, shift: tuple[float, float]) -> Pose:
    """Draw a pose: up to so many degrees, shifted by a share of the longer side."""
    far, way = draw(st.floats(*shift)) * max(SIZE), draw(st.floats(0, 2 * np.pi))
    angle = draw(st.floats(-rotation, rotation))
    return Pose(angle, far * np.cos(way) / SIZE[1], far * np.sin(way) / SIZE[0])


@pytest.mark.parametrize("rotation", [0.0, 30.0, 180.0])
@given(st.data(), st.sampled_from([0.6, 1.0, 2.5]), st.floats(0.7, 1.3), st.integers(0, 99))
@few
def test_a_part_is_found_where_it_lies(
    rotation: float, data: st.DataObject, scale: float, contrast: float, seed: int
) -> None:
    """At any size of the frame, brighter or darker, with noise."""
    pose = data.draw(poses(0.95 * rotation, (0, 0.95 * SHIFT)))
    frame = cv2.resize(lying(part_frame(), pose), None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    rng = np.random.default_rng(seed)
    frame = np.clip(frame * contrast + rng.normal(0, 4, frame.shape), 0, 255).astype(np.uint8)
    found, correlation = find_pose(frame, aligning(part_frame(), max_rotation=rotation, max_shift=SHIFT))
    size = (frame.shape[0], frame.shape[1])
    assert distance(found, pose, size) <= POSITION * max(size)
    assert abs((found.angle - pose.angle + 180) % 360 - 180) <= ANGLE
    assert 0.7 < correlation <= 1


@given(poses(180, (1.05 * SHIFT, 1.5 * SHIFT)))
@few
def test_a_part_that_is_too_far_is_misplaced(pose: Pose) -> None:
    with pytest.raises(MisplacedError, match=r"misplaced: the part is (shifted by|not found)"):
        find_pose(lying(part_frame(), pose), aligning(part_frame(), max_shift=SHIFT))


@given(poses(175, (0, SHIFT / 2)).filter(lambda pose: abs(pose.angle) > 21))
@few
def test_a_part_that_is_turned_too_far_is_misplaced(pose: Pose) -> None:
    with pytest.raises(MisplacedError, match="misplaced: the part"):
        find_pose(lying(part_frame(), pose), aligning(part_frame(), max_rotation=20.0))


@given(st.integers(0, 99), st.integers(0, 255), st.sampled_from([0.0, 1.0, 4.0, 20.0]), st.floats(0, 60))
@few
def test_other_pictures_are_misplaced(seed: int, level: int, blur: float, noise: float) -> None:
    """One brightness, noise, clouds."""
    field = np.random.default_rng(seed).normal(0, 1, (*SIZE, 3))
    field = cv2.GaussianBlur(field, (0, 0), blur) if blur else field
    frame = np.clip(level + noise * field / field.std(), 0, 255).astype(np.uint8)
    with pytest.raises(MisplacedError, match="misplaced: the part"):
        find_pose(frame, aligning(part_frame()))
