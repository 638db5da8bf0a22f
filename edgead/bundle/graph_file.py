"""Rules for a bundle's graph: it contains all of its weights, and nothing that may run without end.

Read from the file's bytes. Field numbers are those of ONNX's ``onnx.proto``.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgead.protobuf import fields

GRAPH, FUNCTIONS = 7, 25
"""Field numbers of a ModelProto."""
NODE, INITIALIZER, SPARSE_INITIALIZER = 1, 5, 15
"""Field numbers of a GraphProto."""
OPERATOR, ATTRIBUTE = 4, 5
"""Field numbers of a NodeProto."""
TENSOR, INNER_GRAPH, TENSORS, INNER_GRAPHS, SPARSE_TENSOR, SPARSE_TENSORS = 5, 6, 10, 11, 22, 23
"""Field numbers of an AttributeProto."""
VALUES, INDICES = 1, 2
"""Field numbers of a SparseTensorProto."""
EXTERNAL_DATA = 13
"""Field number of a TensorProto."""
ENDLESS = ("Loop", "Scan")
"""Operators that repeat a graph as often as a number in the file says."""
DEEPEST = 16
"""Deepest nesting of graphs."""


class GraphError(ValueError):
    """A graph that a bundle must not contain, and why."""


def check_graph(data: bytes) -> None:
    """Refuse a graph that reads weights from other files, repeats parts of itself, or is not ONNX.

    Raises:
        GraphError: it does.
    """
    try:
        model = [*fields(memoryview(data))]
        graphs = [value for number, value in model if number == GRAPH]
        if len(graphs) != 1:
            raise GraphError("it contains no graph")
        if any(number == FUNCTIONS for number, _ in model):
            raise GraphError("it defines model-local functions, which a bundle's graph must not contain")
        _check(graphs[0], 0)
    except GraphError:
        raise
    except (IndexError, ValueError) as error:
        raise GraphError("it is not an ONNX file, or it is cut short") from error


def _check(graph: memoryview, depth: int) -> None:
    if depth > DEEPEST:
        raise GraphError(f"it nests graphs more than {DEEPEST} deep")
    for number, value in fields(graph):
        if number == INITIALIZER:
            _check_tensor(value)
        elif number == SPARSE_INITIALIZER:
            _check_sparse(value)
        elif number == NODE:
            _check_node(value, depth)


def _check_node(node: memoryview, depth: int) -> None:
    for number, value in fields(node):
        if number == OPERATOR and bytes(value).decode() in ENDLESS:
            raise GraphError(
                f"it contains a {bytes(value).decode()}, which may never end; a bundle's graph must not contain it"
            )
        if number == ATTRIBUTE:
            for kind, inner in fields(value):
                if kind in (TENSOR, TENSORS):
                    _check_tensor(inner)
                elif kind in (SPARSE_TENSOR, SPARSE_TENSORS):
                    _check_sparse(inner)
                elif kind in (INNER_GRAPH, INNER_GRAPHS):
                    _check(inner, depth + 1)


def _check_sparse(tensor: memoryview) -> None:
    for number, value in fields(tensor):
        if number in (VALUES, INDICES):
            _check_tensor(value)


def _check_tensor(tensor: memoryview) -> None:
    for place in _external(tensor):
        raise GraphError(
            f"it reads weights from another file ({place}); a bundle's graph must contain all of its weights"
        )


def _external(tensor: memoryview) -> Iterator[str]:
    for number, value in fields(tensor):
        if number == EXTERNAL_DATA:
            entry = {kind: bytes(text).decode() for kind, text in fields(value)}
            yield ascii(entry.get(2, ""))
