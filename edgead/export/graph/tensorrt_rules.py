"""Which TensorRT versions would refuse a graph: the rules of the parsers of 8.6 to 11, checked without TensorRT.

The rules are read from NVIDIA's onnx-tensorrt, branches 8.6-GA and 10.1-GA (`docs/operators.md` and the importer of
Q/DQ), from the documentation of 10.3 and 11, and from what tensorrt-rtx refuses. A graph that passes may still be
refused; `edgead doctor --build` on the device tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from edgead.console import Console
from edgead.runtime.engines.onnx_nodes import Node

OPSETS = {"8.6": 17, "10.3": 20, "11": 25}
"""Newest operator set that a version reads, where it is known."""
LARGEST_K = 3840
QDQ = ("QuantizeLinear", "DequantizeLinear")
_NAMES = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil Celu Clip
Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout
Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gemm GlobalAveragePool
GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization GRU HardSwish HardSigmoid
Identity If ImageScaler InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log
LogSoftmax Loop LRN LSTM LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min Mod Mul
Neg NonMaxSuppression NonZero Not OneHot Or Pad ParametricSoftplus Pow PRelu QuantizeLinear RandomNormal
RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RNN
RoiAlign Round ScaledTanh Scan Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size
Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK
Transpose Trilu Unsqueeze Upsample Where Xor
"""
OPERATORS_8 = frozenset(_NAMES.split())
"""What TensorRT 8.6 reads."""
OPERATORS_10 = OPERATORS_8 | {"CastLike", "DeformConv", "Gelu", "Hardmax", "Mish"}
"""What TensorRT 10.1 reads."""


@dataclass(frozen=True)
class Refusal:
    """One rule that a graph breaks.

    Attributes:
        versions: of TensorRT, for people: ``"8.x"``, ``"of every version"``.
        rule: the requirement.
        nodes: descriptions of the nodes that break it.
    """

    versions: str
    rule: str
    nodes: tuple[str, ...]

    def describe(self) -> str:
        """Describe it in a line."""
        more = f" and {len(self.nodes) - 1} more" if len(self.nodes) > 1 else ""
        return f"TensorRT {self.versions} would refuse this graph, because {self.rule}: {self.nodes[0]}{more}"


@dataclass
class _Graph:
    """A graph with its constants and uint8 inputs."""

    model: onnx.ModelProto
    constants: dict[str, TensorProto] = field(default_factory=dict)
    bytes_inputs: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.constants = {tensor.name: tensor for tensor in self.model.graph.initializer}
        for node in self.model.graph.node:
            if node.op_type == "Constant":
                values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
                self.constants.update(dict.fromkeys(node.output, values[0]) if values else {})
        self.bytes_inputs = {
            value.name
            for value in self.model.graph.input
            if value.type.tensor_type.elem_type == TensorProto.UINT8 and value.name not in self.constants
        }

    def constant(self, node: NodeProto, index: int) -> TensorProto | None:
        """An input of a node, if present and constant."""
        return self.constants.get(node.input[index]) if len(node.input) > index else None


Rule = Callable[[_Graph, NodeProto], bool]


def _attribute(node: NodeProto, name: str, default: int) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), default)


def _reads_bytes(graph: _Graph, node: NodeProto) -> bool:
    return node.op_type != "Cast" and bool(graph.bytes_inputs & set(node.input))


def _has_offset(graph: _Graph, node: NodeProto) -> bool:
    zero = graph.constant(node, 2)
    return node.op_type in QDQ and zero is not None and bool(np.any(numpy_helper.to_array(zero)))


def _is_not_int8(graph: _Graph, node: NodeProto) -> bool:
    zero, data = graph.constant(node, 2), graph.constant(node, 0)
    kinds = {zero.data_type if zero else TensorProto.UINT8}  # ONNX's default
    if node.op_type == "DequantizeLinear" and data is not None:
        kinds.add(data.data_type)
    return node.op_type in QDQ and kinds != {TensorProto.INT8}


def _has_bad_scale(graph: _Graph, node: NodeProto) -> bool:
    scale = graph.constant(node, 1)
    return node.op_type in QDQ and (scale is None or not np.all(numpy_helper.to_array(scale) > 0))


def _has_half_scale(graph: _Graph, node: NodeProto) -> bool:
    scale = graph.constant(node, 1)
    return node.op_type in QDQ and scale is not None and scale.data_type != TensorProto.FLOAT


def _has_other_length(graph: _Graph, node: NodeProto) -> bool:
    scale, zero = graph.constant(node, 1), graph.constant(node, 2)
    if node.op_type not in QDQ or scale is None or zero is None:
        return False
    return bool(np.prod(scale.dims) != np.prod(zero.dims))


def _has_large_k(graph: _Graph, node: NodeProto) -> bool:
    if node.op_type != "TopK":
        return False
    k = graph.constant(node, 1)
    return k is None or int(numpy_helper.to_array(k).max()) >= LARGEST_K


RULES: tuple[tuple[str, str, Rule], ...] = (
    ("of every version", "only a Cast may read bytes", _reads_bytes),
    (
        "of every version",
        "operators must be those of ONNX itself",
        lambda graph, node: node.domain not in ("", "ai.onnx"),
    ),
    ("of every version", "zero points must be 0", _has_offset),
    ("of every version", "only int8 is quantised, no uint8 and no int32 bias", _is_not_int8),
    ("of every version", "scales must be constant and positive", _has_bad_scale),
    ("of every version", f"K of TopK must be constant and below {LARGEST_K}", _has_large_k),
    ("8.x", "scale and zero point must have the same length", _has_other_length),
    ("8.x", "Q and DQ need three inputs", lambda graph, node: node.op_type in QDQ and len(node.input) < 3),
    ("8.x", "scales must be float32", _has_half_scale),
    (
        "8.x",
        "weights must be float32 with Q and DQ behind them, not int8",
        lambda graph, node: node.op_type == "DequantizeLinear" and node.input[0] in graph.constants,
    ),
    (
        "8.x and 10.0 to 10.3",
        "Resize cannot antialias",
        lambda graph, node: node.op_type == "Resize" and _attribute(node, "antialias", 0) == 1,
    ),
    ("8.x", "it does not know the operator", lambda graph, node: node.op_type in OPERATORS_10 - OPERATORS_8),
    (
        "8.x to 10.1",
        "it does not know the operator",
        lambda graph, node: not node.domain and node.op_type not in OPERATORS_10,
    ),
)
"""Versions that refuse, their requirement, and the test whether a node breaks it."""


def find_refusals(model: onnx.ModelProto) -> list[Refusal]:
    """Return the rules that a graph breaks, each with its nodes in the graph's order."""
    graph = _Graph(model)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    newest = [
        Refusal(version, f"it reads operator sets up to {most}", (f"this one is of {opset}",))
        for version, most in OPSETS.items()
        if opset > most
    ]
    return newest + list(_broken(graph))


def _broken(graph: _Graph) -> Iterator[Refusal]:
    for versions, text, rule in RULES:
        broken = [node for node in graph.model.graph.node if rule(graph, node)]
        nodes = [Node(node.name, node.op_type, node.domain, next(iter(node.output), "")) for node in broken]
        if nodes:
            yield Refusal(versions, text, tuple(node.describe() for node in nodes))


def warn_of_refusals(path: Path, console: Console) -> None:
    """Report which TensorRT versions would refuse the graph in a file."""
    for refusal in find_refusals(onnx.load(path)):
        console.say(refusal.describe())
