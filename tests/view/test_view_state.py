"""What the page knows and says: banners, curves, counts, what-if, rejects, marks."""

from __future__ import annotations

import base64
import json
import math
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgead.decision import Verdict
from edgead.errors import ConfigError
from edgead.geometry import STRETCH, Geometry
from edgead.marks import Marks
from edgead.runtime.ledger import Ledger
from edgead.runtime.result import CAUSES, Result
from edgead.runtime.sinks.rejects import RejectFolder
from edgead.view.banner import banner_of
from edgead.view.bundles import Bundles
from edgead.view.causes import ADVICE
from edgead.view.curves import Curves, Hours, Rate, Sample, Samples
from edgead.view.marks import mark_reject
from edgead.view.pictures import draw, shrink
from edgead.view.rejects import Rejects
from edgead.view.seen import MOST_CAMERAS, MOST_REJECTS, Fact, Seen
from edgead.view.what_if import histogram, what_if

ROOT = Path(__file__).parents[2]


def result_of(score: float, threshold: float = 1.0, **values: object) -> Result:
    verdict = Verdict.FAIL if score > threshold else Verdict.PASS
    facts: dict[str, Any] = {"source_id": "front", "id": f"id-{score}", "latency_ms": {"total": 5.0}}
    facts |= {"verdict": verdict, "reason": "", "bundle_digest": "a", **values}
    return Result(score, threshold=threshold, **facts)


def picture_of(number: int, size: tuple[int, int] = (48, 64)) -> Result:
    """A FAIL with a frame and a spot in its map."""
    anomaly_map = np.zeros((24, 32), np.float32)
    anomaly_map[4:10, 20:28] = 3.0
    frame = np.full((*size, 3), 90, np.uint8)
    at = f"2026-01-01T00:00:{number % 60:02}.000+00:00"
    return result_of(
        2.0,
        id=f"id-{number:04}",
        frame_id=number,
        frame=frame,
        frame_size=size,
        anomaly_map=anomaly_map,
        mask_threshold=1.0,
        captured_at=at,
    )


def test_every_bundle_can_be_chosen(tmp_path: Path) -> None:
    """Of two with one name in two folders, the page had the first one alone, whichever was meant."""
    for name in ("old/bottle.edgead", "new/bottle.edgead", "new/cap.edgead"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "manifest.json").touch()
    old, new = tmp_path / "old", tmp_path / "new"
    bundles = Bundles([old, new, old / "bottle.edgead"])
    assert bundles.names() == [str(new / "bottle"), str(old / "bottle"), "cap"]
    assert bundles.path(str(new / "bottle")) == new / "bottle.edgead"
    with pytest.raises(ConfigError, match="no such bundle"):
        bundles.path("bottle")
    assert Bundles([old, old / "bottle.edgead"]).names() == ["bottle"]


def show(result: Result | None, age: float = 0.1, paused: bool = False, failure: str = "") -> tuple[str, str]:
    banner = banner_of(result, age, paused=paused, failure=failure, recent=5.0)
    return banner.kind, banner.word


def test_the_banner_says_what_is_true() -> None:
    good, bad = result_of(0.5), result_of(2.0)
    lost = result_of(0.5, verdict=Verdict.UNKNOWN, cause="lost")
    assert show(good) == ("pass", "PASS")
    assert show(bad) == ("fail", "FAIL")
    assert show(lost) == ("unknown", "UNKNOWN")
    assert show(None) == ("waiting", "WAITING")
    assert show(good, age=6) == ("waiting", "WAITING")
    assert show(bad, age=6) == ("waiting", "WAITING")
    assert show(lost, age=60) == ("unknown", "UNKNOWN")
    for each in (good, bad, lost, None):
        assert show(each, paused=True) == ("paused", "PAUSED")
        assert show(each, paused=True, failure="gone") == ("unknown", "UNKNOWN")


def test_a_banner_shows_no_credentials() -> None:
    reason = "rtsp://user:secret@camera/line does not answer\nPASS"
    banner = banner_of(
        result_of(0.5, verdict=Verdict.UNKNOWN, cause="lost", reason=reason), 0, paused=False, failure="", recent=5
    )
    assert "secret" not in banner.reason
    assert "\n" not in banner.reason
    assert banner.text == "The camera does not answer"


def test_every_cause_has_words_and_a_place_in_the_document() -> None:
    assert set(ADVICE) == set(CAUSES)
    page = " ".join((ROOT / "docs" / "operate.md").read_text(encoding="utf-8").split())
    for advice in ADVICE.values():
        assert advice.what in page


