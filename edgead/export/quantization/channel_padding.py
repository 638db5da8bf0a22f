"""Pad convolutions with few output channels to the width of a CPU's INT8 kernel, which is faster."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

CHANNELS = 16
"""ONNX Runtime's kernel takes twice as long for 1 to 8 output channels as for 16 (3×3, 32 in, 256×256, one core)."""
PADDED = "/wide"


def pad_channels(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """Pad convolutions with output channels of zeros up to `CHANNELS`, and slice them off after it; no value changes.

    Args:
        model: is not changed.
        names: of the nodes to consider. Grouped convolutions are not padded.

    Returns:
        A copy. The convolution computes ``OUTPUT/wide``, and a Slice ``NODE/narrow`` the former output.
    """
    padded = onnx.ModelProto()
    padded.CopyFrom(model)
    graph = padded.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []

    def constant(name: str, values: NDArray[np.generic]) -> str:
        graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    for node in graph.node:
        nodes.append(node)
        known = [numpy_helper.to_array(tensors[name]) for name in node.input[1:] if name in tensors]
        grouped = any(item.name == "group" and item.i > 1 for item in node.attribute)
        if node.op_type != "Conv" or node.name not in names or grouped or len(known) + 1 != len(node.input):
            continue
        channels = len(known[0])
        if channels >= CHANNELS:
            continue
        for index, values in enumerate(known, start=1):
            padding = [(0, CHANNELS - channels), *[(0, 0)] * (values.ndim - 1)]
            node.input[index] = constant(f"{node.name}/{index}{PADDED}", np.pad(values, padding))
        limits = {"starts": 0, "ends": channels, "axes": 1}
        given = [constant(f"{node.name}/{name}", np.array([value], np.int64)) for name, value in limits.items()]
        output, node.output[0] = node.output[0], node.output[0] + PADDED
        nodes.append(helper.make_node("Slice", [node.output[0], *given], [output], name=f"{node.name}/narrow"))
    graph.ClearField("node")
    graph.node.extend(nodes)
    return padded
