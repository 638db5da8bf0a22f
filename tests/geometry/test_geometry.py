"""How frames come to a model and its map back to them: crop, letterbox, tiles without a seam."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgead.errors import ConfigError
from edgead.geometry import STRETCH, Geometry, GeometryRequest
from edgead.geometry.tiling import AT_ONCE, Tiling, at_once
from edgead.images import fit_frame
from edgead.masks import draw_overlay, fit_mask, place_mask, spread_map
from edgead.runtime.defects import boxes_of, mark_in_frame
from edgead.schema import SchemaError

CROP = (0.25, 0.125, 0.5, 0.75)
GEOMETRIES = [
    STRETCH,
    Geometry(CROP),
    Geometry(None, "letterbox"),
    Geometry(CROP, "letterbox"),
    Geometry(CROP, "letterbox", (3, 2), 0.25),
    Geometry(None, "stretch", (2, 4), 0.125),
]
FRAME = (240, 400)


def frame_with(*boxes: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """A dark frame with white boxes: left, top, right, bottom."""
    frame = np.zeros((*FRAME, 3), np.uint8)
    for left, top, right, bottom in boxes:
        frame[top:bottom, left:right] = 255
    return frame


def test_a_crop_is_the_cropped_picture() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*FRAME, 3), dtype=np.uint8)
    out = np.empty((64, 96, 3), np.uint8)
    assert fit_frame(frame, (64, 96), out, Geometry(CROP)) is out
    np.testing.assert_array_equal(out, fit_frame(frame[30:210, 100:300], (64, 96)))


def test_a_letterbox_keeps_the_aspect_and_repeats_the_edge() -> None:
    frame = frame_with((0, 0, 400, 10))
    cv2.circle(frame, (200, 120), 60, (255, 255, 255), -1)
    for out in (None, np.empty((128, 128, 3), np.uint8)):
        fitted = fit_frame(frame, (128, 128), out, Geometry(None, "letterbox"))
        assert fitted.shape == (128, 128, 3)
        assert out is None or fitted is out
        circle = boxes_of(fitted[30:, :, 0] > 127)[0]
        assert abs(circle["width"] - circle["height"]) <= 1
        assert (fitted[:26] > 250).all(), "the frame's white edge goes on above it"
        assert (fitted[-20:] == 0).all()


def test_depth_is_cropped_and_letterboxed_too() -> None:
    frame = np.dstack([frame_with((0, 0, 200, 240)), np.full(FRAME, 7, np.uint8)])
    frame[:, 200:, 3] = 0
    fitted = fit_frame(frame, (64, 64), None, Geometry((0, 0, 1, 0.5), "letterbox"))
    assert (fitted[:, :30, 3] == 7).all()
    assert not fitted[:, 34:, 3].any()


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize(
    "box", [(180, 90, 220, 130), (90, 20, 130, 50), (280, 180, 310, 215), (0, 0, 400, 240)], ids=str
)
def test_the_map_comes_back_to_the_frame(geometry: Geometry, box: tuple[int, int, int, int]) -> None:
    """Drawn defects: in the middle, over both edges of the crop's corners, and over the whole frame."""
    size = (64, 80)
    frame, canvas = frame_with(box), geometry.canvas(size)
    anomaly_map = fit_frame(frame, canvas, None, geometry)[:, :, 0].astype(np.float32) / 255
    window = geometry.place(FRAME, canvas).window
    wanted = np.zeros(FRAME, np.bool_)
    wanted[window] = frame[window][:, :, 0] > 0
    found = mark_in_frame(anomaly_map, 0.5, None, FRAME, geometry)
    share = (found & wanted).sum() / (found | wanted).sum()
    assert share > 0.85, share
    outside = found.copy()
    outside[window] = False
    assert not outside.any()
    rows, columns = np.nonzero(found)
    wanted_rows, wanted_columns = np.nonzero(wanted)
    pixel = max(FRAME[0] / size[0], FRAME[1] / size[1])
    assert abs(rows.mean() - wanted_rows.mean()) < pixel / 4
    assert abs(columns.mean() - wanted_columns.mean()) < pixel / 4
    spread = spread_map(anomaly_map, geometry, FRAME, FRAME, outside=0.0)
    np.testing.assert_array_equal(spread > 0.5, found)
    overlay = draw_overlay(np.full((*FRAME, 3), 128, np.uint8), spread, found, 0.5)
    assert (overlay[found] != 128).any(axis=1).all()
    outside[:] = True
    outside[window] = False
    assert (overlay[outside] == 128).all()


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_masks_are_fitted_as_frames(geometry: Geometry) -> None:
    frame = frame_with((120, 60, 260, 170))
    canvas = geometry.canvas((64, 80))
    placed = place_mask(frame[:, :, 0] > 0, canvas, geometry)
    fitted = fit_frame(frame, canvas, None, geometry)[:, :, 0] > 127
    assert (placed != fitted).mean() < 0.02
    if geometry.fit == "letterbox":
        beside = np.ones(canvas, np.bool_)
        beside[geometry.place(FRAME, canvas).inner] = False
        assert not place_mask(np.ones(FRAME, np.bool_), canvas, geometry)[beside].any()


