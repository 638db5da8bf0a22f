"""Reads which tensors of an ONNX graph are float16 and which float32, without the onnx package.

TensorRT may not keep these types in a weakly typed network, so the builder asks the file. The types follow from those
of the constants and casts, see `edgead.protobuf` for the wire format: TensorProto.data_type (2) and name (8),
NodeProto.input (1), output (2), op_type (4) and attribute (5), AttributeProto.name (1), i (3) and t (5),
GraphProto.node (1) and initializer (5), ModelProto.graph (7).
"""

from __future__ import annotations

from pathlib import Path

from edgead.errors import BundleError
from edgead.protobuf import every_field, fields

FLOAT32, FLOAT16, OTHER = "float32", "float16", "other"
_KINDS = {1: FLOAT32, 10: FLOAT16}  # TensorProto.DataType
_NO_FLOATS = {
    *("QuantizeLinear", "Shape", "Size", "ArgMax", "ArgMin", "NonZero", "IsNaN", "IsInf"),
    *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
}
"""Operators that read floats and write none."""


def float_types(path: Path) -> dict[str, str]:
    """Return the type of each constant and of each node's outputs: ``float32``, ``float16`` or ``other``.

    Raises:
        BundleError: not an ONNX file.
    """
    types: dict[str, str] = {}
    try:
        for number, graph in fields(memoryview(path.read_bytes())):
            if number != 7:
                continue
            for field, content in fields(graph):
                if field == 5:
                    types[_text(content, 8)] = _tensor_kind(content)
            for field, content in fields(graph):
                if field == 1:
                    types |= _outputs(content, types)
    except (IndexError, ValueError) as error:
        raise BundleError(f"{path} is not an ONNX file.") from error
    return types


def _outputs(node: memoryview, types: dict[str, str]) -> dict[str, str]:
    """Return the types of a node's outputs, given those of its inputs."""
    inputs = [bytes(content).decode() for number, content in fields(node) if number == 1]
    outputs = [bytes(content).decode() for number, content in fields(node) if number == 2]
    operator, attributes = _text(node, 4), [content for number, content in fields(node) if number == 5]
    floats = [types[name] for name in inputs if types.get(name, OTHER) != OTHER]
    kind = floats[0] if floats and operator not in _NO_FLOATS else OTHER
    if operator == "DequantizeLinear":
        kind = types.get(inputs[1], OTHER)
    elif operator == "Cast":
        kind = _KINDS.get(_attribute(attributes, "to", 3), OTHER)
    elif operator in ("Constant", "ConstantOfShape"):
        values = [content for each in attributes for number, content in fields(each) if number == 5]
        named = any(_text(each, 1) == "value_float" for each in attributes) or operator == "ConstantOfShape"
        kind = _tensor_kind(values[0]) if values else FLOAT32 if named else OTHER
    # Only the parts of a split are alike; a second output of another operator holds places.
    rest = kind if operator == "Split" else OTHER
    return {name: rest if place else kind for place, name in enumerate(outputs)}


def _tensor_kind(tensor: memoryview) -> str:
    kind = next((value for number, value in every_field(tensor) if number == 2), 0)
    return _KINDS.get(kind, OTHER) if isinstance(kind, int) else OTHER


def _attribute(attributes: list[memoryview], name: str, field: int) -> int:
    for each in attributes:
        if _text(each, 1) == name:
            return next((value for number, value in every_field(each) if number == field and isinstance(value, int)), 0)
    return 0


def _text(message: memoryview, field: int) -> str:
    return next((bytes(content).decode() for number, content in fields(message) if number == field), "")
