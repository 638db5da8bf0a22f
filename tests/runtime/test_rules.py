"""What a decision is made by: thresholds, regions, least area; and the shapes in a result."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from level_bundle import frame_of, make_level_bundle
from listener import Listener
from numpy.typing import NDArray

import edgead
from edgead.bundle import Bundle, read_bundle
from edgead.bundle.manifest import DataRecord, StoredThreshold
from edgead.decision import Verdict, conformal_threshold
from edgead.errors import BundleError, ConfigError
from edgead.geometry import Geometry
from edgead.images import encode_png
from edgead.masks import draw_overlay, fit_region
from edgead.runtime.defects import boxes_of, contours_of
from edgead.runtime.inspector import Inspector
from edgead.runtime.rules import Rules, choose_threshold, describe_threshold, read_region
from edgead.view.state import promise_of

FRAME = np.random.default_rng(0).integers(0, 256, (128, 64, 3), dtype=np.uint8)


class FixedEngine:
    """Gives a map with two defects: 8×8 at the top left, 2×2 at the bottom right; the score is the highest value."""

    name = "fixed"

    def infer(self, frames: Any) -> Any:
        maps = np.zeros(frames.shape[:3], np.float32)
        maps[:, 4:12, 4:12], maps[:, 50:52, 50:52] = 1.0, 2.0
        return maps.max(axis=(1, 2)), maps

    def close(self) -> None:
        """Nothing is kept open."""


@pytest.fixture
def marked(line_bundle: Path) -> Bundle:
    """The small bundle with limits that the fixed map is read by."""
    bundle = read_bundle(line_bundle)
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, mask_threshold=0.5))


def test_fpr_chooses_from_the_held_out_scores(line_bundle: Path) -> None:
    manifest = read_bundle(line_bundle).manifest
    scores, peaks = manifest.threshold.scores, manifest.threshold.map_maxima
    assert len(scores) == len(peaks) == manifest.threshold.normals
    assert list(scores) == sorted(scores)
    wanted = conformal_threshold(scores, 0.3).value
    with edgead.load(line_bundle, engine="onnxruntime", threshold="fpr:0.3") as inspector:
        assert inspector.threshold == wanted
    assert choose_threshold(manifest, "0.25") == 0.25
    assert "Requested: 1, which needs at least 999 held-out images" in describe_threshold(manifest, "fpr:0.001")


def test_images_that_the_model_may_have_seen_are_not_called_held_out(line_bundle: Path) -> None:
    """`edgead import --threshold-data` of train/good: `edgead inspect` said so, and --threshold did not."""
    manifest = read_bundle(line_bundle).manifest
    seen = dataclasses.replace(manifest, data=DataRecord(held_out_part="train"))
    for wanted in ("fpr:0.1", 0.25, 1e9):
        assert "held-out good images" in describe_threshold(manifest, wanted)
        assert "held-out good images" not in describe_threshold(seen, wanted)
        assert "good images that the model may have been trained on" in describe_threshold(seen, wanted)
    assert "may have been trained on 0 fail" in promise_of(seen, 1e9)


def test_a_threshold_far_above_the_good_parts_is_pointed_out(line_bundle: Path) -> None:
    """It passes everything; the verdicts alone would not show that."""
    manifest = read_bundle(line_bundle).manifest

    def meaning(wanted: float | str | None, scores: tuple[float, ...] = (0.25, 0.5, 0.75)) -> str:
        own = dataclasses.replace(manifest.threshold, value=0.75, scores=scores)
        return describe_threshold(dataclasses.replace(manifest, threshold=own), wanted)

    for wanted, failing in ((0.3, 2), ("0.75", 0), (1.25, 0), (-1, 3)):
        assert meaning(wanted) == (
            f"threshold {float(wanted):g} instead of the bundle's own 0.75: {failing} of 3 held-out "
            "good images would fail"
        )
    for wanted in (1.26, "1e9"):
        assert meaning(wanted).startswith(f"Warning: threshold {float(wanted):.6g} instead of")
        assert "far above their scores, 0.25 to 0.75. Defective parts with a score up to it pass" in meaning(wanted)
    assert meaning(None) == meaning(1e9, ()) == ""

    console = Listener()
    edgead.load(line_bundle, engine="onnxruntime", threshold=1e9, console=console).close()
    assert sum("far above their scores" in line for line in console.said) == 1


def test_a_threshold_of_numpy_is_the_number_itself(line_bundle: Path) -> None:
    """It was read from its text, which is another number: half of all parts with just that score failed."""
    manifest = read_bundle(line_bundle).manifest
    for score in np.random.default_rng(0).random(50, dtype=np.float32):
        assert choose_threshold(manifest, score) == float(score)


@pytest.mark.parametrize(
    "wanted",
    ["fpr:", "fpr:2", "fpr:0", "fpr:1e-13", "fpr:1e-310", "high", "0_8", "nan", float("inf"), np.float32("nan")],
)
def test_threshold_that_makes_no_sense(line_bundle: Path, wanted: Any) -> None:
    with pytest.raises(ConfigError, match="finite number, or fpr:"):
        choose_threshold(read_bundle(line_bundle).manifest, wanted)


def test_fpr_needs_the_scores(line_bundle: Path) -> None:
    manifest = read_bundle(line_bundle).manifest
    older = dataclasses.replace(manifest, threshold=StoredThreshold(0.5, 1, 0.5, 0.5))
    with pytest.raises(BundleError, match="Export it again"):
        choose_threshold(older, "fpr:0.01")


def test_a_region_leaves_score_and_threshold_alone(marked: Bundle) -> None:
    whole = Inspector(marked, FixedEngine(), threshold=1.5).inspect(FRAME)
    assert (whole.score, whole.verdict) == (2.0, Verdict.FAIL)
    inspector = Inspector(marked, FixedEngine(), threshold=1.5)
    inspector.region = read_region(["0,0,1,1"], [], marked.manifest.size)
    same = inspector.inspect(FRAME)
    assert (same.score, same.threshold, same.verdict) == (2.0, 1.5, Verdict.FAIL)
    np.testing.assert_array_equal(same.mask, whole.mask)
    inspector.region = read_region(["0,0,1,0.5"], [], marked.manifest.size)
    top = inspector.inspect(FRAME)
    assert (top.score, top.threshold, top.verdict) == (2.0, 1.5, Verdict.FAIL)
    assert top.mask.any()
    assert not top.mask[64:].any()
    inspector.region = read_region([], ["0,0,0.25,0.25", "0.7,0.7,0.3,0.3"], marked.manifest.size)
    rest = inspector.inspect(FRAME)
    assert (rest.score, rest.threshold, rest.verdict) == (2.0, 1.5, Verdict.PASS)
    assert rest.reason == "score above threshold, but the defect lies outside the region"
    assert not rest.mask.any()
    inspector.region = None
    assert inspector.inspect(FRAME).verdict is Verdict.FAIL


def test_region_from_a_mask_image(marked: Bundle, tmp_path: Path) -> None:
    picture = np.zeros((32, 32), np.uint8)
    picture[16:] = 255
    (tmp_path / "roi.png").write_bytes(encode_png(picture))
    region = read_region([str(tmp_path / "roi.png")], ["0,0,0.5,1"], marked.manifest.size)
    assert region is not None
    assert region[32:, 32:].all()
    assert region.sum() == 32 * 32


@pytest.mark.parametrize(
    ("roi", "ignore", "says"),
    [
        (["1,2,3"], [], "neither a mask image nor"),
        (["0.5,0,0.6,1"], [], "must be inside the frame"),
        (["0.1,0.1,0,0"], [], "has no area"),
        ([], ["0.5,0.5,0.1,0"], "has no area"),
        ([], ["0,0,1,1"], "exclude the whole frame"),
    ],
)
def test_region_that_makes_no_sense(roi: list[str], ignore: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_region(roi, ignore, (64, 64))


def test_smallest_defect_that_fails(marked: Bundle) -> None:
    results = {
        least: Inspector(marked, FixedEngine(), threshold=0.5, min_area=least).inspect(FRAME)
        for least in (0, 100, 128, 8_000)
    }
    area = results[0].boxes[0]["area"]
    assert 128 <= area < 200  # 8×8 of the map, twice as high in the frame, and its interpolated edge
    assert [result.verdict for result in results.values()] == [Verdict.FAIL] * 3 + [Verdict.PASS]
    assert results[8_000].reason == f"largest defect of {area} pixels is below 8000"
    assert (results[8_000].boxes, results[8_000].contours) == ([], [])


def test_a_least_area_that_no_defect_can_have_lets_nothing_pass() -> None:
    """Every frame passed."""
    anomaly_map, half = np.zeros((64, 64), np.float32), np.zeros((64, 64), np.bool_)
    anomaly_map[:8, :8] = 1.0
    half[:, :32] = True
    for region, most in ((None, 128 * 64), (half, 64 * 64)):
        assert Rules(0.5, 0.5, region, most).decide(1.0, anomaly_map, (128, 64))[0] is Verdict.PASS
        verdict, reason = Rules(0.5, 0.5, region, most + 1).decide(1.0, anomaly_map, (128, 64))
        assert verdict is Verdict.FAIL
        assert reason == f"min_area is {most + 1} pixels, and a defect can have {most} at most"
    crop = Geometry((0.0, 0.0, 0.5, 1.0))
    assert Rules(0.5, 0.5, None, 64 * 64 + 1).decide(1.0, anomaly_map, (128, 64), crop)[0] is Verdict.FAIL


def test_where_the_map_stays_below_its_limit_its_highest_part_is_the_defect(marked: Bundle) -> None:
    blind = dataclasses.replace(marked, manifest=dataclasses.replace(marked.manifest, mask_threshold=99.0))
    result = Inspector(blind, FixedEngine(), threshold=0.5, min_area=5).inspect(FRAME)
    assert result.verdict is Verdict.FAIL
    [box] = result.boxes
    assert (box["x"], box["y"]) == pytest.approx((50, 100), abs=1)  # of the value 2; that of 1 is not above the middle
    small = Inspector(blind, FixedEngine(), threshold=0.5, min_area=100).inspect(FRAME)
    assert (small.verdict, small.mask.any()) == (Verdict.PASS, False)


class MapEngine:
    """Gives one map, and any score with it."""

    name = "map"

    def __init__(self, score: float, anomaly_map: NDArray[np.float32]) -> None:
        self.outputs = np.float32([score]), anomaly_map[None]

    def infer(self, frames: Any) -> Any:
        return self.outputs

    def close(self) -> None:
        """Nothing is kept open."""


@pytest.mark.parametrize("seed", range(60))
def test_a_fail_shows_where_and_a_pass_shows_nothing(marked: Bundle, seed: int) -> None:
    """Any score with any map, limit, frame size, region and least area: scores need not be the map's highest value."""
    rng = np.random.default_rng(seed)
    spots = (rng.random((64, 64)) < rng.choice([0, 1 / 4096, 0.01, 1])) * rng.random((64, 64))
    anomaly_map = (rng.choice([-3.0, 0.0, 5.0]) + rng.choice([1e-6, 1.0, 1e6]) * spots).astype(np.float32)
    limit = rng.choice([float(anomaly_map.max()), float(anomaly_map.min()), 0.4, -1e9, 1e9])
    bundle = dataclasses.replace(marked, manifest=dataclasses.replace(marked.manifest, mask_threshold=limit))
    region = rng.random((64, 64)) < rng.choice([1e-3, 0.5])
    region[0, 0] = True
    frame = np.zeros((*rng.choice([1, 2, 7, 31, 64, 65, 200, 480], 2), 3), np.uint8)
    engine = MapEngine(rng.choice([0.4, 0.5, 0.6, 100.0]), anomaly_map)
    inspector = Inspector(bundle, engine, threshold=0.5)
    plain = inspector.inspect(frame)
    assert (plain.verdict is Verdict.FAIL) == (plain.score > 0.5)
    inspector.region = np.ones((64, 64), np.bool_)
    whole = inspector.inspect(frame)
    assert whole.verdict is plain.verdict
    np.testing.assert_array_equal(whole.mask, plain.mask)
    results = [plain, whole]
    for inspector.region in (None, region, ~region):
        for inspector.min_area in (0, 1, 5, 10**9):
            results.append(inspector.inspect(frame))
            assert results[-1].verdict is plain.verdict or results[-1].verdict is Verdict.PASS
    for result in results:
        assert result.mask.shape == frame.shape[:2]
        assert (result.verdict is Verdict.FAIL) == result.mask.any() == bool(result.boxes) == bool(result.contours)
    late = inspector.inspect(frame)
    late.verdict = Verdict.UNKNOWN  # a verdict that comes too late keeps what was found
    assert not late.mask.any() or late.score > 0.5


