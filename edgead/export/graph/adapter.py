"""The adapter around a third-party model: uint8 BGR frames in, raw scores and maps of the frames' size out."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper

from edgead.errors import ModelError
from edgead.export.graph.io_spec import GREY, IoSpec, top_count
from edgead.export.graph.opset import opset_of
from edgead.export.graph.sensitive import MARK
from edgead.export.graph.subgraph import prune, set_size
from edgead.geometry.interpolation import interpolation_matrix

OWN_CONSTANTS = 4
"""Version of the file format from which on a constant need not be an input, too. It has no other effect on a graph."""
PREFIX = "model/"
"""Prefix of the model's names, which keeps them apart from the bundle's."""


class _Nodes:
    """Collects the nodes and constants before and after the model."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, kind: str, *inputs: str, output: str | None = None, **attributes: object) -> str:
        """Append a node; return the name of its output."""
        name = output or f"edgead/{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"edgead/{kind}/{name}", **attributes))
        return name

    def constant(self, values: NDArray[np.generic]) -> str:
        name = f"edgead/constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def numbers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def reduce(self, kind: str, x: str, axes: list[int], keepdims: int, output: str | None = None) -> str:
        """Append a reduction; its axes became an input with operator set 18."""
        if self.version < 18:
            return self.add(kind, x, axes=axes, keepdims=keepdims, output=output)
        return self.add(kind, x, self.numbers(*axes), keepdims=keepdims, output=output)


def add_adapter(
    model: onnx.ModelProto, spec: IoSpec, map_size: tuple[int, int] | None, types: tuple[int, int, int]
) -> onnx.ModelProto:
    """Return the bundle's graph.

    Args:
        model: as it was read, or downgraded to an older operator set.
        spec: its input and outputs.
        map_size: (height, width) of its map; None for a model without a map.
        types: ONNX element types of its input, score and map.

    Raises:
        ModelError: the result is not a valid graph.
    """
    graph = prune(model, spec.outputs())
    height, width = spec.size
    set_size(graph, spec.input, (spec.batch or "N", *spec.shape))
    graph = compose.add_prefix(graph, PREFIX)
    nodes = _Nodes(opset_of(model))
    _front(nodes, spec, types[0])
    before = len(nodes.nodes)
    score = f"{PREFIX}{spec.score}" if spec.score else None
    maps = None if map_size is None else _as_float(nodes, f"{PREFIX}{spec.map}", types[2])
    if maps is not None and map_size is not None:
        maps = nodes.add("Reshape", maps, nodes.numbers(-1, *map_size))
    if score is None:
        assert maps is not None
        assert map_size is not None
        _pool(nodes, maps, map_size, spec.pool)
    else:
        nodes.add("Reshape", _as_float(nodes, score, types[1]), nodes.numbers(-1), output="scores")
    _to_frame(nodes, maps, map_size, spec)
    inner = list(graph.graph.node)
    batch = spec.batch or "N"
    whole = helper.make_graph(
        [*nodes.nodes[:before], *inner, *nodes.nodes[before:]],
        "edgead",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, (batch, height, width, 3))],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, (batch,)),
            helper.make_tensor_value_info("maps", TensorProto.FLOAT, (batch, height, width)),
        ],
        [*graph.graph.initializer, *nodes.constants],
    )
    ir_version = max(graph.ir_version, OWN_CONSTANTS)
    adapted = helper.make_model(whole, opset_imports=list(graph.opset_import), ir_version=ir_version)
    adapted.producer_name, adapted.producer_version = model.producer_name, model.producer_version
    try:
        onnx.checker.check_model(adapted, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"The adapter does not fit the model: {str(error).splitlines()[0]}") from error
    return adapted


def _front(nodes: _Nodes, spec: IoSpec, kind: int) -> None:
    """Frames to the model's input, with `OnnxReferenceModel.prepare`'s operations in the same order: bit-identical."""
    x = nodes.add(
        "Cast", "frames", to=TensorProto.FLOAT
    )  # first: TensorRT's parser accepts a uint8 input for no other node
    if spec.channels == 1:
        x = nodes.add("MatMul", x, nodes.constant(GREY), output=f"edgead/{MARK}/grey")
        x = nodes.add("Add", x, nodes.constant(np.array(0.5, np.float32)), output=f"edgead/{MARK}/half")
        x = nodes.add("Floor", x, output=f"edgead/{MARK}/whole")
    elif spec.rgb:
        x = nodes.add("Gather", x, nodes.numbers(2, 1, 0), axis=3)
    if spec.scale != 1:
        x = nodes.add("Div", x, nodes.constant(np.array(spec.scale, np.float32)))
    if any(spec.mean):
        x = nodes.add("Sub", x, nodes.constant(np.array(spec.mean, np.float32)))
    if any(value != 1 for value in spec.std):
        x = nodes.add("Div", x, nodes.constant(np.array(spec.std, np.float32)))
    name = f"{PREFIX}{spec.input}"
    if not spec.channels_last:
        x = nodes.add("Transpose", x, perm=[0, 3, 1, 2], output=name if kind == TensorProto.FLOAT else None)
        if kind == TensorProto.FLOAT:
            return
    nodes.add("Cast", x, to=kind, output=name)


def _as_float(nodes: _Nodes, name: str, kind: int) -> str:
    return name if kind == TensorProto.FLOAT else nodes.add("Cast", name, to=TensorProto.FLOAT)


def _pool(nodes: _Nodes, maps: str, size: tuple[int, int], share: float) -> None:
    """Scores from maps ``[N, h, w]``: `reference_model.pool_map` as nodes."""
    pixels = size[0] * size[1]
    flat = nodes.add("Reshape", maps, nodes.numbers(-1, pixels))
    count = top_count(pixels, share)
    if count == 1:
        nodes.reduce("ReduceMax", flat, [1], 0, output="scores")
        return
    top = nodes.add("TopK", flat, nodes.numbers(count), axis=1)
    nodes.nodes[-1].output.append(f"{top}/indices")
    nodes.reduce("ReduceMean", top, [1], 0, output="scores")


def _to_frame(nodes: _Nodes, maps: str | None, size: tuple[int, int] | None, spec: IoSpec) -> None:
    """Bring maps to the frame's size: interpolate coarse maps, pad maps of the central crop.

    Interpolation is a product with a constant matrix per side, as in `edgead.train.maps`: exact on every engine.
    """
    height, width = spec.size
    if maps is None or size is None:
        flat = nodes.add("Reshape", "scores", nodes.numbers(-1, 1, 1))
        nodes.add("Add", flat, nodes.constant(np.zeros((1, height, width), np.float32)), output="maps")
        return
    inner = spec.crop or (height, width)
    if size[0] != inner[0]:
        maps = nodes.add("MatMul", nodes.constant(_weights(inner[0], size[0])), maps)
    if size[1] != inner[1]:
        maps = nodes.add("MatMul", maps, nodes.constant(_weights(inner[1], size[1]).T.copy()))
    if spec.crop:
        # Pixels outside the crop get the map's lowest value.
        lowest = nodes.reduce("ReduceMin", maps, [1, 2], 1)
        top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
        pads = nodes.numbers(0, top, left, 0, height - inner[0] - top, width - inner[1] - left)
        above = nodes.add("Pad", nodes.add("Sub", maps, lowest), pads)
        maps = nodes.add("Add", above, lowest)
    nodes.add("Identity", maps, output="maps")


def _weights(side: int, cells: int) -> NDArray[np.float32]:
    return interpolation_matrix(side, cells).astype(np.float32)
