"""Good images, taken a little differently."""

from __future__ import annotations

import numpy as np
import pytest

from edgead.export.quantization.perturb import perturb


@pytest.mark.parametrize("channels", [3, 4])
def test_perturbed_images_are_near_and_repeatable(channels: int) -> None:
    rows, columns = np.mgrid[:60, :80]
    smooth = (90 + 40 * np.sin(rows / 15) + 40 * np.cos(columns / 20)).astype(np.uint8)
    frames = np.stack([np.dstack([smooth] * channels)] * 2)
    made, again = (perturb(frames, 5, np.random.default_rng(1)) for _ in range(2))
    assert made.shape == (5, *frames.shape[1:])
    assert made.dtype == np.uint8
    assert np.array_equal(made, again)
    changed = np.abs(made.astype(int) - frames[0])
    assert (changed.mean(axis=(1, 2, 3)) > 0.5).all()
    assert changed.max() < 60
    assert len(np.unique(made.reshape(5, -1), axis=0)) == 5


def test_depth_is_moved_and_never_mixed_or_lit() -> None:
    frames = np.full((1, 40, 40, 4), 100, np.uint8)
    frames[0, 10:30, 10:30, 3] = 7
    made = perturb(frames, 6, np.random.default_rng(0))
    assert {*np.unique(made[..., 3])} == {7, 100}
    assert len(np.unique(made[..., 0])) > 1