def test_boxes_and_contours_on_request(marked: Bundle) -> None:
    plain = Inspector(marked, FixedEngine(), threshold=0.5).inspect(FRAME).to_dict()
    assert not plain.keys() & {"boxes", "contours"}
    fields = Inspector(marked, FixedEngine(), threshold=0.5, shapes=("boxes", "contours")).inspect(FRAME).to_dict()
    assert len(fields["boxes"]) == len(fields["contours"]) == 2
    big = fields["boxes"][0]
    assert (big["x"], big["y"]) == pytest.approx((4, 8), abs=1)
    assert (big["width"], big["height"]) == pytest.approx((8, 16), abs=2)
    assert all(0 <= x < 64 and 0 <= y < 128 for outline in fields["contours"] for x, y in outline)
    with pytest.raises(ConfigError, match=r"boxes, contours, not \('circles',\)"):
        Inspector(marked, FixedEngine(), shapes=("circles",))


def test_every_region_of_a_mask_has_one_outline_in_the_order_of_the_boxes() -> None:
    """A region inside the ring of another one had a box and no outline, and outlines began at the bottom."""
    mask = np.zeros((64, 80), np.bool_)
    mask[5:35, 5:35], mask[10:30, 10:30], mask[18:22, 17:20] = True, False, True
    mask[50:60, 40:70], mask[60, 70] = True, True  # connected by a corner
    rng = np.random.default_rng(0)
    for each in (mask, *(rng.random((40, 50)) < share for share in (0.05, 0.4, 0.6))):
        outlines = [np.array(outline) for outline in contours_of(each, boxes_of(each))]
        spans = [(*outline.min(0), *(np.ptp(outline, 0) + 1)) for outline in outlines]
        assert spans == [(box["x"], box["y"], box["width"], box["height"]) for box in boxes_of(each)]
    assert len(boxes_of(mask)) == 3
    drawn = draw_overlay(np.zeros((64, 80, 3), np.uint8), np.zeros((64, 80), np.float32), mask, 1.0)
    assert drawn[19, 17, 2] == 255


