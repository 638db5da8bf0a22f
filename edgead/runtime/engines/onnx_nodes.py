"""Reads the nodes of an ONNX file without the onnx package, which the runtime does not install.

Only a few fields are read from the wire format, see `edgead.protobuf`:
ModelProto.graph (7), GraphProto.node (1), NodeProto.output (2), name (3), op_type (4) and domain (7).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgead.errors import BundleError
from edgead.protobuf import fields


@dataclass(frozen=True)
class Node:
    """One node of a graph, for instance ``Node("/reconstructive/encoder/Conv", "Conv", "")``."""

    name: str
    operator: str
    domain: str
    output: str = ""
    """Its first output tensor, which identifies nodes without a name."""

    @property
    def part(self) -> str:
        """The part of the method that it belongs to: the exporter names nodes after their module."""
        parts = self.name.strip("/").replace("/", ".") if "/" in self.name else self.name
        return parts.rpartition(".")[0] or "the graph's top level"

    def describe(self) -> str:
        """Return operator, node and part in one phrase."""
        operator = f"{self.domain}.{self.operator}" if self.domain else self.operator
        if not self.name:
            return (
                f"operator {operator} ({f'the node that makes {self.output!r}' if self.output else 'an unnamed node'})"
            )
        return f"operator {operator} (node '{self.name}', in {self.part})"


def read_nodes(path: Path) -> list[Node]:
    """Return the nodes of a graph in their order.

    Raises:
        BundleError: not an ONNX file.
    """
    try:
        model = memoryview(path.read_bytes())
        graphs = [graph for number, graph in fields(model) if number == 7]
        nodes = [node for graph in graphs for number, node in fields(graph) if number == 1]
        return [_node(node) for node in nodes]
    except (IndexError, ValueError) as error:
        raise BundleError(f"{path} is not an ONNX file.") from error


def _node(data: memoryview) -> Node:
    texts: dict[int, str] = {}
    for number, value in fields(data):
        if number in (2, 3, 4, 7):
            texts.setdefault(number, bytes(value).decode())
    return Node(texts.get(3, ""), texts.get(4, ""), texts.get(7, ""), texts.get(2, ""))


_LACKING = (
    r"Fatal error: ([\w.]*:\w+)\(-?\d+\) is not a registered function",  # ONNX Runtime, another domain
    r"No Op registered for (\w+) with domain_version",  # ONNX Runtime, the standard's domain
    r"Could not find an implementation for (\w+)\(\d+\)",  # ONNX Runtime, an unsupported type
    r"No conversion rule found for operations: (.+)",  # OpenVINO, a list
)


def describe_refusal(engine: str, version: str, model: Path, text: str) -> str:
    """Return why an engine rejects a graph: the operator it lacks, the node and the part of the method.

    Args:
        engine, version: of the engine.
        model: the graph.
        text: the engine's error.
    """
    found = [name.strip() for pattern in _LACKING for names in re.findall(pattern, text) for name in names.split(",")]
    try:
        nodes = read_nodes(model) if found else []
    except BundleError:
        nodes = []
    lacking = []
    for name in found:
        operator = re.split(r"[.:]", re.sub(r"-\d+$", "", name))[-1]
        lacking += [node.describe() for node in nodes if node.operator == operator][:1] or [f"operator {name}"]
    said = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("Exception from")]
    reason = f"it does not support {'; '.join(lacking)}" if lacking else (said or ["no reason given"])[0]
    return f"{engine} {version} cannot read {model}: {reason}"
