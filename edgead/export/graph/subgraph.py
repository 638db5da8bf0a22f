"""The part of a model that computes chosen tensors, with a declared input shape."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import helper


def prune(model: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """Return a model that computes these tensors and nothing else. Their shapes are left open."""
    wanted = set(outputs)
    kept: list[onnx.NodeProto] = []
    for node in reversed(model.graph.node):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(_reads(node))
    pruned = onnx.ModelProto()
    pruned.CopyFrom(model)
    graph = pruned.graph
    del graph.node[:], graph.output[:], graph.value_info[:]
    graph.node.extend(reversed(kept))
    weights = [value for value in graph.initializer if value.name in wanted]
    inputs = [value for value in graph.input if value.name in wanted]
    del graph.initializer[:], graph.input[:]
    graph.initializer.extend(weights)
    graph.input.extend(inputs)
    graph.output.extend(helper.make_empty_tensor_value_info(name) for name in outputs)
    return pruned


def _reads(node: onnx.NodeProto) -> set[str]:
    inner = [graph for each in node.attribute for graph in (*each.graphs, *([each.g] if each.HasField("g") else []))]
    return {*node.input, *(name for graph in inner for child in graph.node for name in _reads(child))}


def set_size(model: onnx.ModelProto, name: str, shape: tuple[int | str, ...]) -> None:
    """Declare the shape of an input, in place."""
    [value] = [value for value in model.graph.input if value.name == name]
    kind = value.type.tensor_type.elem_type
    value.CopyFrom(helper.make_tensor_value_info(name, kind, shape))


def computes(path: Path, tensor: str) -> bool:
    """Tell whether a node of the graph in a file computes a tensor."""
    nodes = onnx.load(path, load_external_data=False).graph.node
    return any(tensor in node.output for node in nodes)
