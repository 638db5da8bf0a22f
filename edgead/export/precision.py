"""A float32 graph in lower precision: float16 as a typed graph, INT8 as explicit Q/DQ; docs/adr/0013 says why so."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime.quantization as quantization
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, helper, numpy_helper, version_converter
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from edgead.errors import GateError
from edgead.export.opset import version_of
from edgead.export.sensitive import is_sensitive
from edgead.export.widen import WIDE, widen
from edgead.runtime.engines import first_line

PRECISIONS = ("fp32", "fp16", "int8", "int8-fp16")
"""``int8`` leaves what is not quantised in float32, ``int8-fp16`` in float16."""
HALF_OPSET = 19
"""The oldest operator set in which Q/DQ have float16 scales; TensorRT reads it from 10.0 on."""
LARGEST_HALF, SMALLEST_HALF = 65504.0, 2.0**-24
HEADROOM = 4.0
"""What a float16 tensor may be above the largest value seen in calibration before it overflows."""
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators with a matrix product: where the time goes."""
_TENSORRT = (*WEIGHTED, "Add")
_PASSIVE = ("Concat", "MaxPool", "Relu", "Resize", "Slice")
"""Operators that hand values on, which ONNX Runtime computes in INT8 where their neighbours are."""

Ranges = Mapping[str, tuple[float, float]]
"""Tensor name ↦ lowest and highest value in calibration."""


def with_names_and_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph whose nodes all have names and whose constants are initializers; an imported one's need not be."""
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


