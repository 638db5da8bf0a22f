"""Faint changes of good images."""

from __future__ import annotations

import numpy as np
import pytest

from edgead.export.quantization.faint import LIGHT, OPACITY, draw_faint


@pytest.mark.parametrize("size", [(24, 40, 3), (5, 4, 4)])
def test_faint_changes_are_small_and_repeatable(size: tuple[int, int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, *size), dtype=np.uint8)
    made, again = (draw_faint(frames, 12, np.random.default_rng(1)) for _ in range(2))
    assert made.shape == (12, *size)
    assert made.dtype == np.uint8
    assert np.array_equal(made, again)
    changed = np.abs(made.astype(np.int16) - np.concatenate([frames] * 6))
    assert (changed.max(axis=(1, 2, 3)) > 0).all()
    assert changed.max() <= 255 * (OPACITY[1] + LIGHT) + 1


def test_a_patch_is_seen_on_an_even_picture_where_it_is_inverted() -> None:
    frames = np.full((1, 60, 60, 3), 40, np.uint8)
    plain, inverted = draw_faint(frames, 2, np.random.default_rng(3))
    assert np.ptp(plain) == 0
    seen = inverted > inverted.min()
    assert 0 < seen.mean() < 0.1
    assert int(inverted.max()) - int(inverted.min()) > OPACITY[0] * 100
