"""Inspecting frames: fields, conversions, failures as verdicts."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import edgead
from edgead.bundle import MODEL, Bundle
from edgead.decision import Verdict
from edgead.errors import BundleError, ConfigError, DataError, DeviceError
from edgead.files import sha256
from edgead.images import encode_png, fit_frame, read_frame
from edgead.runtime.engines.opening import open_engine
from edgead.runtime.inspector import Inspector
from edgead.runtime.sources import Captured


@pytest.fixture(scope="module")
def inspector(bundle: Bundle) -> Inspector:
    return edgead.load(bundle.path, engine="onnxruntime")


@pytest.fixture(scope="module")
def frame(parts: Path) -> NDArray[np.uint8]:
    return read_frame(parts / "test" / "stain" / "000.png")


def test_a_result_has_every_field(inspector: Inspector, frame: NDArray[np.uint8]) -> None:
    before = time.monotonic()
    result = inspector.inspect(frame, source_id="cam", frame_id=7)
    assert math.isfinite(result.score)
    assert result.verdict in (Verdict.PASS, Verdict.FAIL)
    assert result.threshold == inspector.threshold
    assert result.anomaly_map is not None
    assert (result.anomaly_map.shape, result.anomaly_map.dtype) == ((64, 64), np.float32)
    assert (result.mask.shape, result.mask.dtype) == ((256, 256), np.bool_)
    assert (result.source_id, result.frame_id, result.engine) == ("cam", 7, "onnxruntime-cpu")
    assert before <= result.t_capture <= time.monotonic()
    assert set(result.latency_ms) == {"source", "queue", "fit", "infer", "post", "total"}
    parts_sum = sum(result.latency_ms[name] for name in ("source", "queue", "fit", "infer", "post"))
    assert result.latency_ms["total"] == pytest.approx(parts_sum, abs=1e-6)
    assert json.loads(json.dumps(result.to_dict()))["verdict"] == result.verdict.value


def test_inspect_is_fit_and_engine_and_nothing_else(
    inspector: Inspector, bundle: Bundle, frame: NDArray[np.uint8]
) -> None:
    scores, maps = open_engine("onnxruntime", bundle).infer(fit_frame(frame, (64, 64))[None])
    result = inspector.inspect(frame)
    assert result.score == scores[0]
    assert np.array_equal(result.anomaly_map, maps[0])  # type: ignore[arg-type]


def test_frames_of_other_forms_and_sizes(inspector: Inspector, frame: NDArray[np.uint8]) -> None:
    expected = inspector.inspect(frame).score
    original = frame.copy()
    assert inspector.inspect(np.dstack([frame, frame[:, :, 0]])).score == expected
    assert inspector.inspect(frame.astype(np.uint16) << 8).score == expected
    assert inspector.inspect(frame[:, ::-1][:, ::-1]).score == expected  # a view that is not contiguous
    assert np.array_equal(frame, original)
    large = inspector.inspect(np.zeros((1080, 1920), np.uint8))
    assert large.mask.shape == (1080, 1920)
    with pytest.raises(DataError, match="not float32"):
        inspector.inspect(frame.astype(np.float32))


def test_results_do_not_share_memory(inspector: Inspector, frame: NDArray[np.uint8]) -> None:
    first = inspector.inspect(frame)
    kept = first.anomaly_map.copy()  # type: ignore[union-attr]
    inspector.inspect(np.zeros_like(frame))
    assert np.array_equal(first.anomaly_map, kept)  # type: ignore[arg-type]


def test_the_mask_is_where_the_map_is_high(inspector: Inspector, frame: NDArray[np.uint8]) -> None:
    result = inspector.inspect(frame)
    result.anomaly_map = np.zeros((64, 64), np.float32)
    result.anomaly_map[16:32, 16:32] = 1
    result.mask_threshold, result.score, result.threshold, result.verdict = 0.5, 1.0, 0.5, Verdict.FAIL
    assert result.mask[70:120, 70:120].all()
    assert not result.mask[:56].any()
    assert not result.mask[140:].any()


def test_the_threshold_decides(bundle: Bundle, frame: NDArray[np.uint8]) -> None:
    assert edgead.load(bundle.path, threshold=-1.0).inspect(frame).verdict is Verdict.FAIL
    assert edgead.load(bundle.path, threshold=2.0).inspect(frame).verdict is Verdict.PASS
    with pytest.raises(ConfigError, match="finite"):
        edgead.load(bundle.path, threshold=math.nan)


class Gives:
    """An engine that gives what it is told to, or raises it."""

    name = "odd"

    def __init__(self, outputs: Any) -> None:
        self.outputs, self.closed = outputs, 0

    def infer(self, frames: NDArray[np.uint8]) -> Any:
        if isinstance(self.outputs, Exception):
            raise self.outputs
        return self.outputs

    def close(self) -> None:
        self.closed += 1


GOOD, SOUND = np.zeros(1, np.float32), np.zeros((1, 64, 64), np.float32)


def odd_map(value: float) -> NDArray[np.float32]:
    values = SOUND.copy()
    values[0, 63, 63] = value
    return values


@pytest.mark.parametrize(
    ("outputs", "cause", "reason"),
    [
        (DeviceError("the device is gone"), "failed", "the device is gone"),
        (RuntimeError("driver"), "failed", "The engine odd failed: driver"),
        (MemoryError(), "failed", "MemoryError"),
        ((np.full(1, np.nan, np.float32), SOUND), "score", "score is not finite"),
        ((np.full(1, -np.inf, np.float32), SOUND), "score", "score is not finite"),
        ((GOOD, odd_map(np.nan)), "score", "map is not finite"),
        ((GOOD, odd_map(np.inf)), "score", "map is not finite"),
        ((GOOD, odd_map(-np.inf)), "score", "map is not finite"),
        ((GOOD.astype(np.float64), SOUND), "failed", r"returned scores float64 \(1,\)"),
        ((GOOD[:0], SOUND), "failed", r"returned scores float32 \(0,\)"),
        ((GOOD[None], SOUND), "failed", r"returned scores float32 \(1, 1\)"),
        ((GOOD, SOUND[:, :32]), "failed", r"maps float32 \(1, 32, 64\)"),
        ((GOOD, SOUND[:, None]), "failed", r"maps float32 \(1, 1, 64, 64\)"),
        ((GOOD, SOUND.astype(np.float16)), "failed", "maps float16"),
        (None, "failed", "returned no scores and maps"),
        ((GOOD, SOUND, SOUND), "failed", "returned no scores and maps"),
    ],
)
def test_a_failure_is_unknown_and_never_pass(
    bundle: Bundle, frame: NDArray[np.uint8], outputs: Any, cause: str, reason: str
) -> None:
    inspector = Inspector(bundle, Gives(outputs))
    result = inspector.judge(Captured(frame, "", "cam", 3, time.monotonic()))
    assert (result.verdict, result.cause) == (Verdict.UNKNOWN, cause)
    assert re.search(reason, result.reason)
    assert (result.source_id, result.frame_id) == ("cam", 3)
    assert not result.mask.any()
    assert json.dumps(result.to_dict(), allow_nan=False)


def test_a_frame_that_could_not_be_had_is_unknown(inspector: Inspector) -> None:
    result = inspector.judge(Captured(None, "the camera is gone", "cam", 0, time.monotonic()))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, "the camera is gone")
    assert math.isnan(result.score)
    assert result.to_dict()["score"] is None


def test_engines_that_are_not_there_and_graphs_that_are_none(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Unknown engine 'gpu'"):
        edgead.load(bundle.path, engine="gpu")
    (tmp_path / MODEL).write_bytes(b"not a graph")
    files = {**bundle.manifest.files, MODEL: sha256(tmp_path / MODEL)}
    broken = Bundle(tmp_path, dataclasses.replace(bundle.manifest, files=files))
    with pytest.raises(BundleError, match="cannot read"):
        open_engine("onnxruntime", broken)
    for frames in (np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 64, 64, 3)), np.zeros((0, 64, 64, 3), np.uint8)):
        with pytest.raises(DataError, match=r"takes uint8 frames \[N, 64, 64, 3\], not "):
            edgead.load(bundle.path, engine="onnxruntime").engine.infer(frames)


def test_the_public_api_is_what_it_says() -> None:
    assert {name: getattr(edgead, name) for name in edgead.__all__}
    with pytest.raises(AttributeError, match="no attribute 'train_everything'"):
        edgead.train_everything  # noqa: B018


MESSAGES = {
    "threshold": "[Tt]hreshold|between 0 and 1",
    "region": "region|mask",
    "min_area": "area",
    "shapes": "shape|boxes",
}
LIMITS = {
    "threshold": (math.nan, math.inf, None, "much", "fpr:nan", "fpr:1", "", True, [0.5], 10**400),
    "region": (np.zeros((64, 64), np.bool_), np.ones((8, 8), np.bool_), np.ones((64, 64), np.uint8), "0,0,1,1", True),
    "min_area": (-1, 1.5, math.nan, "3", None, True),
    "shapes": ("boxes", ("circles",), None, 3, [["boxes"]]),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in LIMITS.items() for value in values])
def test_what_makes_no_sense_is_refused_when_it_is_set_as_at_load(bundle: Bundle, name: str, value: Any) -> None:
    inspector = Inspector(bundle, Gives((GOOD, SOUND)))
    before = getattr(inspector, name)
    with pytest.raises(ConfigError, match=MESSAGES[name]):
        setattr(inspector, name, value)
    assert getattr(inspector, name) is before
    if (name, value) != ("threshold", None):  # of a call it means: the bundle's own
        with pytest.raises(ConfigError, match=MESSAGES[name]):
            Inspector(bundle, Gives((GOOD, SOUND)), **{name: value})


def test_what_makes_sense_is_taken_as_at_load(bundle: Bundle) -> None:
    region = np.ones((64, 64), np.bool_)
    settings: dict[str, Any] = {"threshold": "fpr:0.3", "region": region, "min_area": np.int64(3), "shapes": ["boxes"]}
    first, second = Inspector(bundle, Gives(None), **settings), Inspector(bundle, Gives(None))
    for name, value in settings.items():
        setattr(second, name, value)
        np.testing.assert_array_equal(getattr(second, name), getattr(first, name))
    region[:] = False  # the caller's array is the caller's
    assert second.region is not None
    assert second.region.all()
    with pytest.raises(ValueError, match="read-only"):
        second.region[:] = False


WRONG: dict[str, tuple[Any, str]] = {
    "another name than a text": ({"engine": None}, "Unknown engine 'None'"),
    "a text for a list of regions": ({"roi": "0,0,1,1"}, r"roi must be a list, not a string. Write  roi=\['0,0,1,1'\]"),
    "a path for a list of regions": ({"roi": Path("a.png")}, r"Write  roi=\['a.png'\]"),
    "a mask for a list of regions": ({"roi": np.ones((4, 4), np.bool_)}, "roi must be a list of strings, not ndarray"),
    "a text for a list to ignore": ({"ignore": "0,0,1,0.1"}, "ignore must be a list"),
    "numbers for a region": ({"roi": [(0, 0, 1, 1)]}, "neither a mask image nor x,y,width,height"),
    "a number of text": ({"batch": "2"}, "batch must be a whole number of at least 1, not '2'"),
    "more frames than memory": ({"batch": 10**9}, "batch must be 1,024 at most, not 1000000000"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_as_documented_is_refused_and_not_a_traceback(bundle: Bundle, name: str) -> None:
    arguments, words = WRONG[name]
    with pytest.raises(ConfigError, match=words):
        edgead.load(bundle.path, **{"engine": "onnxruntime", **arguments})


def test_a_region_may_be_the_path_of_a_mask(bundle: Bundle, tmp_path: Path) -> None:
    white = np.full((64, 64), 255, np.uint8)
    (tmp_path / "white.png").write_bytes(encode_png(white))
    with edgead.load(bundle.path, engine="onnxruntime", roi=[tmp_path / "white.png"]) as inspector:
        assert inspector.region is not None
        assert inspector.region.all()


@pytest.mark.parametrize("rule", ["roi", "ignore"])
def test_a_mask_of_another_shape_than_the_frames_is_refused(bundle: Bundle, tmp_path: Path, rule: str) -> None:
    """Stretched over the frame, it let defects pass in a place that nobody had marked."""
    mask = np.zeros((96, 128), np.uint8)
    mask[:48] = 255
    (tmp_path / "mask.png").write_bytes(encode_png(mask))
    with pytest.raises(ConfigError, match=r"128×96 has an aspect ratio of 1\.33; the training images had 1\.00"):
        edgead.load(bundle.path, engine="onnxruntime", **{rule: [tmp_path / "mask.png"]})


def test_a_number_of_numpy_numbers_a_frame(inspector: Inspector, frame: NDArray[np.uint8]) -> None:
    result = inspector.inspect(frame, frame_id=np.int64(7))  # type: ignore[arg-type]
    assert json.loads(json.dumps(result.to_dict()))["frame_id"] == 7


@pytest.mark.parametrize("given", [{"source_id": None}, {"source_id": Path("a")}, {"frame_id": "7"}, {"frame_id": -1}])
def test_a_place_that_no_sink_could_write_is_refused(
    inspector: Inspector, frame: NDArray[np.uint8], given: dict[str, Any]
) -> None:
    """The result itself failed, in each sink."""
    with pytest.raises(ConfigError, match=f"{next(iter(given))} must be"):
        inspector.inspect(frame, **given)


def test_a_matrix_is_a_grey_frame(inspector: Inspector, frame: NDArray[np.uint8]) -> None:
    """It always has two sides: the process ended with a stack overflow."""
    grey = np.ascontiguousarray(frame[:, :, 0])
    assert inspector.inspect(grey.view(np.matrix)).score == inspector.inspect(grey).score


def test_a_path_in_place_of_a_frame_names_the_way_to_read_it(inspector: Inspector, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not PosixPath\. A file is read with  edgead\.images\.read_frame"):
        inspector.inspect(tmp_path)  # type: ignore[arg-type]


def test_an_overlay_is_drawn_on_frames_only(inspector: Inspector, frame: NDArray[np.uint8]) -> None:
    """Shares of white became an almost black picture."""
    result = inspector.inspect(frame)
    for wrong in (frame / 255, "part.png"):
        with pytest.raises(DataError, match="A frame must"):
            result.overlay(wrong)  # type: ignore[arg-type]
    grey = np.ascontiguousarray(frame[:, :, 0])
    assert (result.overlay(grey) == result.overlay(np.dstack([grey] * 3))).all()


def test_a_closed_inspector_says_so(bundle: Bundle, frame: NDArray[np.uint8]) -> None:
    engine = Gives((GOOD, SOUND))
    with Inspector(bundle, engine) as inspector:
        assert inspector.inspect(frame).verdict is not Verdict.UNKNOWN
    inspector.close()
    assert engine.closed == 1
    name = bundle.path.stem  # another one on emulated machines
    with pytest.raises(DeviceError, match=rf"The inspector of {name} is closed\. Load the bundle again"):
        inspector.inspect(frame)
    result = inspector.judge(Captured(frame, "", "cam", 3, time.monotonic()))
    assert (result.verdict, result.cause) == (Verdict.UNKNOWN, "failed")
    with pytest.raises(ConfigError, match=f"{name} is closed"):
        next(iter(inspector.stream([frame])))
    assert repr(inspector) == f"<Inspector {name} on odd, closed>"


def test_what_is_shown_is_short(bundle: Bundle, inspector: Inspector, frame: NDArray[np.uint8]) -> None:
    result = inspector.inspect(frame, source_id="cam", frame_id=7)
    assert re.fullmatch(r"<Result (PASS|FAIL) cam#7: score \S+, threshold \S+>", repr(result))
    assert re.fullmatch(rf"<Inspector {bundle.path.stem} on onnxruntime-cpu, threshold \S+>", repr(inspector))
    assert result == result
    assert result != inspector.inspect(frame)