def quantizable(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes that INT8 is for, in order: matrix products, and sums of two branches."""
    constants = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    exact = {output for node in model.graph.node if is_sensitive(node) for output in node.output}

    def suits(node: onnx.NodeProto) -> bool:
        if node.op_type == "ConvTranspose":  # of which ONNX Runtime's quantiser does not know groups
            return all(item.i == 1 for item in node.attribute if item.name == "group")
        if node.op_type == "Add":
            return not {*node.input} & ({*constants} | exact)
        if node.op_type == "MatMul":  # a product with a stack of matrices is a distance sum rather than a layer
            return all(constants.get(name, 2) == 2 for name in node.input)
        return node.op_type in WEIGHTED

    return [node.name for node in model.graph.node if not is_sensitive(node) and suits(node)]


def to_int8(model: onnx.ModelProto, ranges: Ranges, keep: Collection[str], form: str) -> onnx.ModelProto:
    """Quantise the inputs and weights of a float32 graph's layers.

    Args:
        model: is not changed.
        ranges: of every float32 tensor.
        keep: names of nodes that stay in float32, beside those that are not `quantizable`.
        form: ``"tensorrt"``: symmetric S8S8, Q/DQ on inputs and weights only, float bias; every TensorRT since 8
            takes it. ``"compact"``: the same with weights stored as int8, which TensorRT takes since 10.
            ``"cpu"``: U8S8 with int32 bias, which ONNX Runtime's and OpenVINO's CPU engines run fastest.
    """
    chosen = {*quantizable(model)} - {*keep}
    cpu = form == "cpu"
    if cpu:
        model, ranges = _widen(model, chosen, ranges)
        chosen |= _between(model, chosen)
    excluded = {node.name for node in model.graph.node} - chosen
    operators = [*_TENSORRT, *(_PASSIVE if cpu else ())]
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
        copy,
        per_channel=True,
        reduce_range=False,
        weight_qType=quantization.QuantType.QInt8,
        activation_qType=quantization.QuantType.QUInt8 if cpu else quantization.QuantType.QInt8,
        tensors_range=_as_library_ranges(ranges),
        nodes_to_quantize=[],
        nodes_to_exclude=list(excluded),
        op_types_to_quantize=operators,
        extra_options=options,
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized: onnx.ModelProto = quantizer.model.model
    _read_exactly(model, quantized, excluded - {node.name for node in model.graph.node if node.op_type in _PASSIVE})
    quantized.producer_name, quantized.producer_version = model.producer_name, model.producer_version
    return quantized


def _widen(model: onnx.ModelProto, chosen: set[str], ranges: Ranges) -> tuple[onnx.ModelProto, Ranges]:
    """Widen what is quantised, where nothing reads the exact values: a Slice would have them rounded."""
    readers = chosen | _between(model, chosen)
    left = {name for node in model.graph.node if node.name not in readers for name in node.input}
    left |= {name for node in model.graph.node if node.op_type == "Relu" for name in node.input}  # fused with it
    left |= {output.name for output in model.graph.output}
    wider = widen(model, [node.name for node in model.graph.node if node.name in chosen and not left & {*node.output}])
    named = [name for node in model.graph.node for name in node.output]
    made = {name for node in wider.graph.node for name in node.output} - {*named}
    found = {name: ranges[name.removesuffix(WIDE)] for name in made}
    return wider, {**ranges, **{name: (min(low, 0.0), max(high, 0.0)) for name, (low, high) in found.items()}}


def _between(model: onnx.ModelProto, chosen: Collection[str]) -> set[str]:
    """Return the nodes that hand on values to a chosen node and can do so in INT8."""
    found: set[str] = set()
    wanted: set[str] = set()
    for node in reversed(model.graph.node):
        passive = node.op_type in _PASSIVE and not is_sensitive(node)
        if node.name in chosen or (passive and wanted & {*node.output}):
            wanted |= {*node.input}
            if passive:
                found.add(node.name)
    return found


def _read_exactly(model: onnx.ModelProto, quantized: onnx.ModelProto, names: Collection[str]) -> None:
    """Let nodes that stay in float32 read what was computed, not what was rounded for their neighbours, in place.

    A Relu that was dropped because the rounding cuts at 0 anyway is put back for them.
    """
    graph = quantized.graph
    rounded = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    exact = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    relus = {node.output[0]: node for node in model.graph.node if node.op_type == "Relu"}
    present = {node.name for node in graph.node}
    nodes: list[onnx.NodeProto] = []
    restored: set[str] = set()
    for node in graph.node:
        for index, name in enumerate(node.input if node.name in names else ()):
            source = exact.get(rounded.get(name, ""))
            if source is None:
                continue
            node.input[index] = source
            if source in relus and relus[source].name not in present:
                node.input[index] = f"{source}/exact"
                if source not in restored:
                    restored.add(source)
                    nodes.append(helper.make_node("Relu", [source], [f"{source}/exact"], name=relus[source].name))
        nodes.append(node)
    graph.ClearField("node")
    graph.node.extend(nodes)


def _as_library_ranges(ranges: Ranges) -> Any:
    values = {name: tuple(np.float32(limit) for limit in limits) for name, limits in ranges.items()}
    return quantization.calibrate.TensorsData(quantization.CalibrationMethod.MinMax, values)


def overflowing(model: onnx.ModelProto, ranges: Ranges) -> list[str]:
    """Return the nodes that touch a tensor or a constant that float16 cannot hold, with `HEADROOM`."""
    limit = LARGEST_HALF / HEADROOM
    names = {name for name, (low, high) in ranges.items() if max(-low, high) > limit}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            largest = float(np.abs(numpy_helper.to_array(tensor)).max(initial=0))
            # A tiny number is a guard against a division by zero, and must not become zero.
            if largest > LARGEST_HALF or 0 < largest < SMALLEST_HALF:
                names.add(tensor.name)
    return [node.name for node in model.graph.node if names & {*node.input, *node.output}]


def to_half(model: onnx.ModelProto, keep: Collection[str], *, emulate: bool = False) -> onnx.ModelProto:
    """Turn a graph's float32 tensors into float16; its input and outputs stay what they are.

    A node is in float16 but where it is sensitive or in `keep`; casts stand between the two. With Q/DQ in it the graph
    is brought to `HALF_OPSET`, because their scales become float16 too.

    Args:
        model: is not changed.
        keep: names of nodes that stay in float32, beside the sensitive ones.
        emulate: return a float32 graph instead that rounds every such tensor to float16 and back. On a CPU it shows
            the rounding and the overflows of an engine that computes in float16, which the typed graph does not:
            ONNX Runtime and OpenVINO compute it in float32 (and ONNX Runtime gets float16 scales of Q/DQ wrong).
    """
    if not emulate and any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        model = _to_half_opset(model)
    return _Halving(onnx.shape_inference.infer_shapes(model), keep, emulate).run()


def _to_half_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    if version_of(model) >= HALF_OPSET:
        return model
    try:
        return version_converter.convert_version(model, HALF_OPSET)
    except RuntimeError as error:
        raise GateError(f"The graph cannot be brought to operator set {HALF_OPSET}: {first_line(error)}.") from error


class _Halving:
    """One pass over the nodes in order. Every float tensor has one home, where its producer makes it."""

    def __init__(self, model: onnx.ModelProto, keep: Collection[str], emulate: bool) -> None:
        self.model, self.keep, self.emulate = model, keep, emulate
        graph = model.graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        values = [*graph.input, *graph.value_info, *graph.output]
        self.floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
        self.floats |= {name for name, tensor in self.constants.items() if tensor.data_type == TensorProto.FLOAT}
        self.outputs = {value.name for value in graph.output}
        self.scales = {node.input[1] for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
        # Where a tensor that a float16 node made is found in float16, and what was cast already.
        self.half: dict[str, str] = {}
        self.casts: dict[tuple[str, bool], str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, onnx.TensorProto] = {}

    def run(self) -> onnx.ModelProto:
        for node in self.model.graph.node:
            if any(attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for attribute in node.attribute):
                raise GateError(
                    f"{node.name} ({node.op_type}) holds a graph of its own, which is not turned into float16.\n"
                    "No bundle was written. Take --precision int8 or fp32, or export the model without control flow."
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
        # What reads no float32 tensor makes its output by an attribute, as ConstantOfShape does; Cast is seen to below.
        reads = node.op_type == "Cast" or any(name in self.floats for name in node.input)
        half = reads and not (is_sensitive(node) or node.name in self.keep)
        for index, name in enumerate(node.input):
            if name in self.constants:
                # Resize takes its region and scales in float32 whatever it resizes.
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
        """Note that a float16 node makes a tensor; return the name that it must give it."""
        if self.emulate:
            self._round(f"{name}/exact", name)
            self.half[name] = name
            return f"{name}/exact"
        self.half[name] = name
        if name in self.outputs:  # which stay float32
            self.half[name] = f"{name}/half"
            self._cast(self.half[name], name, TensorProto.FLOAT)
            self.casts[name, False] = name
        return self.half[name]

    def _tensor(self, name: str, half: bool) -> str:
        """Return the name under which a tensor is there in the wanted type, and see to it that it is."""
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
                if name in self.scales:  # those of a tensor that is almost zero would become zero, which is none
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
