"""Convert a float32 graph to a typed float16 graph. Reasons: docs/adr/0013."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, helper, numpy_helper, version_converter

from edgead.errors import GateError
from edgead.export.graph.opset import opset_of
from edgead.export.graph.sensitive import is_sensitive
from edgead.export.quantization.accumulation import EXACT
from edgead.export.quantization.int8 import Ranges
from edgead.runtime.engines import first_line

HALF_OPSET = 19
"""The oldest operator set in which Q/DQ have float16 scales; TensorRT reads it from 10.0 on."""
LARGEST_HALF, SMALLEST_HALF = 65504.0, 2.0**-24
HEADROOM = 4.0
"""Factor by which a float16 tensor may exceed the largest value in calibration without overflow."""


def overflowing(model: onnx.ModelProto, ranges: Ranges) -> list[str]:
    """Return the nodes that read or write a tensor or constant beyond the range of float16, with `HEADROOM`."""
    limit = LARGEST_HALF / HEADROOM
    names = {name for name, (low, high) in ranges.items() if max(-low, high) > limit}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            largest = float(np.abs(numpy_helper.to_array(tensor)).max(initial=0))
            # A tiny constant prevents a division by zero, so it must not become zero.
            if largest > LARGEST_HALF or 0 < largest < SMALLEST_HALF:
                names.add(tensor.name)
    return [node.name for node in model.graph.node if names & {*node.input, *node.output}]


def to_float16(model: onnx.ModelProto, keep: Collection[str], *, emulate: bool = False) -> onnx.ModelProto:
    """Convert a graph's float32 tensors to float16; the types of its input and outputs do not change.

    Sensitive nodes and those in `keep` stay in float32, with casts in between. A graph with Q/DQ is converted to
    `HALF_OPSET`, because their scales become float16 too.

    Args:
        model: is not changed.
        keep: names of nodes that stay in float32, beside the sensitive ones.
        emulate: return a float32 graph that rounds every such tensor to float16 and back. On a CPU it shows the
            rounding and overflows of an engine that computes in float16. The typed graph does not: ONNX Runtime and
            OpenVINO compute it in float32 (and ONNX Runtime handles float16 scales of Q/DQ incorrectly).
    """
    if not emulate and any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        model = _to_half_opset(model)
    return _Halving(onnx.shape_inference.infer_shapes(model), keep, emulate).run()


def _to_half_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    if opset_of(model) >= HALF_OPSET:
        return model
    try:
        return version_converter.convert_version(model, HALF_OPSET)
    except RuntimeError as error:
        raise GateError(f"The graph cannot be converted to operator set {HALF_OPSET}: {first_line(error)}.") from error


class _Halving:
    """Converts the nodes in one pass, in order. Every float tensor is stored once, in its producer's type."""

    def __init__(self, model: onnx.ModelProto, keep: Collection[str], emulate: bool) -> None:
        self.model, self.keep, self.emulate = model, keep, emulate
        graph = model.graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        values = [*graph.input, *graph.value_info, *graph.output]
        self.floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
        self.floats |= {name for name, tensor in self.constants.items() if tensor.data_type == TensorProto.FLOAT}
        self.outputs = {value.name for value in graph.output}
        self.scales = {node.input[1] for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
        # Name of the float16 version of a tensor from a float16 node, and the casts so far.
        self.half: dict[str, str] = {}
        self.casts: dict[tuple[str, bool], str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, onnx.TensorProto] = {}

    def run(self) -> onnx.ModelProto:
        for node in self.model.graph.node:
            if any(attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for attribute in node.attribute):
                raise GateError(
                    f"{node.name} ({node.op_type}) contains a subgraph, which cannot be converted to float16.\n"
                    "No bundle was written. Choose --precision int8 or fp32, or export the model without control flow."
                )
        for node in self.model.graph.node:
            self._convert(node)
        result = onnx.ModelProto()
        result.CopyFrom(self.model)
        for field, values in (("node", self.nodes), ("initializer", list(self.tensors.values())), ("value_info", [])):
            result.graph.ClearField(field)
            getattr(result.graph, field).extend(values)
        return result

    def _convert(self, original: onnx.NodeProto) -> None:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        # A node without a float32 input sets its output type by an attribute, as ConstantOfShape does; Cast is below.
        reads = node.op_type == "Cast" or any(name in self.floats for name in node.input)
        half = reads and not (is_sensitive(node) or node.name in self.keep)
        for index, name in enumerate(node.input):
            if name in self.constants:
                # Resize reads its region and scales in float32 whatever it resizes.
                node.input[index] = self._constant(name, half and not (node.op_type == "Resize" and index > 0))
            elif name in self.floats:
                node.input[index] = self._tensor(name, half)
        for attribute in node.attribute:
            to_float = node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT
            if half and to_float and not self.emulate:
                attribute.i = TensorProto.FLOAT16
        self.nodes.append(node)
        for index, name in enumerate(node.output):
            if half and name in self.floats:
                node.output[index] = self._made_in_half(name)

    def _made_in_half(self, name: str) -> str:
        """Record that a float16 node computes a tensor; return the name of the node's output."""
        if self.emulate:
            self._round(name + EXACT, name)
            self.half[name] = name
            return name + EXACT
        self.half[name] = name
        if name in self.outputs:  # which stay float32
            self.half[name] = f"{name}/half"
            self._cast(self.half[name], name, TensorProto.FLOAT)
            self.casts[name, False] = name
        return self.half[name]

    def _tensor(self, name: str, half: bool) -> str:
        """Return the name of a tensor in the wanted type; add a cast if needed."""
        if name in self.half and (half or self.emulate):
            return self.half[name]
        if name not in self.half and not half:
            return name
        if (name, half) not in self.casts:
            target = self.casts[name, half] = f"{name}/{'half' if half else 'single'}"
            if self.emulate:
                self._round(name, target)
            else:
                self._cast(self.half.get(name, name), target, TensorProto.FLOAT16 if half else TensorProto.FLOAT)
        return self.casts[name, half]

    def _constant(self, name: str, half: bool) -> str:
        half = half and name in self.floats
        target = f"{name}/half" if half else name
        if target not in self.tensors:
            tensor = self.constants[name]
            if half:
                values: NDArray[Any] = numpy_helper.to_array(tensor)
                if name in self.scales:  # the scale of a tensor that is almost zero must not become zero
                    values = np.maximum(values, np.finfo(np.float16).smallest_subnormal)
                values = values.astype(np.float16)
                tensor = numpy_helper.from_array(values.astype(np.float32) if self.emulate else values, target)
            self.tensors[target] = tensor
        return target

    def _round(self, source: str, target: str) -> None:
        self._cast(source, f"{target}/rounded", TensorProto.FLOAT16)
        self._cast(f"{target}/rounded", target, TensorProto.FLOAT)

    def _cast(self, source: str, target: str, kind: int) -> None:
        self.nodes.append(helper.make_node("Cast", [source], [target], name=f"{target}/Cast", to=kind))
