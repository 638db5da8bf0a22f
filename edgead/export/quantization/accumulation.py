"""Emulate sums in float16: what a GPU's kernel adds to the rounding of its result. Reasons: docs/adr/0051.

A float16 kernel may round its running sum after every `STEP` products. For a sum of K products these are n = K / STEP
roundings of partial sums, which grow like a random walk; together they are as large as one rounding of a sum of half
of the products that is √n times as coarse. This one rounding is what is emulated.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

STEP = 16
"""Products that a tensor core adds before it rounds (m16n8k16); older kernels take 8, which adds √2 to the error."""
EXACT = "/exact"
"""End of a tensor's name in an emulated graph: a float16 node's result before it is rounded."""
HALF_BITS, SINGLE_BITS = 11, 24
"""Bits of the significand."""


def with_half_sums(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of an emulated float16 graph whose layers with float16 weights also sum in float16.

    Sums of quantised layers stay exact, as they are integers on a device.

    Args:
        model: from `edgead.export.quantization.float16.to_float16` with `emulate`; it is not changed.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    weights = {tensor.name: tensor for tensor in made.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in made.graph.node:
        if not node.output[0].endswith(EXACT) or len(node.input) < 2 or node.input[1] not in weights:
            nodes.append(node)
            continue
        values = numpy_helper.to_array(weights[node.input[1]])
        coarser = bits_lost(products(node, values))
        nodes.extend(_split(made.graph, node, values, coarser) if coarser else [node])
    made.graph.ClearField("node")
    made.graph.node.extend(nodes)
    return made


def products(node: onnx.NodeProto, weight: NDArray[np.float32]) -> int:
    """Return how many products a value of a node's output sums: 0 if it is not a layer with constant weights."""
    given = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    if node.op_type == "Conv":
        return int(np.prod(weight.shape[1:]))
    if node.op_type == "ConvTranspose":  # each output value meets one tap in `strides`
        taps = [math.ceil(size / stride) for size, stride in zip(weight.shape[2:], given.get("strides", [1, 1]))]
        return int(weight.shape[0] * np.prod(taps) / given.get("group", 1))
    if node.op_type == "Gemm":
        return int(weight.shape[1 if given.get("transB", 0) else 0])
    return weight.shape[-2] if node.op_type == "MatMul" and weight.ndim > 1 else 0


def bits_lost(count: int) -> int:
    """Return by how many bits a rounding is coarser to be as large as those of a sum of `count` products, or larger.

    Rounded up to whole bits, the error is 1 to 2 times the modelled one.
    """
    return math.ceil(math.log2(math.sqrt(math.ceil(count / STEP)))) if count > STEP else 0


def _split(
    graph: onnx.GraphProto, node: onnx.NodeProto, weight: NDArray[np.float32], coarser: int
) -> list[onnx.NodeProto]:
    """Return the nodes of a layer in two parts, each with half of the weights, of which the first is rounded."""
    output = node.output[0]
    first = np.random.default_rng(0).random(weight.shape) < 0.5
    parts = []
    for name, chosen in (("first", first), ("rest", ~first)):
        part = onnx.NodeProto()
        part.CopyFrom(node)
        part.name, part.output[0] = f"{node.name}/{name}", f"{output}/{name}"
        part.input[1] = f"{output}/{name}/weights"
        graph.initializer.append(numpy_helper.from_array(np.where(chosen, weight, np.float32(0)), part.input[1]))
        parts.append(part)
    if len(node.input) > 2:  # the bias is added once
        del parts[0].input[2:]
    # Veltkamp's splitting: t − (t − x) with t = (2ᵇ + 1)·x is x without its last b bits, to the nearest.
    factor = f"{output}/factor"
    lost = SINGLE_BITS - HALF_BITS + coarser
    graph.initializer.append(numpy_helper.from_array(np.float32(2**lost + 1), factor))
    steps = [
        ("Mul", [f"{output}/first", factor], f"{output}/scaled"),
        ("Sub", [f"{output}/scaled", f"{output}/first"], f"{output}/away"),
        ("Sub", [f"{output}/scaled", f"{output}/away"], f"{output}/coarse"),
        ("Add", [f"{output}/coarse", f"{output}/rest"], output),
    ]
    return [*parts, *(helper.make_node(kind, inputs, [to], name=to) for kind, inputs, to in steps)]
