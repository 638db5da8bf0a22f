"""Downgrade graphs to the operator set that every engine reads.

The converter of onnx fails at Pad, Resize and the reductions on the way down from 18. Graphs rarely use what these
operators gained in 18; without it, their nodes mean the same in 17.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper

OPSET = 17
"""The newest operator set that TensorRT 8.6 (JetPack 6.0) reads."""
IR_VERSION = 8
"""Version of the file format that was current with that operator set."""

NEW_DEFAULTS: dict[str, dict[str, object]] = {
    "Resize": {"antialias": 0, "keep_aspect_ratio_policy": b"stretch"},
    "AveragePool": {"dilations": None},
    "Cast": {"saturate": 1},
    "QuantizeLinear": {"saturate": 1, "block_size": 0, "output_dtype": 0, "precision": 0},
    "DequantizeLinear": {"block_size": 0, "output_dtype": 0},
    "Split": {"num_outputs": None},
    "Pad": {},
    "ScatterElements": {},
    "ScatterND": {},
}
"""Operator ↦ attributes that are newer than `OPSET`, with the value that has no effect; None for any value. If all of
them have that value, the node means the same without them."""


def is_standard(domain: str) -> bool:
    """Tell whether a domain is ONNX's own."""
    return domain in ("", "ai.onnx")


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators that a model is written in."""
    return max((entry.version for entry in model.opset_import if is_standard(entry.domain)), default=1)


def downgrade(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """Rewrite a newer model for `OPSET`, if it uses nothing that came later.

    Returns:
        The model, unchanged if it is not newer or cannot be rewritten, and the operators that prevent it.
    """
    version = opset_of(model)
    if version <= OPSET:
        return model, []
    downgraded = copy.deepcopy(model)
    constants = {value.name: value for value in downgraded.graph.initializer}
    for node in downgraded.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    blocking = sorted({node.op_type for node in downgraded.graph.node if not _downgrade_node(node, version, constants)})
    if blocking:
        return model, blocking
    del downgraded.opset_import[:]
    downgraded.opset_import.append(helper.make_opsetid("", OPSET))
    downgraded.ir_version = min(downgraded.ir_version, IR_VERSION)
    try:
        onnx.checker.check_model(downgraded, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return model, [str(error).splitlines()[0]]
    return downgraded, []


def _downgrade_node(node: onnx.NodeProto, version: int, constants: dict[str, onnx.TensorProto]) -> bool:
    """Rewrite one node in place; tell whether it now means the same in `OPSET`."""
    if any(attribute.type in (attribute.GRAPH, attribute.GRAPHS) for attribute in node.attribute):
        return False
    if not defs.has(node.op_type, max_inclusive_version=OPSET):
        return False
    now = defs.get_schema(node.op_type, max_inclusive_version=version)
    then = defs.get_schema(node.op_type, max_inclusive_version=OPSET)
    if now.since_version == then.since_version:
        return True
    if node.op_type.startswith("Reduce") and "axes" in then.attributes:
        return _axes_to_attribute(node, constants)
    if node.op_type in NEW_DEFAULTS:
        return _drop_defaults(node, then) and _SPECIAL.get(node.op_type, lambda node: True)(node)
    # Other operators gained number types, which the checker finds, or attributes.
    return all(attribute.name in then.attributes for attribute in node.attribute) and node.op_type != "GridSample"


def _axes_to_attribute(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    if len(node.input) > 1 and node.input[1]:
        if node.input[1] not in constants:
            return False
        axes = numpy_helper.to_array(constants[node.input[1]]).astype(np.int64).ravel().tolist()
        if axes:
            node.attribute.append(helper.make_attribute("axes", axes))
    del node.input[1:]
    empty = [attribute for attribute in node.attribute if attribute.name == "noop_with_empty_axes"]
    for attribute in empty:
        node.attribute.remove(attribute)
    return not any(attribute.i for attribute in empty)


def _drop_defaults(node: onnx.NodeProto, then: defs.OpSchema) -> bool:
    for attribute in [each for each in node.attribute if each.name not in then.attributes]:
        defaults = NEW_DEFAULTS[node.op_type]
        value = helper.get_attribute_value(attribute)
        if attribute.name not in defaults:
            return False
        if attribute.name == "dilations" and any(step != 1 for step in value):
            return False
        if defaults[attribute.name] not in (None, value):
            return False
        node.attribute.remove(attribute)
    return True


def _text(node: onnx.NodeProto, name: str) -> str:
    return next((each.s.decode() for each in node.attribute if each.name == name), "")


_SPECIAL: dict[str, Callable[[onnx.NodeProto], bool]] = {
    "Pad": lambda node: len(node.input) < 4 and _text(node, "mode") != "wrap",
    "Resize": lambda node: (
        _text(node, "coordinate_transformation_mode") != "half_pixel_symmetric"
        and not any(attribute.name == "axes" for attribute in node.attribute)
    ),
    "Split": lambda node: len(node.input) > 1,
    "ScatterElements": lambda node: _text(node, "reduction") not in ("max", "min"),
    "ScatterND": lambda node: _text(node, "reduction") not in ("max", "min"),
}
"""Operator ↦ test that its attributes and inputs use nothing newer than `OPSET`."""
