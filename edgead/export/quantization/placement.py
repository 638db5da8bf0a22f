"""Where Q/DQ pairs stand in TensorRT's form, so that it can fuse what lies between. Reasons: docs/adr/0052.

* Of a sum, only the residual input has a pair: convolution, sum and activation are then one kernel.
* A concatenation has a pair on each input and behind it, and a max pooling where others read its input too; all of one
  scale, so that both move bytes.
* No pair stands between a layer and its activation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import onnx

from edgead.export.graph.sensitive import is_sensitive

MOVES = ("Concat", "MaxPool")
"""Operators that give the same from quantised values as from values that are quantised afterwards."""


WIDEST = 2.0
"""Tensors share a scale if the widest range is at most so many times the narrowest, which then loses one bit."""
Ranges = Mapping[str, tuple[float, float]]


def find_residuals(model: onnx.ModelProto, chosen: Collection[str], layers: Collection[str]) -> dict[str, int]:
    """Return the sums that a layer's kernel can take in: name of the Add ↦ index of its residual input.

    The other input is the output of a quantised layer that nothing else reads. Of two such inputs the later one is
    that, as the main branch is longer than a shortcut's projection.

    Args:
        model: the float32 graph, in topological order.
        chosen: names of the quantised nodes.
        layers: operators of layers.
    """
    reads = Counter(name for node in model.graph.node for name in node.input)
    reads.update(output.name for output in model.graph.output)
    order = {
        node.output[0]: place
        for place, node in enumerate(model.graph.node)
        if node.op_type in layers and node.name in chosen and reads[node.output[0]] == 1
    }
    found = {}
    for node in model.graph.node:
        if node.op_type == "Add" and node.name in chosen and order.keys() & {*node.input}:
            main = max((0, 1), key=lambda index: order.get(node.input[index], -1))
            found[node.name] = 1 - main
    return found


def find_moves(
    model: onnx.ModelProto, chosen: Collection[str], residuals: Mapping[str, int], ranges: Ranges
) -> set[str]:
    """Return the names of concatenations and max poolings whose result only quantised nodes read, with ranges alike.

    Args:
        model: the float32 graph, in topological order.
        chosen: names of the quantised nodes.
        residuals: from `find_residuals`; other sums read exact values.
        ranges: of the tensors.
    """
    exact = {output.name for output in model.graph.output}
    # Masks and the frame's bytes. tensorrt-rtx 1.7.1 ends with an internal error on a pair behind a Cast to float16.
    real = {*ranges} - {node.output[0] for node in model.graph.node if node.op_type == "Cast"}
    found: set[str] = set()
    for node in reversed(model.graph.node):
        moves = node.op_type in MOVES and not is_sensitive(node) and {*node.input, node.output[0]} <= real
        if moves and node.output[0] not in exact:
            found.add(node.name)
        elif node.name in residuals:
            exact.add(node.input[1 - residuals[node.name]])
        elif node.name not in chosen or node.op_type == "Add":
            exact |= {*node.input}
    groups = _connected(model, found)
    alike = set()
    for name, group in groups.items():
        sizes = [max(map(abs, ranges[each])) for each in group]
        if max(sizes) <= WIDEST * min(sizes):
            alike.add(name)
    return {node.name for node in model.graph.node if node.name in found and node.output[0] in alike}


def share_ranges(model: onnx.ModelProto, moves: Collection[str], ranges: Ranges) -> dict[str, tuple[float, float]]:
    """Return the ranges with one for all tensors that such nodes connect."""
    shared = dict(ranges)
    for name, group in _connected(model, moves).items():
        lows, highs = zip(*(ranges[each] for each in group))
        shared[name] = min(lows), max(highs)
    return shared


def _connected(model: onnx.ModelProto, moves: Collection[str]) -> dict[str, set[str]]:
    """Return all tensors of such nodes, each with those that it is connected to, itself included."""
    groups: dict[str, set[str]] = {}
    for node in model.graph.node:
        if node.name in moves:
            group = set[str]().union(*(groups.get(name, {name}) for name in (*node.input, node.output[0])))
            groups.update(dict.fromkeys(group, group))
    return groups


def free_main_inputs(quantized: onnx.ModelProto, residuals: Mapping[str, int]) -> None:
    """Let sums read the exact output of the layer before them, in place, and remove the pairs that nothing reads."""
    graph = quantized.graph
    makers = {node.output[0]: node for node in graph.node}
    for node in graph.node:
        if node.name in residuals:
            main = 1 - residuals[node.name]
            pair = makers.get(node.input[main])
            if pair is not None and pair.op_type == "DequantizeLinear":
                node.input[main] = makers[pair.input[0]].input[0]
    for kind in ("DequantizeLinear", "QuantizeLinear"):
        read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
        kept = [node for node in graph.node if node.op_type != kind or node.output[0] in read]
        graph.ClearField("node")
        graph.node.extend(kept)
    used = {name for node in graph.node for name in node.input}
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    graph.ClearField("initializer")
    graph.initializer.extend(constants)
