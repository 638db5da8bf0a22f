"""Colour and depth from the files to the decision: train, export, predict, record, benchmark; and what lacks depth."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

import edgead
from edgead.benchmark import benchmark
from edgead.benchmark.report import ImageCounts
from edgead.bundle import MANIFEST, Bundle, manifest_digest, read_bundle
from edgead.console import Console
from edgead.errors import BundleError, ConfigError, DataError, SourceError
from edgead.export import PrecisionOptions, export
from edgead.export.options import Budget, Calibration
from edgead.images import read_depth, read_frame
from edgead.masks import draw_overlay
from edgead.runtime.engines.opening import open_engine
from edgead.runtime.golden import check_golden
from edgead.runtime.health import Health, HealthLimits, limits_from
from edgead.runtime.inspector import Inspector, load
from edgead.runtime.ledger import Ledger
from edgead.runtime.pipeline import run_stream
from edgead.runtime.policy import Policy
from edgead.runtime.predict import collect_images, predict
from edgead.runtime.record import Recorder
from edgead.runtime.result import Result
from edgead.runtime.run import run
from edgead.runtime.sink_worker import SinkWorker
from edgead.runtime.sinks.rejects import RejectFolder
from edgead.runtime.sources import open_source
from edgead.runtime.stream import Stream
from edgead.train import resume, train
from edgead.train.run_config import load_run_config

SETTINGS = ("depth=true", "size=32x48", "multipliers=1", "steps=3", "batch_size=2", "reverse_steps=1")


@pytest.fixture(scope="module")
def rgbd(rgbd_bundle: Bundle) -> Inspector:
    return load(rgbd_bundle.path, engine="onnxruntime")


@pytest.fixture
def run_folder(rgbd_bundle: Bundle) -> Path:
    return rgbd_bundle.path.parent / "run"


def with_range(bundle: Bundle, folder: Path, depth_range: list[float], channels: int = 4) -> Path:
    """A copy whose manifest says another depth range."""
    shutil.copytree(bundle.path, folder)
    values = json.loads((folder / MANIFEST).read_text())
    values["input"] |= {"depth_range": depth_range, "channels": channels}
    (folder / MANIFEST).write_text(json.dumps({**values, "digest": manifest_digest(values)}))
    return folder


def test_what_a_bundle_with_depth_says_and_holds(rgbd_bundle: Bundle, run_folder: Path) -> None:
    bundle = read_bundle(rgbd_bundle.path)
    assert bundle.manifest.shape == (32, 48, 4)
    assert bundle.manifest.input.channels == 4
    assert bundle.manifest.pixels.depth_range == load_run_config(run_folder).depth_range
    golden = bundle.golden()
    assert golden.frames.shape == (4, 32, 48, 4)
    assert golden.frames[..., 3].any()
    sides = onnx.load(bundle.model).graph.input[0].type.tensor_type.shape.dim
    assert [side.dim_value for side in sides[1:]] == [32, 48, 4]
    for name in ("onnxruntime", "openvino"):
        engine = open_engine(name, bundle)
        assert check_golden(bundle, engine).good
        engine.close()


@pytest.mark.parametrize(
    ("depth_range", "channels"), [([0.4], 4), ([0.5, 0.4], 4), ([-1, 1], 4), ([0.4, 0.5], 3), (["a", "b"], 4)]
)
def test_a_range_that_makes_no_sense_is_refused(
    rgbd_bundle: Bundle, tmp_path: Path, depth_range: list[float], channels: int
) -> None:
    with pytest.raises(BundleError, match="is damaged"):
        read_bundle(with_range(rgbd_bundle, tmp_path / "copy", depth_range, channels))


def test_files_and_frames_of_a_depth_camera_give_the_same(rgbd: Inspector, rgbd_parts: Path, tmp_path: Path) -> None:
    folder = rgbd_parts / "test" / "dent"
    images = collect_images([folder])
    results = list(predict(rgbd, images, tmp_path))
    assert [Path(result.path).parent.name for result in results] == ["rgb"] * 3
    colour, depth = read_frame(images.images[0][0]), read_depth(folder / "xyz" / "000.tiff")
    own = rgbd.inspect(edgead.with_depth(colour, depth, rgbd.depth_range))
    assert own.score == results[0].score
    flat = rgbd.inspect(edgead.with_depth(colour, np.where(depth > 0.49, depth, 0.49), rgbd.depth_range))
    assert flat.score != own.score  # the depth is looked at
    assert own.anomaly_map is not None
    expected = draw_overlay(colour, own.anomaly_map, own.mask, own.mask_threshold)
    assert np.array_equal(read_frame(tmp_path / images.images[0][1]), expected)


def test_what_has_no_depth_is_never_decided_on(rgbd: Inspector, rgbd_parts: Path, tmp_path: Path) -> None:
    colour = read_frame(rgbd_parts / "test" / "dent" / "rgb" / "000.png")
    with pytest.raises(DataError, match="needs depth"):
        rgbd.inspect(colour)
    with Stream(rgbd, [[colour]]) as stream:
        [result] = list(stream)
    assert (result.verdict.value, result.cause) == ("UNKNOWN", "unreadable")
    assert "needs depth" in result.reason
    alone = tmp_path / "rgb"
    shutil.copytree(rgbd_parts / "test" / "dent" / "rgb", alone)
    [*results] = predict(rgbd, collect_images([alone]))
    assert {result.verdict.value for result in results} == {"UNKNOWN"}
    assert "xyz/000.tiff (or .tif, .png) does not exist" in results[0].reason
    with pytest.raises(
        SourceError, match=r"needs depth, but the source synthetic delivers only colour\.\n.*docs/depth\.md"
    ):
        open_source("synthetic:", rgbd.pixels)
    with pytest.raises(SourceError, match="needs depth"):
        Stream(rgbd, [open_source("synthetic:")])


def test_a_depth_camera_that_dies_or_freezes_is_unknown(rgbd: Inspector) -> None:
    good = rgbd.bundle.golden().frames[0]
    dead, nearly, most = good.copy(), good.copy(), good.copy()
    dead[:, :, 3] = 0
    nearly[1:, :, 3] = 0
    most[::4, :, 3] = 0
    with Stream(rgbd, [[good, dead, nearly, most]], Policy(health="all")) as stream:
        causes, reasons = zip(*((result.cause, result.reason) for result in stream))
    assert causes == ("", "unreadable", "black", "")
    assert "holds no depth" in reasons[1]
    assert "3% of the pixels have depth, on good parts at least" in reasons[2]
    assert Health(HealthLimits()).check(nearly, nearly)[0] == ""  # limits of a bundle without depth

    limits = limits_from(rgbd.bundle.golden().frames, frozen_after=2.0)
    for moving, stale in ((slice(3, 4), "pixel"), (slice(0, 3), "depth")):
        health = Health(limits)
        frames = np.tile(good, (4, 1, 1, 1))
        frames[:, :, :, moving] ^= np.arange(4, dtype=np.uint8)[:, None, None, None]
        found = []
        for second, frame in enumerate(frames):
            health.look(frame, float(second))
            found.append(health.check(frame, frame)[1])
        assert [bool(reason) for reason in found] == [False, False, True, True]
        assert f"no {stale} has changed for 2.0 s" in found[2]


def test_a_recording_keeps_depth_and_its_range(rgbd: Inspector, rgbd_parts: Path, tmp_path: Path) -> None:
    source = open_source(str(rgbd_parts / "test"), rgbd.pixels)
    recorded: list[Result] = []
    sinks = [SinkWorker(Recorder(tmp_path / "tape", rgbd)), SinkWorker(RejectFolder(tmp_path / "rejects"))]
    rgbd.threshold, before = -1.0, rgbd.threshold
    run_stream(rgbd, source, sinks, Ledger(), on_result=recorded.append)
    replayed: list[Result] = []
    run_stream(rgbd, open_source(f"replay:{tmp_path / 'tape'}", rgbd.pixels), [], Ledger(), on_result=replayed.append)
    rgbd.threshold = before
    assert len(recorded) == 6
    assert [result.score for result in recorded] == [result.score for result in replayed]
    other = dataclasses.replace(rgbd.pixels, depth_range=(0.1, 0.2))
    with pytest.raises(SourceError, match=r"was recorded with the depth range .*; the model has \[0\.1, 0\.2\]"):
        open_source(f"replay:{tmp_path / 'tape'}", other)
    [picture] = (tmp_path / "rejects").glob("*-00000000.depth.png")
    frame = read_frame(rgbd_parts / "test" / "dent" / "rgb" / "000.png", rgbd.pixels)
    assert np.array_equal(read_frame(picture)[:, :, 0], frame[:, :, 3])
    assert np.array_equal(read_frame(picture.with_name(picture.name.replace(".depth", ""))), frame[:, :, :3])


def test_bundles_that_code_depth_differently_share_no_frames(
    rgbd: Inspector, rgbd_bundle: Bundle, bundle: Bundle, rgbd_parts: Path, tmp_path: Path
) -> None:
    other = load(with_range(rgbd_bundle, tmp_path / "other.edgead", [0.3, 0.9]), engine="onnxruntime")
    with Stream(rgbd, [[]]) as stream, pytest.raises(ConfigError, match=r"over \(0\.3, 0\.9\).*cannot share frames"):
        stream.swap(other)
    with pytest.raises(ConfigError, match="reads no depth"):
        run(rgbd_bundle.path, sources=[str(rgbd_parts / "test")], shadow=bundle.path, engine="onnxruntime")


def test_bundles_with_and_without_depth_are_measured_together(
    rgbd_bundle: Bundle, bundle: Bundle, rgbd_parts: Path, tmp_path: Path
) -> None:
    report = benchmark(
        [rgbd_bundle.path, bundle.path], rgbd_parts, engine="onnxruntime", rounds=2, pixel_size=32, out=tmp_path
    )
    assert [row.images for row in report.rows] == [ImageCounts(good=3, defective=3, with_mask=3, skipped=0)] * 2
    assert all(row.latency.latency_ms.p50 > 0 for row in report.rows)


@pytest.mark.long
def test_a_lower_precision(run_folder: Path, tmp_path: Path) -> None:
    made = export(
        run_folder,
        out=tmp_path / "low.edgead",
        precision=PrecisionOptions("int8", calibration=Calibration(8), budget=Budget(1, 1)),
    )
    assert made.manifest.precision == "int8"
    assert made.manifest.pixels.depth_range == load_run_config(run_folder).depth_range
    with load(made.path, engine="onnxruntime") as inspector:
        assert check_golden(inspector.bundle, inspector.engine).good


def test_training_needs_depth_that_can_be_read(rgbd_parts: Path, tmp_path: Path) -> None:
    copy = tmp_path / "dome"
    shutil.copytree(rgbd_parts, copy)
    (copy / "train" / "good" / "xyz" / "000.tiff").unlink()
    said: list[str] = []
    console = Console()
    console.say = said.append  # type: ignore[method-assign]
    settings = (*SETTINGS, "steps=1")
    [folder] = train("transfusion", copy, preset="nano", settings=settings, out=tmp_path / "run", console=console)
    depth_range = load_run_config(folder).depth_range
    assert depth_range is not None
    assert f"depth from {depth_range[0]:g} to {depth_range[1]:g}, in the files' unit" in said
    assert len(load_run_config(folder).normals) == 9
    assert not [line for line in said if "same unit" in line]
    other = copy / "train" / "good" / "xyz" / "001.tiff"
    assert cv2.imwrite(str(other), read_depth(other) * 1000)
    train("transfusion", copy, preset="nano", settings=settings, out=tmp_path / "mixed", console=console)
    [warning] = [line for line in said if "same unit" in line]
    assert "rgb/001.png is 4" in warning
    shutil.rmtree(copy / "train" / "good" / "xyz")
    with pytest.raises(DataError, match=r"None of the 10 .*depth.*\n.*rgb/000\.png has no depth: .*xyz/000\.tiff"):
        train("transfusion", copy, preset="nano", settings=SETTINGS, out=tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(ConfigError, match="Unknown setting 'depth' of draem"):
        train("draem", rgbd_parts, settings=("depth=true",), out=tmp_path / "draem")


def test_a_stopped_run_keeps_its_range(run_folder: Path, tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    shutil.copy(run_folder / "config.json", stopped)
    resume(stopped)
    assert load_run_config(stopped) == load_run_config(run_folder)
    assert (stopped / "weights.safetensors").read_bytes() == (run_folder / "weights.safetensors").read_bytes()
    assert load_run_config(stopped).depth_range is not None
    grid = read_frame(run_folder / "synthetic.png")
    assert grid.shape == (3 * 32, 8 * 48, 3)  # colours, depth, masks
