"""The normal form that quantisation needs: every node has a name, every constant is an initializer."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper


def with_names_and_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which every node has a name and every constant is an initializer."""
    named = onnx.ModelProto()
    named.CopyFrom(model)
    graph, nodes = named.graph, list(named.graph.node)
    graph.ClearField("node")
    for number, node in enumerate(nodes):
        node.name = node.name or f"node_{number}"
        value = _constant_of(node) if node.op_type == "Constant" else None
        if value is None:
            graph.node.append(node)
        else:
            graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
    return named


def _constant_of(node: onnx.NodeProto) -> NDArray[Any] | None:
    (attribute,) = node.attribute
    if attribute.name == "value":
        return np.asarray(numpy_helper.to_array(attribute.t))
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if attribute.name in kinds:
        return np.array(helper.get_attribute_value(attribute), kinds[attribute.name])
    return None
