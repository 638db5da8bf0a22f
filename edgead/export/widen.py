"""Convolutions with a few output channels, computed with as many as a CPU's INT8 kernel makes at once."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import helper, numpy_helper

CHANNELS = 16
"""ONNX Runtime's INT8 kernel takes twice the time for 1 to 8 output channels that it takes for 16 (3×3, 32 in)."""
WIDE, NARROW = "/wide", "/narrow"


def widen(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """Give convolutions channels of zeros up to `CHANNELS`, and cut them off behind; the values stay what they are.

    A convolution that is followed by a Relu alone is left: the two are fused, and the Slice would come between.

    Args:
        model: is not changed.
        names: of the nodes to look at.

    Returns:
        a copy, in which the convolution makes ``OUTPUT/wide`` and a Slice named ``NODE/narrow`` the former output.
    """
    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    graph = wider.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    readers: dict[str, list[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        weights = [tensors.get(name) for name in node.input[1:]]
        if node.op_type != "Conv" or node.name not in names or None in weights or _grouped(node):
            continue
        channels = weights[0].dims[0]
        if channels >= CHANNELS or readers.get(node.output[0]) == ["Relu"]:
            continue
        for index, tensor in enumerate(weights, start=1):
            values = numpy_helper.to_array(tensor)
            padding = [(0, CHANNELS - channels), *[(0, 0)] * (values.ndim - 1)]
            node.input[index] = f"{node.name}/{index}{WIDE}"
            graph.initializer.append(numpy_helper.from_array(np.pad(values, padding), node.input[index]))
        limits = {"starts": 0, "ends": channels, "axes": 1}
        for name, value in limits.items():
            graph.initializer.append(numpy_helper.from_array(np.array([value]), f"{node.name}/{name}"))
        output, node.output[0] = node.output[0], node.output[0] + WIDE
        inputs = [node.output[0], *(f"{node.name}/{name}" for name in limits)]
        nodes.append(helper.make_node("Slice", inputs, [output], name=node.name + NARROW))
    graph.ClearField("node")
    graph.node.extend(nodes)
    return wider


def _grouped(node: onnx.NodeProto) -> bool:
    return any(item.name == "group" and item.i > 1 for item in node.attribute)
