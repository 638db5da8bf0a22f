"""Convolutions with few channels, computed with as many as a CPU's INT8 kernel likes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

IN, OUT = 4, 16
"""ONNX Runtime's kernel takes 4.4 times as long for 3 input channels as for 4, and twice as long for 1 to 8 outputs as
for 16 (3×3, 256×256, one core)."""
WIDE = "/wide"


def widen(model: onnx.ModelProto, inputs: Collection[str], outputs: Collection[str]) -> onnx.ModelProto:
    """Give convolutions channels of zeros; the values stay what they are.

    Args:
        model: is not changed.
        inputs: names of nodes that get input channels up to a multiple of `IN`, by a Pad before them.
        outputs: names of nodes that get output channels up to `OUT`, which a Slice cuts off behind them.

    Returns:
        a copy. The new tensor has the name of the one that it holds with `WIDE` behind it.
    """
    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    graph = wider.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        known = [tensors[name] for name in node.input[1:] if name in tensors]
        if node.op_type != "Conv" or _grouped(node) or len(known) + 1 != len(node.input):
            nodes.append(node)
            continue
        made, channels = known[0].dims[0], known[0].dims[1]
        more_in = -channels % IN if node.name in inputs else 0
        more_out = max(0, OUT - made) if node.name in outputs else 0
        if more_in or more_out:
            _pad_weights(graph, node, known, more_in, more_out)
        if more_in:
            pads = _constant(graph, f"{node.name}/pads", [0, 0, 0, 0, 0, more_in, 0, 0])
            source, node.input[0] = node.input[0], f"{node.name}/input{WIDE}"
            nodes.append(helper.make_node("Pad", [source, pads], [node.input[0]], name=f"{node.name}/pad"))
        nodes.append(node)
        if more_out:
            limits = {"starts": 0, "ends": made, "axes": 1}
            given = [_constant(graph, f"{node.name}/{name}", [value]) for name, value in limits.items()]
            output, node.output[0] = node.output[0], node.output[0] + WIDE
            nodes.append(helper.make_node("Slice", [node.output[0], *given], [output], name=f"{node.name}/narrow"))
    graph.ClearField("node")
    graph.node.extend(nodes)
    return wider


def _pad_weights(
    graph: onnx.GraphProto, node: onnx.NodeProto, known: Sequence[TensorProto], more_in: int, more_out: int
) -> None:
    for index, tensor in enumerate(known, start=1):
        values: NDArray[np.float32] = numpy_helper.to_array(tensor)
        padding = [(0, more_out), (0, more_in), *[(0, 0)] * (values.ndim - 2)][: values.ndim]
        node.input[index] = f"{node.name}/{index}{WIDE}"
        graph.initializer.append(numpy_helper.from_array(np.pad(values, padding), node.input[index]))


def _constant(graph: onnx.GraphProto, name: str, values: Sequence[int]) -> str:
    graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    return name


def _grouped(node: onnx.NodeProto) -> bool:
    return any(item.name == "group" and item.i > 1 for item in node.attribute)
