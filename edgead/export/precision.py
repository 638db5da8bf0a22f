"""A float32 graph in lower precision: float16 as a typed graph, INT8 as explicit Q/DQ. Why these forms: docs/adr/0014."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime.quantization as quantization
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, version_converter
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from edgead.export.to_onnx import is_sensitive

PRECISIONS = ("fp32", "fp16", "int8", "int8-fp16")
"""``int8`` leaves what is not quantised in float32, ``int8-fp16`` in float16."""
HALF_OPSET = 19
"""The oldest operator set in which Q/DQ have float16 scales; TensorRT reads it from 10.0 on."""
LARGEST_HALF = 65504.0
HEADROOM = 4.0
"""What a float16 tensor may be above the largest value seen in calibration before it overflows."""
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators with a matrix product: where the time goes, and the layers that the gate hands back."""
_TENSORRT = (*WEIGHTED, "Add")
_CPU = (*WEIGHTED, "Add", "Concat", "MaxPool", "Relu")

Ranges = Mapping[str, tuple[float, float]]
"""Tensor name ↦ lowest and highest value in calibration."""


def layers(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes that may be lowered and handed back one by one, in the graph's order."""
    return [node.name for node in model.graph.node if node.op_type in WEIGHTED and not is_sensitive(node)]


def to_int8(model: onnx.ModelProto, ranges: Ranges, keep: Collection[str], form: str) -> onnx.ModelProto:
    """Quantise the inputs and weights of a float32 graph's layers.

    Args:
        model: is not changed.
        ranges: of every float32 tensor.
        keep: names of nodes that stay in float32, beside the sensitive ones.
        form: ``"tensorrt"``: symmetric S8S8, Q/DQ on inputs and weights only, float bias; every TensorRT since 8
            takes it. ``"compact"``: the same with weights stored as int8, which TensorRT takes since 10.
            ``"cpu"``: U8S8 with int32 bias, which ONNX Runtime's and OpenVINO's CPU engines run fastest.
    """
    excluded = [node.name for node in model.graph.node if is_sensitive(node) or node.name in keep]
    cpu = form == "cpu"
    operators = list(_CPU if cpu else _TENSORRT)
    options = {
        "WeightSymmetric": True,
        "ActivationSymmetric": not cpu,
        "QuantizeBias": cpu,
        "AddQDQPairToWeight": form == "tensorrt",
        "OpTypesToExcludeOutputQuantization": [] if cpu else operators,
    }
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    quantizer = QDQQuantizer(
        onnx.shape_inference.infer_shapes(copy),
        per_channel=True,
        reduce_range=False,
        weight_qType=quantization.QuantType.QInt8,
        activation_qType=quantization.QuantType.QUInt8 if cpu else quantization.QuantType.QInt8,
        tensors_range=_as_library_ranges(ranges),
        nodes_to_quantize=[],
        nodes_to_exclude=excluded,
        op_types_to_quantize=operators,
        extra_options=options,
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized: onnx.ModelProto = quantizer.model.model
    quantized.producer_name, quantized.producer_version = model.producer_name, model.producer_version
    return quantized


def _as_library_ranges(ranges: Ranges) -> Any:
    values = {name: tuple(np.float32(limit) for limit in limits) for name, limits in ranges.items()}
    return quantization.calibrate.TensorsData(quantization.CalibrationMethod.MinMax, values)


def overflowing(model: onnx.ModelProto, ranges: Ranges) -> list[str]:
    """Return the nodes that touch a tensor or a constant that float16 cannot hold, with `HEADROOM`."""
    limit = LARGEST_HALF / HEADROOM
    names = {name for name, (low, high) in ranges.items() if max(-low, high) > limit}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = np.abs(numpy_helper.to_array(tensor))
            # A single tiny number is a guard against a division by zero, and must not become zero.
            vanishes = values.size == 1 and values.max() > 0 and np.float16(values.max()) == 0
            if vanishes or (values.size and values.max() > LARGEST_HALF):
                names.add(tensor.name)
    return [node.name for node in model.graph.node if names & {*node.input, *node.output}]


def to_half(model: onnx.ModelProto, keep: Collection[str]) -> onnx.ModelProto:
    """Turn a graph's float32 tensors into float16; its input and outputs stay what they are.

    A node is in float16 but where it is sensitive or in `keep`; casts stand between the two. With Q/DQ in it the graph
    is brought to `HALF_OPSET`, because their scales become float16 too.

    Args:
        model: is not changed.
        keep: names of nodes that stay in float32, beside the sensitive ones.
    """
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        model = version_converter.convert_version(model, HALF_OPSET)
    return _Halving(onnx.shape_inference.infer_shapes(model), keep).run()


class _Halving:
    """One pass over the nodes in order. Every float tensor has one home, where its producer makes it."""

    def __init__(self, model: onnx.ModelProto, keep: Collection[str]) -> None:
        self.model, self.keep = model, keep
        graph = model.graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        values = [*graph.input, *graph.value_info, *graph.output]
        self.floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
        self.floats |= {name for name, tensor in self.constants.items() if tensor.data_type == TensorProto.FLOAT}
        self.outputs = {value.name for value in graph.output}
        self.half: dict[str, bool] = {}
        self.made: dict[tuple[str, bool], str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, onnx.TensorProto] = {}

    def run(self) -> onnx.ModelProto:
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
        half = not (is_sensitive(node) or node.name in self.keep)
        for index, name in enumerate(node.input):
            # Resize takes its region and scales in float32 whatever it resizes.
            wanted = half and not (node.op_type == "Resize" and index > 0)
            if name in self.floats or name in self.constants:
                node.input[index] = self._in(name, wanted)
        for attribute in node.attribute:
            if half and node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
        self.nodes.append(node)
        for index, name in enumerate(node.output):
            if name in self.floats and half:
                self.half[name] = True
                if name in self.outputs:
                    node.output[index] = self.made[name, True] = f"{name}/half"
                    self._cast(f"{name}/half", name, TensorProto.FLOAT)

    def _in(self, name: str, half: bool) -> str:
        """Return the name under which a tensor is there in the wanted type, and see to it that it is."""
        if name in self.constants:
            return self._constant(name, half and name in self.floats)
        if self.half.get(name, False) == half and name not in self.outputs:
            return name
        if (name, half) not in self.made:
            if name in self.outputs and not half:
                return name
            target = f"{name}/{'half' if half else 'single'}"
            self.made[name, half] = target
            self._cast(name, target, TensorProto.FLOAT16 if half else TensorProto.FLOAT)
        return self.made[name, half]

    def _constant(self, name: str, half: bool) -> str:
        target = f"{name}/half" if half else name
        if target not in self.tensors:
            tensor = self.constants[name]
            if half:
                values: NDArray[Any] = numpy_helper.to_array(tensor).astype(np.float16)
                tensor = numpy_helper.from_array(values, target)
            self.tensors[target] = tensor
        return target

    def _cast(self, source: str, target: str, kind: int) -> None:
        self.nodes.append(helper.make_node("Cast", [source], [target], name=f"{target}/Cast", to=kind))