def fact(
    score: float, verdict: Verdict = Verdict.PASS, model: tuple[str, str] = ("a", ""), threshold: float = 1.0
) -> Fact:
    return Fact("front", verdict, "", score, threshold, 4.0, model, True)


@pytest.mark.parametrize(("one_model", "other"), [(("a", ""), ("b", "")), (("a", "bottle 1"), ("a", "cap 1"))])
def test_scores_of_another_bundle_or_product_begin_again(one_model: tuple[str, str], other: tuple[str, str]) -> None:
    curves, samples = Curves(), Samples()
    for model in (one_model, one_model, other):
        one = fact(0.25, model=model)
        curves.add(one)
        samples.add([one])
    curves.add(fact(math.nan, Verdict.UNKNOWN))
    samples.add([fact(0.5, Verdict.UNKNOWN, other)])
    assert list(curves.scores) == [(0.25, "P")]
    assert samples.of(other) == [Sample(0.25, 1.0, False)]
    assert samples.of(one_model) == []
    latency = curves.latency()
    assert latency is not None
    assert (latency.p50, latency.p99, latency.frames) == (4.0, 4.0, 4)


def test_hours_are_those_of_the_ledger() -> None:
    ledger, hours, rate = Ledger(), Hours(), Rate()

    def frames(count: int, score: float) -> None:
        for _ in range(count):
            ledger.enter("front")
            ledger.count(result_of(score))

    frames(3, 0.5)
    hours.update(ledger.snapshot()["sources"]["front"], 7200.0)
    frames(2, 2.0)
    hours.update(ledger.snapshot()["sources"]["front"], 10799.0)
    frames(1, 0.5)
    hours.update(ledger.snapshot()["sources"]["front"], 10800.0)
    assert [(hour.began, hour.passed, hour.failed) for hour in hours.state()] == [(7200, 3, 2), (10800, 1, 0)]
    frames(1, 2.0)
    hours.update(ledger.snapshot()["sources"]["front"], 7200.0)  # the clock was set back
    assert [(hour.began, hour.passed, hour.failed) for hour in hours.state()] == [(7200, 3, 3), (10800, 1, 0)]
    for second in range(30):
        rate.update(second * 4, float(second))
    assert rate.value() == 4.0


def test_what_another_threshold_would_have_changed() -> None:
    held_out = [0.1, 0.2, 0.3, 0.4]
    scores = [0.1, 0.5, 0.9, 1.2, 1.5, 2.0]
    samples = [Sample(score, 1.0, score > 1.0) for score in scores]
    same = what_if(1.0, samples, held_out, has_rules=False)
    assert (same.parts, same.failed, same.would_fail, same.would_pass) == (6, 3, 0, 0)
    higher = what_if(1.5, samples, held_out, has_rules=False)
    assert (higher.would_fail, higher.would_pass, higher.held_out_failing) == (0, 2, 0)
    lower = what_if(0.35, samples, held_out, has_rules=True)
    assert (lower.would_fail, lower.would_pass, lower.held_out_failing) == (2, 0, 1)
    assert lower.at_most
    assert lower.limit == pytest.approx(0.751, abs=1e-3)  # Clopper–Pearson, 1 of 4 at 95 %
    assert what_if(0.35, samples, [], has_rules=False).limit is None
    assert what_if(1.0, samples, held_out, has_rules=False, unseen=False).images.endswith("may have been trained on")


def test_a_part_that_passed_above_its_threshold_passes_again() -> None:
    outside = [Sample(1.4, 1.0, False)]  # its defect lies outside the region
    assert what_if(0.5, outside, [], has_rules=True).would_fail == 0


def test_the_histogram_holds_every_score_and_the_threshold() -> None:
    samples = [Sample(score, 1.0, score > 1.0) for score in (0.1, 0.2, 5.0)]
    bins = histogram(samples, [0.15], 9.0)
    assert bins.low < 0.1
    assert bins.high > 9.0
    assert (sum(bins.held_out), sum(bins.passed), sum(bins.failed)) == (1, 2, 1)
    empty = histogram([], [], 1.0)
    assert empty.low < 1.0 < empty.high


def test_only_references_are_kept_and_only_so_many() -> None:
    seen = Seen()
    for number in range(100):
        seen.see(picture_of(number))
    assert len(seen.rejects["front"]) == MOST_REJECTS
    assert seen.pictured["front"][0].frame_id == 99
    for number in range(MOST_CAMERAS * 2):
        seen.see(result_of(0.5, source_id=f"camera {number}"))
    assert len(seen.latest) == MOST_CAMERAS


