"""The resize of `edgead.images.fit_frame` as an ONNX graph, for frames that are on a GPU already.

Written without the onnx package, which the runtime does not install; field numbers are those of ``onnx.proto``. Its
operators and types are those of the bundles' graphs, which TensorRT reads from 8.6 on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.geometry import Geometry, Size
from edgead.geometry.interpolation import area_matrix, interpolation_matrix
from edgead.geometry.resampling import halvings
from edgead.protobuf import message

FRAMES, FITTED = "frames", "fitted"
"""Names of the input ``[N, H, W, C] uint8`` and of the output ``[N, h, w, C] uint8``."""
_UINT8, _INT64, _FLOAT32 = 2, 7, 1  # TensorProto.DataType
_INTS, _INT = 7, 2  # AttributeProto.AttributeType
_OPSET, _IR = 17, 8


def resize_graph(frame: Size, size: Size, geometry: Geometry, channels: int = 3) -> bytes:
    """Return the graph that fits frames of one size to a canvas.

    It crops, halves, averages areas or interpolates, and letterboxes in the order of `fit_frame` and rounds where that
    rounds, so that both differ by one grey level at most, where a value lies between two levels.

    Args:
        frame: (height, width) of the frames in pixels.
        size: of the canvas.
        geometry: crop and fit are used; alignment and tiles are not.
        channels: 3; depth in a fourth channel is not averaged like a colour.
    """
    place = geometry.place(frame, size)
    graph = _Graph()
    graph.add("Cast", FRAMES, to=_FLOAT32)
    if place.window_size != frame:
        rows, columns = place.window
        graph.add("Slice", *map(graph.constant, ([rows.start, columns.start], [rows.stop, columns.stop], [1, 2])))
    graph.add("Transpose", perm=[0, 3, 1, 2])
    seen, shown = place.window_size, place.inner_size
    for _ in range(halvings(seen, shown)):
        graph.add("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
        graph.add("Add", graph.constant(np.float32(0.5)))  # OpenCV rounds these halves up, and all others to even
        graph.add("Floor")
        seen = seen[0] // 2, seen[1] // 2
    shrunk = min(seen[0], shown[0]), min(seen[1], shown[1])
    if shrunk != seen:
        graph.weigh(area_matrix(shrunk[0], seen[0]), area_matrix(shrunk[1], seen[1]))
    if shrunk != shown:
        graph.weigh(interpolation_matrix(shown[0], shrunk[0]), interpolation_matrix(shown[1], shrunk[1]))
    if shown != size:
        graph.weigh(*(_repeat_edges(part, side) for part, side in zip(place.inner, size)))
    graph.add("Transpose", perm=[0, 2, 3, 1])
    graph.add("Cast", output=FITTED, to=_UINT8)
    return graph.serialise([*frame, channels], [*size, channels])


def _repeat_edges(part: slice, side: int) -> NDArray[np.float64]:
    """Return ``[side, length]``: the values of a part, with the first and the last one repeated around it."""
    length = part.stop - part.start
    matrix = np.zeros((side, length))
    matrix[np.arange(side), np.clip(np.arange(side) - part.start, 0, length - 1)] = 1
    return matrix


class _Graph:
    """A chain of nodes: each takes the output of the one before it as its first input."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._constants: list[bytes] = []
        self._last = ""

    def constant(self, values: Any) -> str:
        """Store an array and return its name; whole numbers become int64, all others float32."""
        array = np.asarray(values)
        whole = np.issubdtype(array.dtype, np.integer)
        array, name = array.astype(np.int64 if whole else np.float32), f"constant_{len(self._constants)}"
        dims = [(1, side) for side in array.shape]
        raw = array.astype(array.dtype.newbyteorder("<")).tobytes()
        self._constants.append(message(*dims, (2, _INT64 if whole else _FLOAT32), (8, name), (9, raw)))
        return name

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: int | list[int]) -> None:
        """Append a node. The first one names its input, as there is none before it."""
        taken = [self._last, *inputs] if self._last else [*inputs]
        self._append(operator, taken, output, attributes)

    def weigh(self, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> None:
        """Append ``rows @ x @ columns.T``, rounded as OpenCV rounds. A matrix that changes nothing is left out."""
        # The smaller picture first: rows are fewer multiplications where the frame shrinks.
        if not _is_identity(rows):
            self._append("MatMul", [self.constant(rows), self._last], "", {})
        if not _is_identity(columns):
            self._append("MatMul", [self._last, self.constant(columns.T)], "", {})
        self._append("Round", [self._last], "", {})

    def _append(self, operator: str, inputs: list[str], output: str, attributes: dict[str, int | list[int]]) -> None:
        self._last = output or f"step_{len(self._nodes)}"
        named = [(1, name) for name in inputs]
        stated = [(5, _attribute(name, value)) for name, value in attributes.items()]
        self._nodes.append(
            message(*named, (2, self._last), (3, f"/resize/{operator}_{len(self._nodes)}"), (4, operator), *stated)
        )

    def serialise(self, frame: Sequence[int], fitted: Sequence[int]) -> bytes:
        """Return the model, of any number of frames."""
        nodes = [(1, node) for node in self._nodes]
        constants = [(5, constant) for constant in self._constants]
        ends = ((11, _tensor(FRAMES, frame)), (12, _tensor(FITTED, fitted)))
        graph = message(*nodes, (2, "resize"), *constants, *ends)
        return message((1, _IR), (2, "edgead"), (7, graph), (8, message((1, ""), (2, _OPSET))))


def _is_identity(matrix: NDArray[np.float64]) -> bool:
    return matrix.shape[0] == matrix.shape[1] and bool((matrix == np.eye(len(matrix))).all())


def _attribute(name: str, value: int | list[int]) -> bytes:
    if isinstance(value, int):
        return message((1, name), (3, value), (20, _INT))
    return message((1, name), *((8, each) for each in value), (20, _INTS))


def _tensor(name: str, sides: Sequence[int]) -> bytes:
    dims = [(1, message((2, "N"))), *((1, message((1, side))) for side in sides)]
    return message((1, name), (2, message((1, message((1, _UINT8), (2, message(*dims)))))))
