"""What `fit_frame` and its like keep on frames of any size."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from settings import many, some

from edgead.depth import FARTHEST, NEAREST
from edgead.formats.decoding import decode_image
from edgead.images import PixelFormat, encode_png, fit_depth, fit_frame, to_frame
from edgead.masks import fit_mask

SIDES, TARGETS = st.integers(1, 70), st.tuples(st.integers(1, 40), st.integers(1, 40))


@st.composite
def frames(draw: st.DrawFn, channels: int = 3) -> NDArray[np.uint8]:
    """Noise, or few levels, of any size."""
    shape, seed = (draw(SIDES), draw(SIDES), channels), draw(st.integers(0, 1000))
    values = np.random.default_rng(seed).integers(0, draw(st.sampled_from([2, 256])), shape, dtype=np.uint8)
    return values * np.uint8(255) if values.max(initial=0) <= 1 else values


@given(frames(), TARGETS)
@many
def test_fitting_makes_up_no_values(frame: NDArray[np.uint8], size: tuple[int, int]) -> None:
    before, out = frame.copy(), np.full((*size, 3), 77, np.uint8)
    fitted = fit_frame(frame, size)
    assert fitted.shape == (*size, 3)
    assert fitted.dtype == np.uint8
    assert fitted.flags.c_contiguous
    for channel in range(3):
        assert frame[..., channel].min() <= fitted[..., channel].min()
        assert fitted[..., channel].max() <= frame[..., channel].max()
    assert fit_frame(frame, size, out) is out
    assert np.array_equal(out, fitted)
    assert np.array_equal(frame, before)
    assert np.array_equal(fit_frame(fitted, size), fitted)  # once is enough


@given(frames(), TARGETS)
@some
def test_fitting_treats_channels_and_both_directions_alike(frame: NDArray[np.uint8], size: tuple[int, int]) -> None:
    fitted = fit_frame(frame, size).astype(int)
    swapped = fit_frame(np.ascontiguousarray(frame[..., ::-1]), size)
    assert np.array_equal(swapped[..., ::-1], fitted)
    turned = fit_frame(np.ascontiguousarray(frame.transpose(1, 0, 2)), size[::-1])
    assert np.abs(turned.transpose(1, 0, 2) - fitted).max() <= 3  # rounded in another order, once a step
    strided = np.zeros((frame.shape[0], 2 * frame.shape[1], 3), np.uint8)[:, ::2]
    strided[:] = frame
    assert np.array_equal(fit_frame(strided, size), fitted)  # a view is a frame, too


@given(st.integers(0, 3), st.integers(0, 3), st.tuples(st.integers(1, 8), st.integers(1, 8)), st.integers(0, 99))
@some
def test_shrinking_by_powers_of_two_is_the_mean(rows: int, columns: int, size: tuple[int, int], seed: int) -> None:
    """By other numbers, a halved row may be shared by two: see `fit_frame`."""
    (height, width), down, across = size, 1 << rows, 1 << columns
    shape = (height * down, width * across, 3)
    frame = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    means = frame.reshape(height, down, width, across, 3).mean(axis=(1, 3))
    assert np.abs(fit_frame(frame, size) - means).max() <= 2.01  # one rounding a halving, three at most


@given(frames(channels=4), TARGETS)
@some
def test_no_distance_is_made_of_what_was_not_measured(frame: NDArray[np.uint8], size: tuple[int, int]) -> None:
    codes = frame[..., 3]
    fitted = fit_depth(codes, size)
    assert fitted.shape == size
    measured = codes[codes > 0]
    found = fitted[fitted > 0]
    assert bool(len(found)) <= bool(len(measured))
    if len(found):
        assert max(NEAREST, measured.min()) <= found.min()
        assert found.max() <= min(FARTHEST, measured.max())
    assert np.array_equal(fit_frame(frame, size)[..., 3], codes if codes.shape == size else fitted)
    assert (fit_depth(np.zeros_like(codes), size) == 0).all()


@given(hnp.arrays(np.bool_, st.tuples(SIDES, SIDES)), TARGETS)
@some
def test_masks_stay_masks(mask: NDArray[np.bool_], size: tuple[int, int]) -> None:
    fitted = fit_mask(mask, size)
    assert (fitted.shape, fitted.dtype) == (size, np.bool_)
    assert set(np.unique(fitted)) <= set(np.unique(mask))


@given(frames(), st.sampled_from([1, 3]))
@some
def test_a_written_picture_is_read_bit_for_bit(frame: NDArray[np.uint8], channels: int) -> None:
    picture = frame if channels == 3 else np.ascontiguousarray(frame[..., 0])
    again = to_frame(decode_image(encode_png(picture)), PixelFormat())
    assert np.array_equal(again, to_frame(picture))
