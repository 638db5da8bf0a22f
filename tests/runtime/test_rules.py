"""What a decision is made by: thresholds, regions, least area; and the shapes in a result."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgead
from edgead.bundle import Bundle, read_bundle
from edgead.decision import Verdict, conformal_threshold
from edgead.errors import BundleError, ConfigError
from edgead.images import encode_png
from edgead.runtime.inspector import Inspector
from edgead.runtime.rules import choose_threshold, describe_threshold, read_region

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
    scores, peaks = manifest.threshold.scores, manifest.threshold.peaks
    assert len(scores) == len(peaks) == manifest.threshold.normals
    assert scores == sorted(scores)
    wanted = conformal_threshold(scores, 0.3).value
    with edgead.load(line_bundle, engine="onnxruntime", threshold="fpr:0.3") as inspector:
        assert inspector.threshold == wanted
    everywhere = np.ones(manifest.size, np.bool_)
    assert choose_threshold(manifest, "fpr:0.3", everywhere) == conformal_threshold(peaks, 0.3).value
    assert choose_threshold(manifest, None, everywhere) == manifest.mask_threshold
    assert choose_threshold(manifest, "0.25", None) == 0.25
    assert "that takes at least 999 held-out images" in describe_threshold(manifest, "fpr:0.001", None)
    assert describe_threshold(manifest, 0.3, None) == ""


@pytest.mark.parametrize("wanted", ["fpr:", "fpr:2", "fpr:0", "high", "nan", float("inf")])
def test_threshold_that_makes_no_sense(line_bundle: Path, wanted: Any) -> None:
    with pytest.raises(ConfigError, match="finite number, or fpr:"):
        choose_threshold(read_bundle(line_bundle).manifest, wanted, None)


def test_fpr_needs_the_scores(line_bundle: Path) -> None:
    manifest = read_bundle(line_bundle).manifest
    older = dataclasses.replace(manifest, threshold={"value": 0.5})
    with pytest.raises(BundleError, match="Export it again"):
        choose_threshold(older, "fpr:0.01", None)


def test_region_counts_in_the_score(marked: Bundle) -> None:
    whole = Inspector(marked, FixedEngine(), threshold=0.5).inspect(FRAME)
    assert (whole.score, whole.verdict) == (2.0, Verdict.FAIL)
    top = read_region(["0,0,1,0.5"], [], marked.manifest.size)
    result = Inspector(marked, FixedEngine(), threshold=1.5, region=top).inspect(FRAME)
    assert (result.score, result.verdict) == (1.0, Verdict.PASS)
    assert result.mask.any()
    assert not result.mask[64:].any()
    rest = read_region([], ["0,0,0.25,0.25", "0.7,0.7,0.3,0.3"], marked.manifest.size)
    assert Inspector(marked, FixedEngine(), threshold=0.5, region=rest).inspect(FRAME).score == 0.0


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
        (["0.5,0,0.6,1"], [], "must lie inside the frame"),
        ([], ["0,0,1,1"], "leave nothing"),
    ],
)
def test_region_that_makes_no_sense(roi: list[str], ignore: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_region(roi, ignore, (64, 64))


def test_smallest_defect_that_fails(marked: Bundle) -> None:
    areas = {}
    for least in (0, 100, 128, 10_000):
        result = Inspector(marked, FixedEngine(), threshold=0.5, min_area=least).inspect(FRAME)
        areas[least] = (result.verdict, result.boxes[0]["area"])
    verdicts = [verdict for verdict, _ in areas.values()]
    assert verdicts[:2] == [Verdict.FAIL, Verdict.FAIL]
    assert verdicts[-1] is Verdict.PASS
    assert 128 <= areas[0][1] < 200  # 8×8 of the map, twice as high in the frame, and its interpolated edge


def test_high_score_with_an_empty_mask_still_fails(marked: Bundle) -> None:
    blind = dataclasses.replace(marked, manifest=dataclasses.replace(marked.manifest, mask_threshold=99.0))
    assert Inspector(blind, FixedEngine(), threshold=0.5, min_area=5).inspect(FRAME).verdict is Verdict.FAIL


def test_boxes_and_contours_on_request(marked: Bundle) -> None:
    plain = Inspector(marked, FixedEngine(), threshold=0.5).inspect(FRAME).to_dict()
    assert not plain.keys() & {"boxes", "contours"}
    fields = Inspector(marked, FixedEngine(), threshold=0.5, shapes=("boxes", "contours")).inspect(FRAME).to_dict()
    assert len(fields["boxes"]) == len(fields["contours"]) == 2
    big = fields["boxes"][0]
    assert (big["x"], big["y"]) == pytest.approx((4, 8), abs=1)
    assert (big["width"], big["height"]) == pytest.approx((8, 16), abs=2)
    assert all(0 <= x < 64 and 0 <= y < 128 for outline in fields["contours"] for x, y in outline)
    with pytest.raises(ConfigError, match="boxes, contours; not circles"):
        Inspector(marked, FixedEngine(), shapes=("circles",))