def test_rejects_keep_full_frames_within_their_limit() -> None:
    full = 480 * 640 * 3
    rejects = Rejects(most_bytes=2 * full)
    for number in range(20):
        rejects.add(picture_of(number, (480, 640)))
    kept = rejects.of("front")
    assert [each.result.frame_id for each in kept] == list(range(19, 7, -1))
    assert [each.is_full for each in kept] == [True, True, *[False] * 10]
    assert rejects.get("id-0000") is None
    assert base64.b64decode(kept[-1].small)[:2] == b"\xff\xd8"


def test_the_outline_is_where_the_map_is_high() -> None:
    result = picture_of(1, (480, 640))
    assert result.frame is not None
    picture = draw(result, result.frame, 320)
    assert (picture.width, picture.height) == (640, 480)
    points = np.array([tuple(map(int, point.split())) for point in re.findall(r"\d+ \d+", picture.outline)])
    assert points[:, 0].min() == pytest.approx(20 / 32 * 1000, abs=30)
    assert points[:, 0].max() == pytest.approx(28 / 32 * 1000, abs=30)
    assert points[:, 1].max() == pytest.approx(10 / 24 * 1000, abs=30)
    assert shrink(result.frame, 320).shape == (240, 320, 3)
    result.verdict = Verdict.PASS
    assert draw(result, result.frame, 320).outline == ""


@pytest.mark.parametrize(("limit", "good", "bad"), [(0.5, 0.0, 1.0), (-0.1, -0.9, -0.02), (-3.0, -7.0, 5.0)])
@pytest.mark.parametrize("geometry", [STRETCH, Geometry(crop=(0.5, 0.0, 0.5, 1.0), fit="letterbox")])
def test_a_defect_is_hot_whatever_the_sign_of_the_map(
    limit: float, good: float, bad: float, geometry: Geometry
) -> None:
    """Maps of likelihoods are below 0: neither the page nor an overlay had any heat."""
    frame = np.full((64, 128, 3), 100, np.uint8)
    values = np.full((32, 32), good, np.float32)
    values[12:20, 12:20] = bad
    result = Result(1.0, Verdict.FAIL, "", 0.5, values, limit, (64, 128), frame=frame, geometry=geometry)
    changed = (result.overlay() != 100).any(axis=2)
    centre = 64 if geometry == STRETCH else 96
    hot = cv2.imdecode(np.frombuffer(base64.b64decode(draw(result, frame, 128).heat), np.uint8), -1)[:, :, 3]
    seen = cv2.resize(hot, (128, 64)) > 64
    for found in (changed, seen):
        rows, columns = np.nonzero(found)
        assert found[32, centre]
        assert (rows.mean(), columns.mean()) == pytest.approx((32, centre), abs=3)
        assert found.mean() < 0.15


def test_marks_are_labelled_images(tmp_path: Path) -> None:
    rejects = Rejects()
    rejects.add(picture_of(3))
    [reject] = rejects.of("front")
    marks = Marks(tmp_path)
    mark_reject(marks, reject, "false reject", "Ada", None)
    [good] = (tmp_path / "images" / "good").iterdir()
    mark_reject(marks, reject, "real defect", "Ada", None)
    assert not good.exists()
    assert (tmp_path / "images" / "bad" / good.name).exists()
    lines = [json.loads(line) for line in (tmp_path / "marks.jsonl").read_text().splitlines()]
    assert [line["mark"] for line in lines] == ["false reject", "real defect"]
    assert lines[1]["picture"] == f"images/bad/{good.name}"
    assert lines[1]["result"]["id"] == lines[1]["id"] == "id-0003"
    assert Marks(tmp_path).of("id-0003") == "real defect"
    with pytest.raises(ConfigError, match="must be one of"):
        mark_reject(marks, reject, "../../etc", "Ada", None)


def test_a_reduced_reject_is_marked_with_the_picture_of_the_sink(tmp_path: Path) -> None:
    result = picture_of(4, (480, 640))
    folder = RejectFolder(tmp_path / "rejects")
    rejects = Rejects(most_bytes=0)
    rejects.add(result)
    [reject] = rejects.of("front")
    with pytest.raises(ConfigError, match="rejects:DIR"):
        mark_reject(Marks(tmp_path / "a"), reject, "unsure", "", folder.folder)
    folder.write(result)
    mark_reject(Marks(tmp_path / "a"), reject, "unsure", "", folder.folder)
    [marked] = (tmp_path / "a" / "unsure").iterdir()
    assert marked.read_bytes() == next(folder.folder.glob("*-00000004.png")).read_bytes()
