"""Engines whose INT8 is wrong, as graphs with Q/DQ: what faulty fusions were reported to do, one fault at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

from edgead.bundle import Golden, Outputs
from edgead.export.quantization.selection import engine_tolerance

FAULTS = ("no activation", "another scale", "an offset")


def golden_of(reference: Golden, forms: list[Outputs]) -> tuple[Golden, list[float]]:
    """Return golden frames with what the judged graphs give, and the limits of scores and maps, as an export does."""
    exact = (reference.scores, reference.maps)
    errors = [max(float(np.abs(form[index] - exact[index]).max()) for form in forms) for index in (0, 1)]
    limits = [engine_tolerance([form[index] for form in forms], errors[index]) + 1e-4 for index in (0, 1)]
    return Golden(reference.frames, *exact, tuple(forms)), limits


def wrong_int8_graphs(model: onnx.ModelProto, places: int) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield graphs with one fault, and the fault's name, at so many places each, from first to last.

    ``no activation``: a Relu is lost when it is merged into the layer before it (NVIDIA/TensorRT#4366); ``another
    scale``: a tensor is read with the scale of a neighbour; ``an offset``: it is read as if zero were another byte.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    activations = [index for index, node in enumerate(model.graph.node) if node.op_type == "Relu"]
    reads = [
        index
        for index, node in enumerate(model.graph.node)
        if node.op_type == "DequantizeLinear" and node.input[0] not in weights and not _of_weights(model, node, weights)
    ]
    for fault, found in zip(FAULTS, (activations, reads, reads)):
        for index in _spread(found, places):
            wrong = onnx.ModelProto()
            wrong.CopyFrom(model)
            _spoil(wrong, wrong.graph.node[index], fault)
            yield fault, wrong


def _of_weights(model: onnx.ModelProto, node: onnx.NodeProto, weights: set[str]) -> bool:
    [maker] = [each for each in model.graph.node if node.input[0] in each.output]
    return maker.input[0] in weights


def _spread(found: list[int], places: int) -> list[int]:
    if not found:
        return []
    return [found[place] for place in sorted(set(np.linspace(0, len(found) - 1, places).round().astype(int)))]


def _spoil(model: onnx.ModelProto, node: onnx.NodeProto, fault: str) -> None:
    if fault == "no activation":
        node.op_type = "Identity"
        return
    place = 1 if fault == "another scale" else 2
    [old] = [each for each in model.graph.initializer if each.name == node.input[place]]
    values = numpy_helper.to_array(old)
    changed = values * values.dtype.type(2) if place == 1 else values + values.dtype.type(16)
    model.graph.initializer.append(numpy_helper.from_array(changed, f"{old.name}_wrong"))
    node.input[place] = f"{old.name}_wrong"
