"""Quantise a float32 graph to INT8 with explicit Q/DQ. Reasons: docs/adr/0013."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime.quantization as quantization
from onnx import helper
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from edgead.export.graph.sensitive import is_sensitive
from edgead.export.quantization.channel_padding import PADDED, pad_channels
from edgead.export.quantization.placement import MOVES, find_moves, find_residuals, free_main_inputs, share_ranges

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators with a matrix product, which take most of the time."""
_OPERATORS = (*WEIGHTED, "Add")
_PASSIVE = ("Concat", "MaxPool", "Relu", "Resize", "Slice")
"""Operators that move or compare values; ONNX Runtime computes them in INT8 next to INT8 operators."""

Ranges = Mapping[str, tuple[float, float]]
"""Tensor name ↦ lowest and highest value in calibration."""


def quantizable(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes that can be INT8, in order: matrix products, and sums of two branches."""
    constants = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    exact = {output for node in model.graph.node if is_sensitive(node) for output in node.output}

    def suits(node: onnx.NodeProto) -> bool:
        if node.op_type == "ConvTranspose":  # ONNX Runtime's quantiser does not support groups
            return all(item.i == 1 for item in node.attribute if item.name == "group")
        if node.op_type == "Add":
            return not {*node.input} & ({*constants} | exact)
        if node.op_type == "MatMul":  # a product with a stack of matrices is a distance, not a layer
            return all(constants.get(name, 2) == 2 for name in node.input)
        return node.op_type in WEIGHTED

    return [node.name for node in model.graph.node if not is_sensitive(node) and suits(node)]


def to_int8(model: onnx.ModelProto, ranges: Ranges, keep: Collection[str], variant: str) -> onnx.ModelProto:
    """Quantise the inputs and weights of a float32 graph's layers.

    Args:
        model: is not changed.
        ranges: of every float32 tensor.
        keep: names of nodes that stay in float32, in addition to those that are not `quantizable`.
        variant: ``"tensorrt"``: symmetric S8S8, Q/DQ on inputs and weights only, float bias, placed as TensorRT fuses
            them (`edgead.export.quantization.placement`); for every TensorRT since 8. ``"compact"``: the same with
            weights stored as int8; for TensorRT since 10.
            ``"cpu"``: U8S8 with int32 bias, which ONNX Runtime's and OpenVINO's CPU engines run fastest.
    """
    chosen, residuals = {*quantizable(model)} - {*keep}, dict[str, int]()
    cpu = variant == "cpu"
    if cpu:
        model, ranges = _pad(model, chosen, ranges)
        chosen |= _between(model, chosen)
    else:
        residuals = find_residuals(model, chosen, WEIGHTED)
        moves = find_moves(model, chosen, residuals, ranges)
        ranges = share_ranges(model, moves, ranges)
        others = {node.name for node in model.graph.node if node.op_type == "Add"} - residuals.keys()
        chosen = (chosen - others) | moves
    excluded = {node.name for node in model.graph.node} - chosen
    operators = [*_OPERATORS, *(_PASSIVE if cpu else MOVES)]
    options = {
        "WeightSymmetric": True,
        "ActivationSymmetric": not cpu,
        "QuantizeBias": cpu,
        "AddQDQPairToWeight": variant == "tensorrt",
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
    if not cpu:
        free_main_inputs(quantized, residuals)
    quantized.producer_name, quantized.producer_version = model.producer_name, model.producer_version
    return quantized


def _pad(model: onnx.ModelProto, chosen: set[str], ranges: Ranges) -> tuple[onnx.ModelProto, Ranges]:
    """Pad the channels of quantised nodes, except those with exact readers: the Slice would round for them."""
    readers = chosen | _between(model, chosen)
    left = {name for node in model.graph.node if node.name not in readers for name in node.input}
    left |= {name for node in model.graph.node if node.op_type == "Relu" for name in node.input}  # fused with it
    left |= {output.name for output in model.graph.output}
    padded = pad_channels(
        model, [node.name for node in model.graph.node if node.name in chosen and not left & {*node.output}]
    )
    named = [name for node in model.graph.node for name in node.output]
    made = {name for node in padded.graph.node for name in node.output} - {*named}
    found = {name: ranges[name.removesuffix(PADDED)] for name in made}
    return padded, {**ranges, **{name: (min(low, 0.0), max(high, 0.0)) for name, (low, high) in found.items()}}


def _between(model: onnx.ModelProto, chosen: Collection[str]) -> set[str]:
    """Return the passive nodes before a chosen node that can be computed in INT8."""
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
    """Let nodes that stay in float32 read exact values instead of values rounded for INT8 nodes, in place.

    The quantiser drops a Relu if rounding clips at 0 anyway; it is restored for these nodes.
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
