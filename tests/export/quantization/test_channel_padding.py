"""Convolutions with few output channels are computed with sixteen; the values stay what they are."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from edgead.export.quantization.channel_padding import pad_channels
from edgead.export.quantization.int8 import to_int8
from edgead.onnx_session import EXACT_INT8

GRAPH = """
    <ir_version: 8, opset_import: ["": 17]>
    few (float[1,3,8,8] x) => (float[1,2,8,8] last) {
        three = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
        both = Concat <axis = 1> (three, x)
        many = Conv <pads = [1, 1, 1, 1]> (both, w1)
        positive = Relu(many)
        last = Conv (positive, w2)
    }"""
RANGES = {"x": (0.0, 1.0), "three": (-3.0, 3.0), "both": (-3.0, 3.0), "many": (-9.0, 9.0), "positive": (0.0, 9.0)}


@pytest.fixture
def model() -> onnx.ModelProto:
    model = onnx.parser.parse_model(GRAPH)
    rng = np.random.default_rng(0)
    for name, shape in {"w0": (3, 3, 3, 3), "b0": (3,), "w1": (8, 6, 3, 3), "w2": (2, 8, 1, 1)}.items():
        values = rng.normal(0, 0.2, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    for node in model.graph.node:
        node.name = f"/{node.output[0]}"
    return onnx.shape_inference.infer_shapes(model)


def run(model: onnx.ModelProto) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.add_session_config_entry(EXACT_INT8, "1")  # as edgead's engine does
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).random((1, 3, 8, 8), np.float32)
    [values] = session.run(None, {"x": x})
    return np.asarray(values)


def test_no_value_changes(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    wider = pad_channels(model, ["/three", "/last"])
    weights = {tensor.name: tuple(tensor.dims) for tensor in wider.graph.initializer}
    assert weights["/three/1/wide"] == (16, 3, 3, 3)
    assert weights["/three/2/wide"] == (16,)
    assert [node.name for node in wider.graph.node if node.op_type == "Slice"] == ["/three/narrow", "/last/narrow"]
    assert np.allclose(run(wider), run(model), atol=1e-6)
    assert model.SerializeToString() == before


def test_the_cpu_form_widens_what_it_rounds_anyway(model: onnx.ModelProto) -> None:
    """Neither what a Relu is fused with, nor the graph's output, which stays as exact as it was."""
    ranges = {**RANGES, "last": (-9.0, 9.0)}
    form = to_int8(model, ranges, (), "cpu")
    assert [node.name for node in form.graph.node if node.op_type == "Slice"] == ["/three/narrow"]
    error = np.abs(run(form) - run(model)).max()
    assert 0 < error < 18 / 255, "one step of the widest range"
    assert not any(node.op_type == "Slice" for node in to_int8(model, ranges, (), "tensorrt").graph.node)
    assert not any(node.op_type == "Slice" for node in to_int8(model, ranges, ["/three"], "cpu").graph.node)
