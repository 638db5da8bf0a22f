"""Engines: they give the golden outputs, `auto` measures once and remembers, and what cannot run here says why."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgead
from edgead.bundle import Bundle, read_bundle
from edgead.errors import BundleError, ConfigError, DeviceError
from edgead.runtime.engines import auto, open_engine
from edgead.runtime.engines.cuda import find_gpu
from edgead.runtime.engines.tensorrt_build import network_flags, plan_path, precision_flags
from edgead.runtime.golden import check_golden

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="no openvino")


def has_gpu() -> bool:
    try:
        find_gpu()
    except DeviceError:
        return False
    return True


@pytest.fixture
def opened(line_bundle: Path) -> Bundle:
    return read_bundle(line_bundle)


@pytest.mark.parametrize("name", ["onnxruntime", pytest.param("openvino", marks=needs_openvino)])
def test_engine_gives_the_golden_outputs_and_new_arrays(opened: Bundle, name: str) -> None:
    engine = open_engine(name, opened)
    assert check_golden(opened, engine).passed
    frames = opened.golden().frames
    scores, maps = engine.infer(frames[:1])
    kept = maps.copy()
    others, _ = engine.infer(frames)
    np.testing.assert_array_equal(maps, kept)
    assert (scores.shape, scores.dtype, maps.dtype) == ((1,), np.float32, np.float32)
    assert others.shape == (len(frames),)
    engine.close()


@pytest.mark.parametrize("name", ["onnxruntime", pytest.param("openvino", marks=needs_openvino)])
def test_engine_refuses_what_is_no_graph(opened: Bundle, name: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match="cannot read"):
        open_engine(name, Bundle(tmp_path, opened.manifest))


@needs_openvino
def test_auto_measures_once_and_remembers(
    line_bundle: Path, opened: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = auto.choose_engine(opened)
    [entry] = json.loads((tmp_path / "cache" / "edgead" / "engines.json").read_text()).values()
    assert entry["engine"] == first == min(entry["milliseconds"], key=entry["milliseconds"].get)
    assert {"onnxruntime", "openvino"} <= entry["milliseconds"].keys()
    monkeypatch.setattr(auto, "_time_candidates", pytest.fail)
    assert auto.choose_engine(opened) == first
    with edgead.load(line_bundle) as inspector:
        assert inspector.engine.name.startswith(first.partition("-")[0])


def test_auto_measures_again_where_its_notes_are_damaged(opened: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "cache" / "edgead" / "engines.json"
    file.parent.mkdir(parents=True)
    file.write_text("{broken")
    assert auto.choose_engine(opened) in auto.CANDIDATES


def test_auto_never_takes_an_engine_with_other_outputs(opened: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        name = "wrong"

        def infer(self, frames: Any) -> Any:
            return np.zeros(len(frames), np.float32), np.zeros(frames.shape[:3], np.float32)

        def close(self) -> None:
            """Nothing is kept open."""

    right = open_engine("onnxruntime", opened)
    monkeypatch.setattr(auto, "open_engine", lambda name, bundle: right if name == "onnxruntime" else Wrong())
    assert auto.choose_engine(opened) == "onnxruntime"
    monkeypatch.setattr(auto, "open_engine", lambda name, bundle: Wrong())
    with pytest.raises(DeviceError, match="does not give the golden outputs"):
        auto._time_candidates(opened, ["onnxruntime", "openvino"])


def test_unknown_engine_lists_those_that_there_are(opened: Bundle) -> None:
    with pytest.raises(ConfigError, match="auto, onnxruntime, onnxruntime-cuda, openvino, openvino-bf16, tensorrt"):
        open_engine("cudnn", opened)


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_tensorrt_asks_the_driver_before_anything_else(opened: Bundle) -> None:
    with pytest.raises(DeviceError, match="NVIDIA driver"):
        open_engine("tensorrt", opened)


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_onnxruntime_cuda_never_falls_back_to_the_cpu(opened: Bundle) -> None:
    with pytest.raises(DeviceError, match=r"package for CPUs|NVIDIA driver"):
        open_engine("onnxruntime-cuda", opened)


BUILDS = """
import sys, tensorrt_rtx as trt
from edgead.bundle import read_bundle
from edgead.runtime.engines.tensorrt_build import build_plan
print(len(build_plan(read_bundle(sys.argv[1]), trt, trt.Logger(trt.Logger.ERROR))))
"""


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="no tensorrt-rtx, which builds without a GPU"
)
def test_real_builder_builds_a_plan(line_bundle: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(edgead.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", BUILDS, str(line_bundle)], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 10_000


class FakeTrt:
    """The names of a TensorRT version that the builder asks for."""

    def __init__(self, version: str, explicit: bool, strong: bool, weak: bool) -> None:
        self.__version__ = version
        flags = {**({"EXPLICIT_BATCH": 0} if explicit else {}), **({"STRONGLY_TYPED": 1} if strong else {})}
        self.NetworkDefinitionCreationFlag = type("Flag", (), flags)
        self.BuilderFlag = type("BuilderFlag", (), {"FP16": "fp16", "INT8": "int8"} if weak else {})


@pytest.mark.parametrize(
    ("version", "explicit", "strong", "weak", "network", "flags"),
    [
        ("8.6.1", True, False, True, 1, ["fp16", "int8"]),
        ("10.3.0", True, True, True, 0, ["fp16", "int8"]),
        ("10.16.1.11", True, True, True, 2, []),
        ("11.4.0", False, True, False, 2, []),
    ],
)
def test_flags_of_each_tensorrt_version(
    version: str, explicit: bool, strong: bool, weak: bool, network: int, flags: list[str], opened: Bundle
) -> None:
    trt = FakeTrt(version, explicit, strong, weak)
    assert network_flags(trt) == network
    assert precision_flags(trt, "int8") == flags
    assert precision_flags(trt, "fp32") == []
    paths = {plan_path(opened, trt, gpu, "8.7", "12.6") for gpu in ("Orin", "H100")}
    assert len(paths) == 2
    assert {path.suffix for path in paths} == {".plan"}
