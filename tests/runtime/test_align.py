"""Bundles that align frames on the line: decisions where the part lies, `misplaced` where it does not, changeovers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from aligned_parts import SIZE, aligning, lying, part_frame
from level_bundle import make_level_bundle
from numpy.typing import NDArray

import edgead
from edgead.bundle import FORMAT, Bundle, format_of, read_bundle
from edgead.bundle import bundle as bundle_module
from edgead.decision import Verdict
from edgead.errors import BundleError, ConfigError, DataError
from edgead.export.triton import write_triton_model
from edgead.geometry import STRETCH, Geometry
from edgead.geometry.pose import Pose
from edgead.plan.measure import measure
from edgead.runtime.health import Health, HealthLimits
from edgead.runtime.policy import Policy
from edgead.runtime.sources.source import Captured
from edgead.runtime.stream import Stream

POSE, FAR = Pose(-140.0, 0.03, -0.02), Pose(0.0, 0.28, 0.0)
TILED = Geometry((0.22, 0.28, 0.56, 0.44), "letterbox", (2, 3), 0.125)


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose map is the grey level of the aligned part."""
    return make_level_bundle(tmp_path_factory.mktemp("aligned") / "aligned.edgead", geometry=aligning(part_frame()))


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same with a crop, a letterbox and tiles."""
    return make_level_bundle(
        tmp_path_factory.mktemp("aligned") / "tiled.edgead", geometry=aligning(part_frame(), TILED)
    )


@pytest.mark.parametrize("name", ["aligned", "tiled"])
def test_a_defect_has_its_box_on_the_frame_as_it_came(name: str, request: pytest.FixtureRequest) -> None:
    frame = lying(part_frame(defect=True), POSE, TILED.centre)
    rows, columns = np.nonzero(frame[:, :, 0] > 180)
    with edgead.load(request.getfixturevalue(name).path, engine="onnxruntime", shapes=["boxes"]) as inspector:
        result = inspector.inspect(frame)
        assert (result.verdict, result.cause) == (Verdict.FAIL, "")
        [box] = result.to_dict()["boxes"]
        assert abs(box["x"] - columns.min()) <= 6
        assert abs(box["y"] - rows.min()) <= 6
        red = (result.overlay() == (0, 0, 255)).all(axis=2).nonzero()
        assert abs(red[1].mean() - columns.mean()) < 5
        assert inspector.inspect(lying(part_frame(), POSE, TILED.centre)).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (np.full((*SIZE, 3), 90, np.uint8), "not found"),
        (np.random.default_rng(0).integers(0, 90, (*SIZE, 3), dtype=np.uint8), "not found"),
        (lying(part_frame(), FAR), "at most 56 pixels are allowed"),
        (part_frame()[:, :200], "another aspect ratio"),
        (np.full((1, 1, 3), 9, np.uint8), "another aspect ratio"),
        (np.full((5, 7, 3), 9, np.uint8), "not found"),
    ],
    ids=["blank", "noise", "far", "aspect", "one pixel", "tiny"],
)
def test_what_is_not_found_is_unknown(aligned: Bundle, frame: NDArray[np.uint8], words: str) -> None:
    with edgead.load(aligned.path, engine="onnxruntime") as inspector:
        result = inspector.inspect(frame)
        assert (result.verdict, result.cause) == (Verdict.UNKNOWN, "misplaced")
        assert result.reason.startswith("misplaced: ")
        assert words in result.reason
        assert np.isnan(result.score)
        assert not result.mask.any()
        assert result.overlay().shape == frame.shape


def test_a_frame_that_shows_nothing_has_the_cause_that_helps(aligned: Bundle) -> None:
    """Not found, because it is black: the lamp is to be checked, not the part."""
    with edgead.load(aligned.path, engine="onnxruntime") as inspector:
        check = Health(HealthLimits()).check
        for frame, cause in (
            (np.zeros((*SIZE, 3), np.uint8), "black"),
            (np.full((*SIZE, 3), 90, np.uint8), "misplaced"),
        ):
            prepared = inspector.prepare(Captured(frame, "", "camera", 0, 0.0), None, check)
            assert (prepared.cause, prepared.fitted) == (cause, None)
        broken = inspector.prepare(
            Captured(np.full((*SIZE, 3), 90, np.uint8), "torn", "camera", 0, 0.0, cause="unreadable")
        )
        assert (broken.cause, broken.error) == ("unreadable", "torn")


def test_a_stream_counts_misplaced_parts(aligned: Bundle) -> None:
    frames = [part_frame(), lying(part_frame(), FAR), lying(part_frame(defect=True), POSE)]
    with (
        edgead.load(aligned.path, engine="onnxruntime") as inspector,
        Stream(inspector, [frames], Policy(batch=3)) as stream,
    ):
        results = list(stream)
    assert [each.verdict for each in results] == [Verdict.PASS, Verdict.UNKNOWN, Verdict.FAIL]
    snapshot = stream.ledger.snapshot()
    assert snapshot["unknown_by_cause"] == {"misplaced": 1}


def test_a_changeover_looks_for_the_part_again(aligned: Bundle, tiled: Bundle, first: Bundle) -> None:
    """Frames that wait at a swap: one is misplaced for the new bundle alone, and the others are decided."""

    def captured() -> list[Captured]:
        frames = [part_frame(), lying(part_frame(), FAR), lying(part_frame(defect=True), POSE, TILED.centre)]
        return [Captured(frame, "", "camera", number, 0.0) for number, frame in enumerate(frames)]

    with (
        edgead.load(aligned.path, engine="onnxruntime") as whole,
        edgead.load(tiled.path, engine="onnxruntime") as cut,
        edgead.load(first.path, engine="onnxruntime") as stretched,
    ):
        wanted = [(Verdict.PASS, ""), (Verdict.UNKNOWN, "misplaced"), (Verdict.FAIL, "")]
        for before, after in ((stretched, whole), (stretched, cut), (whole, cut)):
            results = after.infer([before.prepare(each) for each in captured()])
            assert [(each.verdict, each.cause) for each in results] == wanted
        results = stretched.infer([stretched.prepare(each) for each in captured()])
        assert [each.verdict for each in results] == [Verdict.PASS, Verdict.PASS, Verdict.FAIL]


def test_older_versions_refuse_it(aligned: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [format_of(each) for each in (STRETCH, TILED, aligned.manifest.geometry)] == [1, 2, FORMAT]
    assert aligned.manifest.format == 3
    monkeypatch.setattr(bundle_module, "FORMAT", 2)
    with pytest.raises(BundleError, match=r"has format 3, .*; this edgead reads up to 2"):
        read_bundle(aligned.path)


def test_a_changed_reference_picture_is_noticed(aligned: Bundle, tmp_path: Path) -> None:
    values = json.loads((aligned.path / "manifest.json").read_text())
    values["geometry"]["align"]["max_shift"] = 0.4
    (tmp_path / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(BundleError, match="was changed after it was written"):
        read_bundle(tmp_path)


def test_who_cannot_align_says_so(aligned: Bundle, tmp_path: Path) -> None:
    with (
        edgead.load(aligned.path, engine="onnxruntime") as inspector,
        pytest.raises(DataError, match="aligns frames, which is done in the host's memory"),
    ):
        inspector.inspect_on_gpu(object())
    with pytest.raises(ConfigError, match="Triton's clients would have to do"):
        write_triton_model(aligned, tmp_path)
    with pytest.raises(ConfigError, match="aligns frames, and plan has no frames that show its part"):
        measure(aligned, "onnxruntime", 1, SIZE)


def test_frames_of_another_size_are_decided_alike(aligned: Bundle) -> None:
    large = np.repeat(np.repeat(lying(part_frame(defect=True), POSE), 3, axis=0), 3, axis=1)
    with edgead.load(aligned.path, engine="onnxruntime") as inspector:
        small, tripled = inspector.inspect(large[::3, ::3]), inspector.inspect(large)
    assert small.verdict is tripled.verdict is Verdict.FAIL
    assert abs(tripled.boxes[0]["x"] - 3 * small.boxes[0]["x"]) <= 9
    assert dataclasses.astuple(tripled.geometry.pose or FAR) == pytest.approx(dataclasses.astuple(POSE), abs=0.3)
