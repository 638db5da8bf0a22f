"""A bundle whose score tells which frame it saw and which bundle decided: the highest grey level, plus an offset."""

from __future__ import annotations

import ctypes
import importlib.util
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import edgead
from edgead.bundle import MODEL, Bundle, Golden, format_of, read_bundle, write_bundle
from edgead.bundle.manifest import DataRecord, InputRecord, Manifest, ParityRecord, StoredThreshold
from edgead.bundle.provenance import TrainingRecord
from edgead.geometry import STRETCH, Geometry
from edgead.runtime.engines.checked import CheckedEngine, check
from edgead.runtime.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine, Target
from edgead.runtime.engines.opening import open_engine
from edgead.runtime.result import Result

SIDE = 64
LEVELS = np.arange(0, 250, 25)
"""Grey levels of `frames`; a frame's score is its level, so that two frames never have the same."""


def frame_of(level: int) -> NDArray[np.uint8]:
    """``(64, 64, 3) uint8``, all of one grey level."""
    return np.full((SIDE, SIDE, 3), level, np.uint8)


def make_level_bundle(
    folder: Path,
    offset: float = 0.0,
    golden_error: float = 0.0,
    bit_depth: int = 16,
    geometry: Geometry | None = None,
) -> Bundle:
    """Write a bundle. Convolutions that change nothing make an inference long enough to be interrupted.

    Args:
        folder: of the bundle.
        offset: added to score and map.
        golden_error: by which the golden outputs are wrong.
        bit_depth: of 16-bit images.
        geometry: how frames are brought to the graph.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_model(folder / MODEL, offset)
    frames = np.stack([frame_of(level) for level in (0, 50, 100, 250)])
    maps = frames.mean(axis=3, dtype=np.float32) + np.float32(offset + golden_error)
    manifest = Manifest(
        format=format_of(geometry or STRETCH),
        name=folder.name.removesuffix(".edgead"),
        method="level",
        preset="test",
        config={},
        category="grey",
        input=InputRecord(SIDE, SIDE, bit_depth),
        precision="fp32",
        threshold=StoredThreshold(130.0 + offset, 0, 1.0, 1.0),
        mask_threshold=130.0 + offset,
        parity=ParityRecord(frames=4, score_error=0.0, map_error=0.0, tolerance=0.01, map_tolerance=0.01),
        data=DataRecord(),
        training=TrainingRecord(),
        created="2025-01-01T00:00:00+00:00",
        edgead="0.1.0",
        stored_geometry=geometry,
    )
    write_bundle(folder, manifest, Golden(frames, maps.max(axis=(1, 2)), maps))
    return read_bundle(folder)


def teaching(method: str, folder: Path) -> tuple[str, ...]:
    """Return the settings that a method needs beside its size: of a student, a bundle that it learns from."""
    return (f"teacher={make_level_bundle(folder / 'teacher.edgead').path}",) if method.startswith("student") else ()


def _write_model(path: Path, offset: float) -> None:
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(np.float32(offset), "offset"), numpy_helper.from_array(np.array([1]), "one")]
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["c0"], perm=[0, 3, 1, 2]),
    ]
    for number, shape in enumerate(((16, 3, 3, 3), (16, 16, 3, 3), (1, 16, 3, 3))):
        scale = 1e-9 if number == 2 else 0.1
        weights.append(numpy_helper.from_array(rng.normal(0, scale, shape).astype(np.float32), f"w{number}"))
        nodes.append(helper.make_node("Conv", [f"c{number}", f"w{number}"], [f"c{number + 1}"], pads=[1] * 4))
    nodes += [
        helper.make_node("ReduceMean", ["pixels"], ["level"], axes=[3], keepdims=0),
        helper.make_node("Squeeze", ["c3", "one"], ["work"]),
        helper.make_node("Add", ["level", "work"], ["worked"]),
        helper.make_node("Add", ["worked", "offset"], ["maps"]),
        helper.make_node("ReduceMax", ["maps"], ["scores"], axes=[1, 2], keepdims=0),
    ]
    inputs = [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", SIDE, SIDE, 3])]
    outputs = [
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N"]),
        helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["N", SIDE, SIDE]),
    ]
    graph = helper.make_graph(nodes, "level", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="no openvino")
ENGINES = [
    "onnxruntime",
    "bound buffers",
    pytest.param("openvino", marks=needs_openvino),
    pytest.param("openvino:hint=throughput", marks=needs_openvino),
]


OFFSETS = {"first": 0.0, "second": 1000.0}


class HostMemory:
    """A GPU's memory in that of the host, in the place of `edgead.runtime.engines.cuda.Cuda`; copies end at once."""

    handle = 0

    def __init__(self) -> None:
        self._kept: list[NDArray[np.uint8]] = []

    def allocate(self, size: int) -> int:
        self._kept.append(np.empty(size, np.uint8))
        return int(self._kept[-1].ctypes.data)

    def allocate_host(self, shape: tuple[int, ...], dtype: Any) -> tuple[NDArray[Any], int]:
        array = np.empty(shape, dtype)
        return array, array.ctypes.data

    def upload(self, device: int, host: NDArray[Any]) -> None:
        ctypes.memmove(device, host.ctypes.data, host.nbytes)

    def download(self, host: NDArray[Any], device: int) -> None:
        ctypes.memmove(host.ctypes.data, device, host.nbytes)

    def move(self, target: int, source: int, size: int) -> None:
        ctypes.memmove(target, source, size)

    def used(self) -> AbstractContextManager[None]:
        return nullcontext()

    def refuse_foreign(self, address: int) -> None:
        """All memory is its own."""

    follow = refuse_foreign

    def synchronize(self) -> None:
        """Nothing is pending."""

    close = synchronize


def open_any(name: str, bundle: Bundle) -> CheckedEngine:
    """An engine by name; ``bound buffers`` is what runs on CUDA, on the CPU provider."""
    if name == "bound buffers":
        memory: Any = HostMemory()
        target = Target(memory, "CPUExecutionProvider", {}, "cpu")
        return check(OnnxRuntimeCudaEngine(bundle.model, (SIDE, SIDE, 3), (1, 3), target), bundle)
    return open_engine(name, bundle, batch=3)


def numbered(count: int, pause: float = 0.0) -> Iterator[NDArray[np.uint8]]:
    """Frames whose level follows from their number."""
    for number in range(count):
        time.sleep(pause)
        yield frame_of(level_of(number))


def level_of(number: int) -> int:
    return int(LEVELS[number * 7 % len(LEVELS)])


def is_its_own(result: Result) -> bool:
    return abs(result.score - level_of(result.frame_id) - OFFSETS[result.bundle]) < 0.01


def scores_of(path: str, engine: str) -> list[float]:
    """Score the frames of all levels; for processes that were spawned, which import this module alone."""
    with edgead.load(path, engine=engine) as inspector:
        return [inspector.inspect(frame_of(level)).score for level in LEVELS]
