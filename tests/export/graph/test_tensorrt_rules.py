"""Each rule of TensorRT's parsers: a graph that breaks it, and one that does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from listener import Listener
from onnx import TensorProto, helper, numpy_helper

from edgead.export.graph.tensorrt_rules import find_refusals, warn_of_refusals

FLOAT, INT8 = np.float32, np.int8
SCALE, ZERO = FLOAT(0.1), INT8(0)


def graph(*nodes: onnx.NodeProto, opset: int = 17, **constants: Any) -> onnx.ModelProto:
    """A graph of these nodes behind the cast of the frames to ``x``."""
    cast = helper.make_node("Cast", ["frames"], ["x"], to=TensorProto.FLOAT, name="/Cast")
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    inputs = [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", 8, 8, 3])]
    made = helper.make_graph([cast, *nodes], "g", inputs, [], tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])


def node(operator: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, ["y"], name=f"/part/inner/{operator}", **attributes)


def quantized(scale: Any = SCALE, zero: Any = ZERO, inputs: tuple[str, ...] = ("x", "s", "z")) -> onnx.ModelProto:
    return graph(node("QuantizeLinear", *inputs), s=scale, z=zero)


BROKEN: list[tuple[onnx.ModelProto, str, str]] = [
    (graph(node("Transpose", "frames")), "of every version", "only a Cast may read bytes"),
    (graph(node("Swizzle", "x", domain="com.acme")), "of every version", "those of ONNX itself"),
    (quantized(zero=INT8(3)), "of every version", "zero points must be 0"),
    (quantized(zero=np.uint8(0)), "of every version", "only int8"),
    (quantized(inputs=("x", "s")), "of every version", "only int8"),
    (quantized(inputs=("x", "s")), "8.x", "three inputs"),
    (quantized(scale=FLOAT(0)), "of every version", "positive"),
    (quantized(inputs=("x", "x", "z")), "of every version", "constant and positive"),
    (quantized(scale=np.float16(0.1)), "8.x", "scales must be float32"),
    (quantized(scale=np.full(3, 0.1, FLOAT), zero=INT8(0)), "8.x", "the same length"),
    (
        graph(node("DequantizeLinear", "w", "s", "z"), w=np.ones(3, INT8), s=FLOAT(0.1), z=INT8(0)),
        "8.x",
        "weights must be float32",
    ),
    (
        graph(node("DequantizeLinear", "b", "s", "z"), b=np.ones(3, np.int32), s=FLOAT(0.1), z=np.int32(0)),
        "of every version",
        "no int32 bias",
    ),
    (graph(node("TopK", "x", "k"), k=np.array([3840])), "of every version", "K of TopK"),
    (graph(node("TopK", "x", "x")), "of every version", "K of TopK"),
    (graph(node("Resize", "x", antialias=1)), "8.x and 10.0 to 10.3", "antialias"),
    (graph(node("Gelu", "x")), "8.x", "does not know the operator"),
    (graph(node("STFT", "x")), "8.x to 10.1", "does not know the operator"),
    (graph(node("Relu", "x"), opset=18), "8.6", "operator sets up to 17"),
    (graph(node("Relu", "x"), opset=21), "10.3", "operator sets up to 20"),
]


@pytest.mark.parametrize(("model", "versions", "rule"), BROKEN)
def test_a_broken_rule_is_named_with_its_versions(model: onnx.ModelProto, versions: str, rule: str) -> None:
    [refusal] = [each for each in find_refusals(model) if each.versions == versions and rule in each.rule]
    if "operator sets" in rule:
        return
    operator = model.graph.node[1].op_type
    assert f"{operator} (node '/part/inner/{operator}', in part.inner)" in refusal.describe()
    assert len(refusal.nodes) == 1


@pytest.mark.parametrize(
    "model",
    [
        quantized(),
        quantized(scale=np.full(3, 0.1, FLOAT), zero=np.zeros(3, INT8)),
        graph(node("TopK", "x", "k"), k=np.array([3839])),
        graph(node("Resize", "x", antialias=0)),
        graph(node("Relu", "x")),
    ],
)
def test_what_keeps_the_rules_is_not_refused(model: onnx.ModelProto) -> None:
    assert find_refusals(model) == []


def test_a_constant_node_is_a_constant(tmp_path: Path) -> None:
    scale = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.float16(0.1), "v"))
    model = graph(scale, node("QuantizeLinear", "x", "c", "z"), z=INT8(0))
    assert [refusal.rule for refusal in find_refusals(model)] == ["scales must be float32"]


def test_export_says_what_would_be_refused(tmp_path: Path) -> None:
    console = Listener()
    onnx.save(graph(node("Gelu", "x"), node("Gelu", "x"), opset=20), tmp_path / "model.onnx")
    warn_of_refusals(tmp_path / "model.onnx", console)
    assert console.said == [
        "TensorRT 8.6 would refuse this graph, because it reads operator sets up to 17: this one is of 20",
        "TensorRT 8.x would refuse this graph, because it does not know the operator: "
        "operator Gelu (node '/part/inner/Gelu', in part.inner) and 1 more",
    ]
