"""Bundles with a geometry on the line: tiles in batches, one score, boxes in the frame's pixels, changeovers."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from level_bundle import SIDE, frame_of, make_level_bundle
from numpy.typing import NDArray

import edgead
from edgead.bundle import Bundle, read_bundle
from edgead.decision import Verdict
from edgead.errors import ConfigError, DataError
from edgead.geometry import Geometry
from edgead.geometry.tiling import Tiling
from edgead.runtime import sink_worker
from edgead.runtime.engines.opening import open_engine
from edgead.runtime.engines.tiled import TiledEngine, batch_for
from edgead.runtime.frame_inspector import FrameInspector
from edgead.runtime.rules import read_region
from edgead.runtime.sink_worker import SinkWorker
from edgead.runtime.sinks.sink import BaseSink
from edgead.runtime.stream import Stream
from edgead.view.pictures import draw, outline_of

LARGE = Geometry((0.25, 0, 0.5, 1), "letterbox", (3, 4), 0.125)
FRAME = (600, 1600)


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose map is the grey level, of a crop in 3×4 tiles."""
    return make_level_bundle(tmp_path_factory.mktemp("tiles") / "tiled.edgead", geometry=LARGE)


def with_defects(*boxes: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """A grey frame with bright boxes: left, top, right, bottom."""
    frame = np.full((*FRAME, 3), 50, np.uint8)
    for left, top, right, bottom in boxes:
        frame[top:bottom, left:right] = 250
    return frame


class Counting:
    """An engine that remembers its batches."""

    name = "counting"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def infer(self, frames: Any) -> Any:
        self.batches.append(len(frames))
        maps = frames[:, :, :, 0].astype(np.float32)
        return maps.max(axis=(1, 2)), maps

    def close(self) -> None:
        """Nothing is kept open."""


def test_tiles_of_all_frames_go_in_equal_batches() -> None:
    tiling, counting = Tiling(Geometry(None, "stretch", (2, 3), 0.25), (16, 16)), Counting()
    canvases = np.random.default_rng(0).integers(0, 256, (3, *tiling.canvas, 3), dtype=np.uint8)
    scores, maps = TiledEngine(counting, tiling).infer(canvases)
    assert counting.batches == [6, 6, 6]
    np.testing.assert_allclose(maps, canvases[:, :, :, 0], atol=1e-4)
    np.testing.assert_array_equal(scores, canvases[:, :, :, 0].max(axis=(1, 2)))
    counting.batches.clear()
    nine = Tiling(Geometry(None, "stretch", (3, 3)), (16, 16))
    TiledEngine(counting, nine).infer(np.zeros((1, *nine.canvas, 3), np.uint8))
    assert counting.batches == [5, 4]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_one_decision_with_boxes_in_the_frame(tiled: Bundle, engine: str) -> None:
    pytest.importorskip(engine)
    frame = with_defects((600, 200, 660, 240), (100, 100, 200, 200))  # the second lies beside the crop
    with edgead.load(tiled.path, engine=engine, shapes=["boxes"]) as inspector:
        result = inspector.inspect(frame)
        assert inspector.size == (3 * SIDE - 16, 4 * SIDE - 24) == result.anomaly_map.shape
        [box] = result.boxes
        assert (result.verdict, round(result.score)) == (Verdict.FAIL, 250)
        for name, wanted in {"x": 600, "y": 200, "width": 60, "height": 40}.items():
            assert abs(box[name] - wanted) <= 2, box
        assert result.overlay().shape == (*FRAME, 3)
        assert inspector.inspect(with_defects((100, 100, 200, 200))).verdict is Verdict.PASS
        inspector.min_area = 3000
        assert inspector.inspect(frame).verdict is Verdict.PASS
        inspector.min_area = 2000
        assert inspector.inspect(frame).verdict is Verdict.FAIL


def test_defects_at_the_crops_edge_and_over_it(tiled: Bundle) -> None:
    with edgead.load(tiled.path, engine="onnxruntime") as inspector:
        for box in ((400, 0, 440, 30), (1170, 570, 1200, 600), (380, 300, 430, 330)):
            left, top, right, bottom = box
            [found] = inspector.inspect(with_defects(box)).boxes
            wanted = max(400, left), top, min(1200, right) - max(400, left), bottom - top
            assert np.allclose([found[name] for name in ("x", "y", "width", "height")], wanted, atol=2), box


def test_a_region_is_given_in_shares_of_the_frame(tiled: Bundle) -> None:
    frame = with_defects((600, 200, 660, 240))
    size = tiled.manifest.region_size
    assert size == (176, 464)
    with edgead.load(tiled.path, engine="onnxruntime", roi=["0.3,0.3,0.2,0.2"]) as inspector:
        assert inspector.inspect(frame).verdict is Verdict.FAIL
        inspector.region = read_region(["0.5,0,0.5,1"], [], size)
        assert inspector.inspect(frame).verdict is Verdict.PASS
        with pytest.raises(ConfigError, match="must be bool and have"):
            inspector.region = np.ones(inspector.size, np.bool_)


@pytest.mark.parametrize("part", [{"roi": ["0,0,0.2,1"]}, {"ignore": ["0.2,0,0.6,1"]}])
def test_a_region_outside_the_crop_is_refused(tiled: Bundle, part: dict[str, list[str]]) -> None:
    """Every frame would pass, whatever it shows."""
    with pytest.raises(ConfigError, match="every frame would pass"):
        edgead.load(tiled.path, engine="onnxruntime", **part)
    with edgead.load(tiled.path, engine="onnxruntime") as inspector:
        region = read_region(part.get("roi", []), part.get("ignore", []), tiled.manifest.region_size)
        with pytest.raises(ConfigError, match=r"sees of a frame"):
            inspector.region = region


def test_the_live_page_shows_the_defect_where_it_is(tiled: Bundle) -> None:
    with edgead.load(tiled.path, engine="onnxruntime") as inspector:
        frame = with_defects((600, 200, 660, 240))
        result = inspector.inspect(frame)
    numbers = outline_of(result, (300, 800)).strip("MZ").split("L")
    corners = np.array([[int(part) for part in pair.split()] for pair in numbers])
    assert np.allclose(corners.min(axis=0), (375, 333), atol=5)
    assert np.allclose(corners.max(axis=0), (412, 400), atol=5)
    assert draw(result, frame, 400).heat


def test_a_changeover_between_geometries_refits_waiting_frames(tiled: Bundle, first: Bundle) -> None:
    """The stretched bundle sees the whole frame, the cropped one not: what waits at the swap must be fitted again."""
    frame = with_defects((0, 0, 390, 600))
    other = make_level_bundle(tiled.path.parent / "other.edgead", geometry=dataclasses.replace(LARGE, crop=None))
    with (
        edgead.load(tiled.path, engine="onnxruntime") as cropped,
        edgead.load(other.path, engine="onnxruntime") as whole,
        edgead.load(first.path, engine="onnxruntime") as stretched,
    ):
        assert cropped.size == whole.size
        captured = [cropped.prepare(each) for each in _captured(frame)]
        assert [each.verdict for each in whole.infer(captured)] == [Verdict.FAIL]
        captured = [cropped.prepare(each) for each in _captured(frame)]
        assert [each.verdict for each in stretched.infer(captured)] == [Verdict.FAIL]
        captured = [stretched.prepare(each) for each in _captured(frame)]
        assert [each.verdict for each in cropped.infer(captured)] == [Verdict.PASS]


def _captured(frame: NDArray[np.uint8]) -> list[Any]:
    from edgead.runtime.sources.source import Captured

    return [Captured(frame, "", "camera", 0, 0.0)]


def test_a_stream_swaps_from_stretch_to_tiles(tiled: Bundle, first: Bundle) -> None:
    swapped = threading.Event()

    def frames() -> Any:
        for number in range(6):
            if number == 3:
                swapped.wait(10)
            yield with_defects((600, 200, 660, 240))

    with (
        edgead.load(first.path, engine="onnxruntime") as plain,
        edgead.load(tiled.path, engine="onnxruntime") as cut,
        Stream(plain, [frames()]) as stream,
    ):
        results = []
        for result in stream:
            results.append(result)
            if len(results) == 3:
                stream.swap(cut)
                swapped.set()
    assert [each.verdict for each in results] == [Verdict.FAIL] * 6
    assert {each.anomaly_map.shape for each in results[:3]} == {(SIDE, SIDE)}
    assert results[-1].anomaly_map.shape == cut.size
    for box in (results[0].boxes[0], results[-1].boxes[0]):
        assert abs(box["x"] - 600) <= 26
        assert abs(box["y"] - 200) <= 10


class Blocked(BaseSink):
    """A sink that takes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__("blocked")
        self.go, self.results = threading.Event(), list[Any]()

    def write(self, result: Any) -> None:
        self.go.wait(10)
        self.results.append(result)


def test_results_that_wait_for_a_sink_have_bounded_maps(tiled: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stalled sink must not keep a large map for each of 1,024 results; what it gets at last says the same."""
    sink = Blocked()
    worker = SinkWorker(sink)
    with edgead.load(tiled.path, engine="onnxruntime", shapes=["boxes", "contours"]) as inspector:
        results = [inspector.inspect(with_defects((600, 200, 660, 240)), frame_id=number) for number in range(8)]
        monkeypatch.setattr(sink_worker, "LARGEST_WAITING", 3 * results[0].size_bytes)
        for result in results:
            worker.offer(result)
    sink.go.set()
    worker.close()
    assert worker.account()["taken"] == 8
    kept = [result.anomaly_map is not None for result in sink.results]
    assert kept[:3] == [True] * 3
    assert not any(kept[4:])
    assert [each.to_dict() for each in sink.results] == [each.to_dict() for each in results]
    assert all(each.boxes for each in sink.results)


def test_engines_are_opened_for_the_batch_of_tiles(tiled: Bundle, first: Bundle) -> None:
    assert [batch_for(tiled.manifest, frames) for frames in (1, 2)] == [6, 8]
    assert batch_for(first.manifest, 3) == 3


def test_frames_on_a_gpu_cannot_be_cut(tiled: Bundle) -> None:
    inspector = FrameInspector(tiled, open_engine("onnxruntime", tiled))
    with pytest.raises(DataError, match="cuts frames to tiles"):
        inspector.inspect_on_gpu(object())
    inspector.close()


@pytest.mark.parametrize("geometry", [Geometry((0.25, 0, 0.5, 1)), Geometry(None, "letterbox")], ids=Geometry.describe)
def test_frames_on_a_gpu_have_no_region(geometry: Geometry, tmp_path: Path) -> None:
    """They are cropped already: where the region lies on them is not known."""
    bundle = make_level_bundle(tmp_path / "line.edgead", geometry=geometry)
    with edgead.load(bundle.path, engine="onnxruntime", roi=["0.3,0,0.1,1"]) as inspector:
        with pytest.raises(DataError, match="part of the whole frame"):
            inspector.inspect_on_gpu(frame_of(250)[None])
        inspector.region = None
        assert [each.verdict for each in inspector.inspect_on_gpu(frame_of(250)[None])] == [Verdict.FAIL]


def test_a_small_frame_and_a_black_one_have_a_verdict(tiled: Bundle) -> None:
    with edgead.load(tiled.path, engine="onnxruntime") as inspector:
        assert inspector.inspect(np.full((1, 1, 3), 250, np.uint8)).verdict is Verdict.FAIL
        assert inspector.inspect(np.full((2, 3), 50, np.uint8)).verdict is Verdict.PASS
        assert inspector.inspect(frame_of(0)).verdict is Verdict.PASS


def test_older_readers_refuse_a_geometry_and_a_damaged_one_is_not_written(
    tiled: Bundle, first: Bundle, tmp_path: Path
) -> None:
    assert (tiled.manifest.format, first.manifest.format) == (2, 1)
    stored = json.loads((tiled.path / "manifest.json").read_text())["geometry"]
    assert stored == {"crop": [0.25, 0, 0.5, 1], "fit": "letterbox", "tiles": [3, 4], "overlap": 0.125}
    assert "geometry" not in json.loads((first.path / "manifest.json").read_text())
    with pytest.raises(ConfigError, match=r"no program could read it: crop .* inside the frame"):
        make_level_bundle(tmp_path / "bad.edgead", geometry=dataclasses.replace(LARGE, crop=(0.6, 0, 0.5, 1)))
    assert read_bundle(tiled.path).manifest.geometry == LARGE
