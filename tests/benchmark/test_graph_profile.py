"""The profile of graphs: kinds of nodes against their floors, and constants stored in 16 bits."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import graph_profile as profile


def test_a_kind_is_compared_with_the_larger_of_arithmetic_and_memory() -> None:
    nodes = [
        profile.Node(profile.kind_of("FusedConv"), 6.0, 1e3),
        profile.Node(profile.kind_of("Convolution"), 2.0, 1e3),
        profile.Node(profile.kind_of("FullyConnected"), 1.0, 4e6),
        profile.Node(profile.kind_of("Resize"), 1.0, 5e5),
    ]
    operations = {profile.CONVOLUTION: 4_000_000, profile.PRODUCT: 1_000}
    found = profile.summarise(nodes, operations, peak=1e9, bandwidth=1e9)
    rows = {row["kind"]: (row["nodes"], row["floor_ms"], row["ratio"]) for row in found["kinds"]}
    assert found["total_ms"] == 10
    assert rows == {"convolution": (2, 4.0, 2.0), "matrix product": (1, 4.0, 0.25), "Resize": (1, 0.5, 2.0)}
    [line] = profile.notable("a", "openvino", found)
    assert "Resize × 1 | 1.00 | 10 | 2.0" in line


def test_constants_in_16_bits_give_nearly_the_same(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(512, profile.LARGE // 512)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["y", "w"], ["z"])],
        "product",
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 512])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [4, weights.shape[1]])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    whole, half = tmp_path / "32.onnx", tmp_path / "16.onnx"
    onnx.save(model, whole)
    profile.save_in_half(whole, half)
    assert half.stat().st_size < 0.51 * whole.stat().st_size
    features = np.random.default_rng(1).normal(size=(4, 512)).astype(np.float32)
    outputs = [
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"y": features})[0]
        for path in (whole, half)
    ]
    assert outputs[1] == pytest.approx(outputs[0], abs=0.05)
    assert not np.array_equal(*outputs)
