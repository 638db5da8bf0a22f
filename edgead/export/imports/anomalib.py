"""anomalib's exported models: find the raw score and map before anomalib normalises and clamps them.

anomalib 2.x exports ``pred_score``, ``pred_label``, ``anomaly_map`` and ``pred_mask``. Score and map are
``clamp((raw − threshold) / (max − min) + 0.5, 0, 1)`` with constants in the graph; versions differ in how they treat
constants that were never set. A new threshold needs raw values: the clamp makes all values beyond those of anomalib's
validation images equal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from edgead.errors import ModelError

SCORE, MAP = "pred_score", "anomaly_map"
THROUGH = ("Identity", "Cast", "Clip", "Min", "Max", "Reshape", "Squeeze", "Unsqueeze", "Flatten")
"""Operators that at most clip, cast or reshape their first input; the search continues there."""
SEARCH_DEPTH = 16
"""Most operators between a head and its raw value."""


@dataclass(frozen=True)
class AnomalibHead:
    """One output of an exported model.

    Attributes:
        raw: the tensor before normalisation; the output itself if there is no normalisation.
        threshold: the raw value that becomes 0.5, or that a label compares with if there is no normalisation; None if
            the model has neither.
        spread: anomalib's divisor (highest minus lowest validation value); None without normalisation.
        cut: the value of the output above which anomalib's label or mask is set, 1 − sensitivity if it is normalised;
            None if the model has no label or mask.
    """

    raw: str
    threshold: float | None = None
    spread: float | None = None
    cut: float | None = None

    @property
    def limit(self) -> float | None:
        """The raw value above which anomalib decides for a defect; None if the model does not decide."""
        if self.threshold is None or self.spread is None or self.cut is None:
            return self.cut
        return self.threshold + (self.cut - 0.5) * self.spread


class _Graph:
    """A graph that can be searched from outputs to inputs, with the values of constant tensors."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.maker = {name: node for node in model.graph.node for name in node.output}
        self.weights = {value.name: value for value in model.graph.initializer}
        self.known: dict[str, NDArray[np.generic] | None] = {}

    def constant(self, name: str) -> NDArray[np.generic] | None:
        """Return the value of a tensor that does not depend on the input; None for others."""
        if name not in self.known:
            self.known[name] = None  # ends the search in a graph with a cycle
            self.known[name] = self._evaluate(name)
        return self.known[name]

    def _evaluate(self, name: str) -> NDArray[np.generic] | None:
        if name in self.weights:
            return np.asarray(numpy_helper.to_array(self.weights[name]))
        node = self.maker.get(name)
        if node is None:
            return None
        given = {each: self.constant(each) for each in node.input if each}
        if any(value is None for value in given.values()):
            return None
        opsets = {entry.domain: entry.version for entry in self.model.opset_import}
        found = ReferenceEvaluator(node, opsets=opsets).run(None, given)
        return np.asarray(found[list(node.output).index(name)])

    def number(self, name: str) -> float | None:
        value = self.constant(name)
        return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None


def find_heads(model: onnx.ModelProto) -> tuple[AnomalibHead | None, AnomalibHead | None]:
    """Return the heads of image score and pixel map; None for a head that the model lacks.

    Raises:
        ModelError: the outputs are not those of an anomalib export.
    """
    outputs = [value.name for value in model.graph.output]
    if SCORE not in outputs and MAP not in outputs:
        raise ModelError(
            f"Not an anomalib 2.x export: its outputs are {', '.join(outputs)}, without {SCORE} and "
            f"{MAP}.\nExport it again with anomalib 2.x, or import it with --from onnx --map NAME (docs/import.md)."
        )
    graph = _Graph(model)
    score, anomaly_map = (_find_raw(graph, name) if name in outputs else None for name in (SCORE, MAP))
    return score, anomaly_map


def _find_raw(graph: _Graph, output: str) -> AnomalibHead:
    cut = _cut(graph, output)
    pending, seen = [output], set[str]()
    while pending and len(seen) < SEARCH_DEPTH:
        name = pending.pop(0)
        node = graph.maker.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if head := _normalised(graph, node):
            return replace(head, cut=cut)
        if node.op_type in THROUGH:
            pending.append(node.input[0])
        elif node.op_type == "Where":
            chosen = graph.constant(node.input[0])
            both = list(node.input[1:])
            pending += both if chosen is None or chosen.size != 1 else [both[0] if chosen.reshape(-1)[0] else both[1]]
    return AnomalibHead(output, cut, cut=cut)


def _normalised(graph: _Graph, node: onnx.NodeProto) -> AnomalibHead | None:
    """Recognise ``(raw − threshold) / spread + 0.5`` by its last node."""
    if node.op_type != "Add" or graph.number(node.input[1]) != 0.5:
        return None
    division = graph.maker.get(node.input[0])
    if division is None or division.op_type not in ("Div", "Mul"):
        return None
    difference = graph.maker.get(division.input[0])
    spread = graph.number(division.input[1])
    if difference is None or difference.op_type != "Sub" or not spread:
        return None
    threshold = graph.number(difference.input[1])
    if threshold is None or not np.isfinite([threshold, spread]).all():
        return None
    return AnomalibHead(difference.input[0], threshold, spread if division.op_type == "Div" else 1 / spread)


def _cut(graph: _Graph, output: str) -> float | None:
    """Return the value of an output that its label or mask compares it with."""
    for node in graph.model.graph.node:
        if node.op_type == "Greater" and node.input[0] == output:
            return graph.number(node.input[1])
    return None


def check_heads(
    heads: dict[str, AnomalibHead], raw: dict[str, NDArray[np.float32]], given: dict[str, NDArray[np.float32]]
) -> None:
    """Check that normalising the raw values reproduces the outputs of the model's heads.

    Args:
        heads: output name ↦ head.
        raw: tensor name ↦ values on some frames.
        given: output name ↦ values on the same frames.

    Raises:
        ModelError: it does not: the raw tensors were not found.
    """
    for name, head in heads.items():
        if head.spread is None or head.threshold is None:
            continue
        again = np.clip((raw[head.raw] - head.threshold) / head.spread + 0.5, 0, 1)
        error = float(np.abs(again.reshape(-1) - given[name].reshape(-1)).max())
        if not error <= 1e-4:
            raise ModelError(
                f"The raw values of '{name}' were not found in this graph (error {error:.2g}).\n"
                "Import it with --from onnx, and set --score and --map (docs/import.md)."
            )