def test_a_region_is_of_the_whole_frame() -> None:
    """The left half is inspected: a defect on the right is marked without the region, and not with it."""
    geometry, size = Geometry(CROP, "letterbox"), (64, 64)
    anomaly_map = fit_frame(frame_with((120, 60, 140, 80), (250, 60, 270, 80)), size, None, geometry)
    values = anomaly_map[:, :, 0].astype(np.float32)
    region = np.zeros(geometry.region_size(size), np.bool_)
    assert region.shape == (86, 128)
    region[:, :64] = True
    both, left = (mark_in_frame(values, 127, each, FRAME, geometry) for each in (None, region))
    assert len(boxes_of(both)) == 2
    [box] = boxes_of(left)
    assert abs(box["x"] - 120) <= 3


def blur(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """A convolution that sees zeros beyond its input, as a network does."""
    return np.asarray(cv2.filter2D(picture, -1, np.full((5, 5), 0.04, np.float32), borderType=cv2.BORDER_CONSTANT))


@pytest.mark.parametrize("overlap", [0.25, 0.375, 0.5])
def test_no_seam(overlap: float) -> None:
    """A defect on the seams: the stitched map of a convolution is that of the whole canvas."""
    geometry = Geometry(None, "stretch", (3, 4), overlap)
    tiling = Tiling(geometry, (32, 48))
    canvas = np.random.default_rng(1).random(tiling.canvas).astype(np.float32) * 0.1
    down, right = geometry.strides((32, 48))
    canvas[down - 4 : down + 36, right - 5 : right + 53] += 1  # over the edges of four tiles
    stitched = tiling.stitch(np.stack([blur(tile) for tile in tiling.cut(canvas[None])]))[0]
    np.testing.assert_allclose(stitched, blur(canvas), atol=1e-6)
    pasted = canvas * 0
    for number, tile in enumerate(tiling.cut(canvas[None])):
        tiling.tile(pasted, number)[:] = blur(tile)
    assert np.abs(pasted - blur(canvas)).max() > 0.3, "without blending there is a seam"


@pytest.mark.parametrize("tiles", [(1, 1), (1, 2), (2, 1), (3, 5)])
@pytest.mark.parametrize("overlap", [0.0, 0.03, 0.1, 0.125, 0.333, 0.5])
@pytest.mark.parametrize("size", [(31, 64), (5, 7)])
def test_a_canvas_is_the_same_after_cutting_and_stitching(
    tiles: tuple[int, int], overlap: float, size: tuple[int, int]
) -> None:
    tiling = Tiling(Geometry(None, "stretch", tiles, overlap), size)
    canvases = np.random.default_rng(2).random((2, *tiling.canvas, 3)).astype(np.float32)
    cut = tiling.cut(canvases)
    assert cut.shape == (2 * tiles[0] * tiles[1], *size, 3)
    np.testing.assert_allclose(tiling.stitch(cut), canvases, atol=1e-6)


def test_the_highest_tile_decides_and_nan_is_not_hidden() -> None:
    tiling = Tiling(Geometry(None, "stretch", (2, 2)), (4, 4))
    np.testing.assert_array_equal(tiling.score(np.float32([1, 2, 9, 3, 5, 4, 1, 0])), [9, 5])
    assert np.isnan(tiling.score(np.float32([1, np.nan, 9, 3]))).all()
    tiles = np.zeros((4, 4, 4), np.float32)
    tiles[1, 2, 2] = np.inf
    assert not np.isfinite(tiling.stitch(tiles)).all()


def test_calls_of_the_graph_are_equally_large() -> None:
    assert [at_once(tiles) for tiles in (1, 4, 8, 9, 12, 17, 192)] == [1, 4, 8, 5, 6, 6, 8]
    assert AT_ONCE == 8


def resolve(size: tuple[int, int] = (256, 256), frame: tuple[int, int] = (3000, 4096), **given: object) -> Geometry:
    options = {"crop": None, "fit": "stretch", "tiles": None, "overlap": None, **given}
    return GeometryRequest.parse(**options).resolve(frame, size)  # type: ignore[arg-type]


def test_a_wish_in_pixels_becomes_shares_and_tiles() -> None:
    assert resolve() == STRETCH
    assert resolve(crop="0.1,0,0.9,1").crop == (0.1, 0, 0.9, 1)
    assert resolve(tiles="3x4", overlap=0.25) == Geometry(None, "stretch", (3, 4), 0.25)
    in_pixels = resolve(crop="1024,750,2048,1500", fit="letterbox")
    assert in_pixels == Geometry((0.25, 0.25, 0.5, 0.5), "letterbox")
    place = in_pixels.place((3000, 4096), (256, 256))
    assert place.window == (slice(750, 2250), slice(1024, 3072))
    assert resolve(tiles="256px").tiles == (14, 19)
    assert resolve(tiles="256px", overlap=0).tiles == (12, 16)
    assert resolve(tiles="1000x1024px", overlap=0).tiles == (3, 4)
    assert resolve(tiles="5000px") == STRETCH


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"crop": "1,2,3"}, "X,Y,WIDTH,HEIGHT.*not '1,2,3'"),
        ({"crop": "0,0,0,1"}, "not '0,0,0,1'"),
        ({"crop": "nan,0,1,1"}, "not 'nan,0,1,1'"),
        ({"crop": "0.5,0,0.6,1"}, "extends beyond the image"),
        ({"crop": "0.5,0,100,100"}, "mixes both"),
        ({"crop": "4000,0,200,200"}, "extends beyond the images, which have 4096×3000"),
        ({"tiles": "3"}, "ROWSxCOLUMNS.*not '3'"),
        ({"tiles": "0x4"}, "not '0x4'"),
        ({"tiles": "axb"}, "not 'axb'"),
        ({"tiles": "16px"}, "64 rows and columns are the most"),
        ({"tiles": "40x40"}, "canvas of 8992×8992"),
        ({"overlap": 0.2}, "--overlap is a setting of --tiles"),
        ({"tiles": "2x2", "overlap": 0.7}, "from 0 to 0.5, not 0.7"),
        ({"fit": "letterbx"}, "letterbox"),
    ],
)
def test_a_wish_that_makes_no_sense(given: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        resolve(**given)


def test_a_damaged_geometry_is_refused() -> None:
    with pytest.raises(SchemaError, match="inside the frame"):
        Geometry((0.5, 0, 0.6, 1)).check((64, 64))
    with pytest.raises(SchemaError, match="at most"):
        Geometry(None, "stretch", (64, 64)).check((256, 256))


def test_the_mask_of_the_usual_geometry_is_as_before() -> None:
    values = np.random.default_rng(3).random((32, 32)).astype(np.float32)
    wanted = np.asarray(cv2.resize(values, FRAME[::-1], interpolation=cv2.INTER_LINEAR)) > 0.5
    np.testing.assert_array_equal(mark_in_frame(values, 0.5, None, FRAME), wanted)
    assert fit_mask(values > 0.5, (32, 32)).shape == (32, 32)
