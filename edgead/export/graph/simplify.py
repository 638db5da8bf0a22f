"""Simplify a graph: fold constants and batch norms, remove unused nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper


def simplify(path: Path) -> None:
    """Simplify a graph in place; its operators stay standard ONNX, its nodes keep their names.

    ONNX Runtime's basic level does most of the work: it folds constants and batch norms after convolutions, and removes
    repeated and unused nodes. Neither it nor torch's exporter folds batch norms after transposed convolutions, so this
    is done first.
    """
    model = onnx.load(path)
    fold_batch_norms(model)
    onnx.save(model, path)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    written = onnx.load(path)
    used = {node.domain for node in written.graph.node}
    opsets = [
        entry for entry in written.opset_import if entry.domain in used
    ]  # ONNX Runtime lists all domains that it knows
    del written.opset_import[:]
    written.opset_import.extend(opsets)
    written.producer_name, written.producer_version = model.producer_name, model.producer_version
    onnx.save(written, path)


def fold_batch_norms(model: onnx.ModelProto) -> None:
    """Fold every batch norm after a convolution (transposed or not) into its weights, in place."""
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    uses: dict[str, int] = {output.name: 1 for output in graph.output}
    for node in graph.node:
        for name in node.input:
            uses[name] = uses.get(name, 0) + 1
    for norm in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        before = makers.get(norm.input[0])
        names = [*norm.input[1:], *(before.input[1:] if before else [])]
        if (
            before is None
            or before.op_type not in ("Conv", "ConvTranspose")
            or uses[norm.input[0]] != 1
            or any(name not in weights for name in names)
        ):
            continue
        scale, shift, mean, variance = (numpy_helper.to_array(weights[name]) for name in norm.input[1:])
        factor = scale / np.sqrt(variance + _attribute(norm, "epsilon", 1e-5))
        weight = numpy_helper.to_array(weights[before.input[1]])
        groups = _attribute(before, "group", 1) if before.op_type == "ConvTranspose" else 0
        folded = _scale_outputs(weight, factor, groups)
        bias = numpy_helper.to_array(weights[before.input[2]]) if len(before.input) > 2 else 0.0
        renewed = [before.input[0]]
        for kind, values in (("weight", folded), ("bias", (bias - mean) * factor + shift)):
            name = f"{norm.name}/{kind}"
            graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
            renewed.append(name)
        del before.input[:]
        before.input.extend(renewed)
        before.output[0] = norm.output[0]
        graph.node.remove(norm)


def _scale_outputs(weight: NDArray[Any], factor: NDArray[Any], groups: int) -> NDArray[Any]:
    """Scale a convolution's output channels: axis 0, or of a transposed one (`groups` > 0) axis 1 within a group."""
    if not groups:
        return np.asarray(weight * factor.reshape(-1, *[1] * (weight.ndim - 1)))
    grouped = weight.reshape(groups, -1, *weight.shape[1:])
    return np.asarray(grouped * factor.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))).reshape(weight.shape)


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((onnx.helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)
