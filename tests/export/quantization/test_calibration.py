"""Ranges of tensors on real images, and which images those are."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from listener import Listener
from numpy.typing import NDArray
from torch import Tensor, nn

from edgead.console import Console
from edgead.datasets import Frames, load_frames
from edgead.decision import Threshold
from edgead.errors import ConfigError, DataError
from edgead.export.graph.to_onnx import write_onnx
from edgead.export.quantization import calibration
from edgead.export.quantization.calibration import Calibration, load_images, measure_ranges, warn_of_anomalies
from edgead.export.quantization.entropy import BINS, best_size, narrowed
from edgead.images import encode_png
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgead.train import run_config


class Mean(nn.Module):
    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        maps = frames.float().mean(dim=3) / 255 - 0.25
        return maps.amax(dim=(1, 2)), maps


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_onnx(Mean(), (16, 16), tmp_path / "mean.onnx")
    return tmp_path / "mean.onnx"


def test_ranges_are_those_of_the_values(model: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = Mean()(torch.from_numpy(frames))[1]
    low, high = measure_ranges(model, frames, "minmax", iter)["maps"]
    assert low == pytest.approx(float(expected.min()), abs=1e-5)
    assert high == pytest.approx(float(expected.max()), abs=1e-5)


@pytest.mark.parametrize("method", ["percentile", "entropy"])
@pytest.mark.parametrize("frame", [0, 3])
def test_one_stray_pixel_does_not_widen_the_other_methods_ranges(
    model: Path, method: str, frame: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "PERCENTILE", 99.9)  # of as few pixels as are here
    frames = np.random.default_rng(0).integers(90, 110, (40, 16, 16, 3), dtype=np.uint8)
    usual = measure_ranges(model, frames, "minmax", iter)["maps"]
    frames[frame, 0, 0] = 255
    widest = measure_ranges(model, frames, "minmax", iter)["maps"]
    found = measure_ranges(model, frames, method, iter)["maps"]
    assert widest[1] > 0.7
    assert found[1] < 0.6 * widest[1]
    assert found[1] >= 0.5 * usual[1]


def test_the_entropy_rule_keeps_what_is_evenly_used_and_cuts_long_tails() -> None:
    rng = np.random.default_rng(0)

    def kept(values: NDArray[np.float64]) -> float:
        largest = np.abs(values).max()
        return float(best_size(np.histogram(np.abs(values), BINS, (0, largest))[0]) / BINS * largest)

    assert kept(rng.uniform(-1, 1, 10**6)) > 0.99
    assert 3.5 < kept(rng.normal(size=10**6)) < 5  # of a largest value of about 5
    zeros = np.maximum(rng.normal(size=10**6), 0)
    assert kept(zeros) > 3  # that a ReLU gives zero half of the time is no reason to cut
    assert kept(np.append(rng.normal(size=10**5), 60)) < 6


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match=r'calibration\.method is "best"; it must be one of minmax, entropy'):
        Calibration(method="best")
    with pytest.raises(ConfigError, match=r"calibration\.samples is 3; it must be at least 8"):
        Calibration(samples=3)


def load(run: run_config.RunConfig, console: Console, **options: Any) -> Frames:
    paths = [Path(run.data, name) for name in run.normals]
    return load_images(Calibration(**options), paths, (64, 64), run.pixels, run.seed, console)


def test_training_images_are_the_default_and_are_drawn_with_the_seed(trained: Path) -> None:
    run = run_config.load_run_config(trained)
    console = Listener()
    frames = load(run, console)
    assert len(frames.frames) == len(run.normals)
    assert console.said == [f"calibrating on all {len(run.normals)} images (--calib-samples 128)"]
    few, again = (load(run, Console(), samples=8) for _ in range(2))
    assert len(few.frames) == 8
    assert few.fingerprint == again.fingerprint != frames.fingerprint
    other = load(dataclasses.replace(run, seed=5), Console(), samples=8)
    assert other.fingerprint != few.fingerprint


def test_too_few_images_say_how_many_are_needed(trained: Path, parts: Path, tmp_path: Path) -> None:
    run = run_config.load_run_config(trained)
    images = sorted((parts / "train" / "good").iterdir())
    for image in images[:3]:
        shutil.copy(image, tmp_path)
    with pytest.raises(DataError, match=r"(?s)3 good images.*it needs at least 8, better 128.*--calib-data"):
        load(run, Console(), data=tmp_path)
    for image in images:
        shutil.copy(image, tmp_path)
    assert len(load(run, Console(), data=tmp_path).frames) == len(images)
    (tmp_path / "broken.png").write_bytes(b"not an image")
    console = Listener()
    load(run, console, data=tmp_path)
    assert "broken.png" in console.said[0]


@pytest.mark.parametrize(
    ("threshold", "bound", "anomalies", "named"),
    [
        (0.3, 0.05, 0.9, 5),  # five above the threshold, where one is to be expected
        (0.3, 0.3, 0.9, 0),  # where six are
        (0.3, 0.3, 0.6, 5),  # and yet they score as anomalies do
        (0.3, 0.3, 0.2, 0),  # which says nothing where the model does not see anomalies
        (0.9, 0.05, 1.0, 0),
    ],
)
def test_images_that_score_like_defects_are_named(
    model: Path, tmp_path: Path, threshold: float, bound: float, anomalies: float, named: int
) -> None:
    paths = []
    for index in range(20):
        frame = np.full((16, 16, 3), 240 if index in (4, 7, 9, 11, 13) else 80 + index, np.uint8)
        paths.append(tmp_path / f"{index:02}.png")
        paths[-1].write_bytes(encode_png(frame))
    frames, engine, console = load_frames(paths, (16, 16)), OnnxRuntimeEngine(model), Listener()
    fitted = Threshold(threshold, 19, bound, bound)
    warn_of_anomalies(frames, engine, fitted, np.full(3, anomalies, np.float32), console)
    if named:
        [line] = console.said
        assert f"5 of 20 calibration images score like defects (threshold {threshold})" in line
        assert "04.png (0.691176)" in line
    else:
        assert console.said == []


def test_the_entropy_rule_leaves_ranges_alone_that_have_no_histogram() -> None:
    ranges = {"mask": (-np.inf, 0.0), "zeros": (0.0, 0.0), "broken": (np.nan, np.nan), "x": (-1.0, 9.0)}
    values = np.append(np.random.default_rng(0).normal(size=10**4), 9.0)
    found = narrowed(ranges, [np.zeros((1, 1, 3), np.uint8)], lambda frame: dict.fromkeys(ranges, values))
    assert found["mask"] == ranges["mask"]
    assert found["zeros"] == ranges["zeros"]
    assert np.isnan(found["broken"]).all()
    assert found["x"][0] == -1.0
    assert 2 < found["x"][1] < 6