@pytest.mark.parametrize("size", [(64, 64), (16, 256), (7, 9), (200, 33)])
def test_no_part_of_a_region_is_lost_by_its_resolution(size: tuple[int, int], tmp_path: Path) -> None:
    """What is to be inspected is never rounded away: a defect there would pass."""
    picture = np.zeros((300, 400), np.uint8)
    picture[151, 203] = 255
    (tmp_path / "dot.png").write_bytes(encode_png(picture))
    for roi, row, column in ((str(tmp_path / "dot.png"), 151 / 300, 203 / 400), ("0.71,0.31,0.001,0.001", 0.31, 0.71)):
        region = read_region([roi], [], size)
        assert region is not None
        assert region[int(row * size[0]), int(column * size[1])]
        assert region.sum() <= 4
    rest = read_region([], ["0,0,1,0.4999", "0,0.5001,1,0.4999"], size)
    assert rest is not None
    assert rest[size[0] // 2].all()


@pytest.mark.parametrize("size", [(1, 64), (16, 64), (64, 1), (64, 2), (5, 300)])
def test_a_small_region_of_a_letterboxed_frame_is_inspected(size: tuple[int, int]) -> None:
    region = np.zeros((64, 64), np.bool_)
    region[37, 29] = True
    fitted = fit_region(region, size)
    assert fitted.shape == size
    assert fitted[75 * size[0] // 128, 59 * size[1] // 128]
    np.testing.assert_array_equal(fit_region(region, (64, 64)), region)


def test_a_frame_that_cannot_be_read_has_no_boxes(tmp_path: Path) -> None:
    """OpenCV's search for connected parts ends the process if there is no pixel."""
    assert (boxes_of(np.zeros((0, 0), np.bool_)), contours_of(np.zeros((0, 0), np.bool_), [])) == ([], [])
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "damaged.png").write_bytes(b"no picture")
    (tmp_path / "images" / "good.png").write_bytes(encode_png(frame_of(50)))
    bundle = make_level_bundle(tmp_path / "line.edgead")
    with edgead.load(bundle.path, engine="onnxruntime", shapes=["boxes", "contours"]) as inspector:
        results = [result.to_dict() for result in inspector.stream(tmp_path / "images")]
    assert [each["verdict"] for each in results] == ["UNKNOWN", "PASS"]
    assert all(each["boxes"] == each["contours"] == [] for each in results)
