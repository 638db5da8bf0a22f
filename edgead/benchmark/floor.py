"""The floor of a row: the least time in which this machine can compute its graph."""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.benchmark.figures import Floor
from edgead.benchmark.peak import bandwidth_per_second, peak_per_second
from edgead.bundle import MODEL, Bundle
from edgead.errors import DeviceError, require
from edgead.geometry.tiling import at_once
from edgead.runtime.engines import cpu_model
from edgead.runtime.engines.opening import runs_on_gpu

Shapes = list[list[int]]


def measure_floor(bundle: Bundle, engine: str, p50: float) -> Floor:
    """Measure the floor of a bundle on an engine, and compare a latency with it.

    Args:
        bundle: the bundle.
        engine: exact name of `edgead.runtime.engine_table.ENGINES`.
        p50: milliseconds of the whole call.

    Raises:
        EdgeadError: ONNX Runtime, which counts the operations, is not installed; or the engine fails.
    """
    on_gpu = runs_on_gpu(engine.partition(":")[0])
    graph = bundle.folder / (MODEL if on_gpu else cpu_model(bundle))
    tiles = bundle.manifest.geometry.count
    calls = math.ceil(tiles / at_once(tiles))  # each reads the weights
    data = math.prod(bundle.manifest.shape) + 4 * (math.prod(bundle.manifest.size) + 1)
    moved = calls * graph.stat().st_size + tiles * data
    operations, peak = tiles * count_operations(bundle), _peak(engine, bundle.manifest.precision)
    bandwidth = None if on_gpu else _bandwidth()
    compute = operations / peak * 1e3
    memory = None if bandwidth is None else moved / bandwidth * 1e3
    floor = max(compute, memory or 0.0)
    return Floor(
        multiply_adds=operations,
        bytes=moved,
        peak_per_second=round(peak),
        bandwidth_per_second=None if bandwidth is None else round(bandwidth),
        compute_ms=round(compute, 4),
        memory_ms=None if memory is None else round(memory, 4),
        floor_ms=round(floor, 4),
        ratio=round(p50 / floor, 3),
    )


_peak = cache(peak_per_second)
_bandwidth = cache(bandwidth_per_second)


def count_operations(bundle: Bundle) -> int:
    """Return the multiply-adds of one frame, or tile, in convolutions and matrix products. Others are not counted."""
    frame = np.zeros((1, *bundle.manifest.shape), np.uint8)
    return sum(operations_by_operator(bundle.content(MODEL), frame).values())


def operations_by_operator(model: bytes, value: NDArray[Any]) -> dict[str, int]:
    """Return the multiply-adds of one inference, by ONNX operator: those of convolutions and matrix products.

    ONNX Runtime runs the graph once as it is written and records the shapes of every operator.

    Args:
        model: the ONNX file's content.
        value: the graph's only input.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        DeviceError: the disk is full.
    """
    ort = require("onnxruntime", "cpu")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder, "shapes"))
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        session.run(None, {session.get_inputs()[0].name: value})
        profile = Path(session.end_profiling())
        try:
            events = json.loads(profile.read_text(encoding="utf-8"))
        except ValueError as error:  # ONNX Runtime does not report a full disk
            raise DeviceError(f"ONNX Runtime's profile {profile} is incomplete: is the disk full?") from error
    found: Counter[str] = Counter()
    for node in (event["args"] for event in events if "output_type_shape" in event.get("args", ())):
        found[node["op_name"]] += _operations(node)
    return dict(found)


def _operations(node: dict[str, Any]) -> int:
    """Return the multiply-adds of a node of ONNX Runtime's profile."""
    inputs, outputs = _shapes(node["input_type_shape"]), _shapes(node["output_type_shape"])
    kind = node["op_name"]
    if kind == "Conv":  # weights: [out, in / groups, …]
        return math.prod(outputs[0]) * math.prod(inputs[1][1:])
    if kind == "ConvTranspose":  # weights: [in, out / groups, …]
        return math.prod(inputs[0]) * math.prod(inputs[1][1:])
    if kind == "MatMul":
        return math.prod(outputs[0]) * inputs[0][-1]
    if kind == "Gemm":
        rows, columns = outputs[0]
        return columns * math.prod(inputs[0]) if rows else 0
    return 0


def _shapes(recorded: list[dict[str, list[int]]]) -> Shapes:
    return [next(iter(each.values()), []) for each in recorded]
