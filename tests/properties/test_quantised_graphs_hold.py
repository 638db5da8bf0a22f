"""Q/DQ, padded channels and float16 on random small graphs: how far they may move an output, by arithmetic alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from settings import few, some

from edgead.export.quantization.channel_padding import pad_channels
from edgead.export.quantization.int8 import to_int8

SIDE, STEPS = 5, 127
"""Of the pictures; of a symmetric INT8 range on each side of 0."""


@dataclass(frozen=True)
class Graph:
    """One convolution with its input, the ranges of its tensors, and what it gives in float64."""

    model: onnx.ModelProto
    x: NDArray[np.float32]
    w: NDArray[np.float32]
    ranges: dict[str, tuple[float, float]]

    def run(self, model: onnx.ModelProto) -> NDArray[np.float32]:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.disable_quant_qdq", "1")  # Q/DQ as written
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {"x": self.x})[0])


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    channels, outputs, kernel = draw(st.integers(1, 5)), draw(st.integers(1, 20)), draw(st.sampled_from([1, 3]))
    rng, scale = np.random.default_rng(draw(st.integers(0, 999))), draw(st.sampled_from([1e-2, 1.0, 30.0]))
    x = (scale * rng.normal(size=(1, channels, SIDE, SIDE))).astype(np.float32)
    w = rng.normal(size=(outputs, channels, kernel, kernel)).astype(np.float32)
    b = rng.normal(size=outputs).astype(np.float32)
    weights = [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")]
    pads = [kernel // 2] * 4
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], name="/conv", pads=pads)
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, count, SIDE, SIDE])]
        for name, count in (("x", channels), ("y", outputs))
    ]
    graph = helper.make_graph([node], "conv", *ends, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    bare = Graph(model, x, w, {})
    y = bare.run(model)
    return Graph(model, x, w, {"x": (float(x.min()), float(x.max())), "y": (float(y.min()), float(y.max()))})


@given(graphs())
@some
def test_padded_channels_change_no_value(graph: Graph) -> None:
    before = graph.run(graph.model)
    after = graph.run(pad_channels(graph.model, ["/conv"]))
    assert after.shape == before.shape
    assert np.allclose(after, before, rtol=1e-5, atol=1e-5 * max(1.0, float(np.abs(before).max())))


@given(graphs(), st.sampled_from(["tensorrt", "compact"]))
@some
def test_int8_is_off_by_its_steps_and_no_more(graph: Graph, variant: str) -> None:
    """Half a step of the input times the weights, half a step of each weight times the input, and their product."""
    step_x = max(map(abs, graph.ranges["x"])) / STEPS
    step_w = np.abs(graph.w).max(axis=(1, 2, 3)) / STEPS
    fan = graph.w[0].size
    bound = (
        0.5 * step_x * np.abs(graph.w).sum(axis=(1, 2, 3))
        + 0.5 * step_w * fan * float(np.abs(graph.x).max())
        + 0.25 * step_x * step_w * fan
    )
    lowered = to_int8(graph.model, graph.ranges, (), variant)
    assert sum(node.op_type == "QuantizeLinear" for node in lowered.graph.node) >= 1
    error = np.abs(graph.run(lowered) - graph.run(graph.model)).max(axis=(0, 2, 3))
    assert (error <= 1.01 * bound + 1e-5).all()
    assert error.max() > 0  # else nothing was quantised


@given(graphs())
@few
def test_what_is_kept_in_float_is_exact(graph: Graph) -> None:
    for variant in ("tensorrt", "compact", "cpu"):
        kept = to_int8(graph.model, graph.ranges, ["/conv"], variant)
        assert np.array_equal(graph.run(kept), graph.run(graph.model))


@given(graphs())
@some
def test_outputs_beyond_the_range_are_clipped_by_the_cpu_form_alone(graph: Graph) -> None:
    """Its outputs have 256 levels of their range; a value beyond becomes the last one, and does not wrap around."""
    low, high = graph.ranges["y"]
    half = {**graph.ranges, "y": (low / 2, high / 2)}
    step = (max(high, 0) - min(low, 0)) / 2 / 255
    found = graph.run(to_int8(graph.model, half, (), "cpu"))
    assert found.max() <= max(high / 2, 0) + 2 * step + 1e-5
    assert found.min() >= min(low / 2, 0) - 2 * step - 1e-5
