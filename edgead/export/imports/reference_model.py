"""The reference of an imported bundle: the original model, run with ONNX Runtime and NumPy.

Running it also shows facts that its file does not state, such as a central crop.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgead.bundle import Golden
from edgead.errors import ModelError, require
from edgead.export.graph.io_spec import GREY, IoSpec, top_count
from edgead.export.graph.subgraph import prune, set_size
from edgead.images import cv2
from edgead.runtime.engines import first_line

NUMBERS = (
    "float",
    "float16",
    "double",
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
)
"""Element types that become float32 without a question, as ONNX Runtime calls them."""
ONE_CLASS = "If it has a value per class, export the defect's alone, for instance model(x).softmax(1)[:, 1]."
"""What to do with a classifier or a segmentation network."""
BEFORE = ("Conv", "ConvTranspose", "MatMul", "Gemm", "QLinearConv", "QuantizeLinear")
"""A Resize before all of these resizes the image, not a feature map."""


class OnnxReferenceModel:
    """Runs chosen tensors of a model on frames.

    Args:
        model: as it was read.
        spec: its input, and the outputs to compute.

    Raises:
        ModelError: ONNX Runtime cannot read the model.
    """

    def __init__(self, model: onnx.ModelProto, spec: IoSpec) -> None:
        self.spec = spec
        pruned = prune(model, spec.outputs())
        set_size(pruned, spec.input, (spec.batch or "N", *spec.shape))
        self._session = open_model(pruned)
        self._outputs = {value.name: _element_type(value) for value in self._session.get_outputs()}
        self._input = _element_type(self._session.get_inputs()[0])
        self.type = onnx.helper.tensor_dtype_to_np_dtype(self._input)

    def prepare(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        """Convert frames ``[N, H, W, 3] uint8 BGR`` to the model's input."""
        spec = self.spec
        if spec.channels == 1:
            images = np.floor(frames.astype(np.float32) @ GREY + np.float32(0.5))
        else:
            images = (frames[..., ::-1] if spec.rgb else frames).astype(np.float32)
        mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
        values: NDArray[Any] = (images / np.float32(spec.scale) - mean) / std
        values = values if spec.channels_last else values.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(values.astype(self.type))

    def raw(self, frames: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Run frames as one batch; return the outputs as float32, by name."""
        names = self.spec.outputs()
        try:
            values = self._session.run(names, {self.spec.input: self.prepare(frames)})
        except Exception as error:  # ONNX Runtime's errors have no narrower common base
            raise ModelError(f"ONNX Runtime cannot run the model: {first_line(error)}") from error
        return {name: np.asarray(value, np.float32) for name, value in zip(names, values)}

    def kinds(self) -> dict[str, int]:
        """ONNX element types of input and outputs, by name."""
        return {self.spec.input: self._input, **self._outputs}

    def infer(self, frames: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run frames; return scores ``[N]`` and maps ``[N, H, W]``, computed without the bundle's graph."""
        found, spec = self.raw(frames), self.spec
        if spec.map == "none":
            scores = found[spec.score or ""].reshape(-1)
            return scores, np.broadcast_to(scores[:, None, None], (len(frames), *spec.size)).astype(np.float32)
        maps = as_maps(found[spec.map], spec.map)
        scores = found[spec.score].reshape(-1) if spec.score else pool_map(maps, spec.pool)
        return scores, np.stack([self._to_frame(each) for each in maps])

    def _to_frame(self, anomaly_map: NDArray[np.float32]) -> NDArray[np.float32]:
        height, width = self.spec.size
        inner = self.spec.crop or (height, width)
        if anomaly_map.shape != inner:
            anomaly_map = cv2().resize(anomaly_map, inner[::-1], interpolation=cv2().INTER_LINEAR)
        top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
        around = ((top, height - inner[0] - top), (left, width - inner[1] - left))
        return np.pad(anomaly_map, around, constant_values=anomaly_map.min())

    def run(self, frames: NDArray[np.uint8]) -> Golden:
        """Run frames one by one."""
        outputs = [self.infer(frames[index : index + 1]) for index in range(len(frames))]
        return Golden(frames, np.concatenate([s for s, _ in outputs]), np.concatenate([m for _, m in outputs]))


def _element_type(value: Any) -> int:
    """Return the ONNX element type of an input or output of a session.

    Raises:
        ModelError: it is not a tensor of numbers.
    """
    found = re.fullmatch(r"tensor\((\w+)\)", value.type)
    if not found or found[1] not in NUMBERS:
        raise ModelError(
            f"'{value.name}' is a {value.type}; images, scores and maps are tensors of {', '.join(NUMBERS)}."
        )
    return int(onnx.TensorProto.DataType.Value(found[1].upper()))


def open_model(model: onnx.ModelProto) -> Any:
    """Open a model with ONNX Runtime on the CPU.

    Raises:
        ModelError: it cannot be read, or is larger than one ONNX file may be.
    """
    ort = require("onnxruntime", "cpu")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        data = model.SerializeToString()
    except (ValueError, Exception) as error:  # protobuf's EncodeError is not a ValueError in every version
        raise ModelError("The model is larger than 2 GB, which one ONNX file cannot hold.") from error
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no narrower common base
        raise ModelError(f"ONNX Runtime {ort.__version__} cannot run the model: {first_line(error)}") from error


def pool_map(maps: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """``[N, h, w]`` to ``[N]``: the maximum, or the mean of the largest `share` of each map's values."""
    values = maps.reshape(len(maps), -1)
    count = top_count(values.shape[1], share)
    return np.asarray(np.partition(values, -count, axis=1)[:, -count:].mean(axis=1), np.float32)


def as_maps(values: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """Reshape a tensor to ``[N, h, w]``.

    Raises:
        ModelError: the tensor is not a map with one channel.
    """
    shape = [side for side in values.shape[1:] if side != 1]
    if values.ndim < 3 or len(shape) != 2:
        raise ModelError(
            f"'{name}' has the shape {'×'.join(map(str, values.shape))} for {len(values)} images; a map has one value "
            f"per pixel: N×1×h×w or N×h×w.\nSelect another tensor of the graph with --map. {ONE_CLASS}"
        )
    return values.reshape(len(values), *shape)


def find_resize(model: onnx.ModelProto, spec: IoSpec) -> tuple[int, int] | None:
    """Return the size to which the model itself resizes images, found by running it at two sizes, or None."""
    name = next((node.output[0] for node in model.graph.node if node.op_type == "Resize"), None)
    first = next((node for node in model.graph.node if node.op_type in ("Resize", *BEFORE)), None)
    if name is None or first is None or first.op_type != "Resize":
        return None
    sizes = set()
    for size in ((64, 96), (100, 80)):
        probe = dataclasses.replace(spec, size=size, score=name, map="none", batch=1)
        try:
            [resized] = OnnxReferenceModel(model, probe).raw(np.zeros((1, *size, 3), np.uint8)).values()
        except ModelError:
            return None
        sizes.add(resized.shape[1:3] if spec.channels_last else resized.shape[2:4])
    return sizes.pop() if len(sizes) == 1 else None


def observe(model: onnx.ModelProto, spec: IoSpec) -> IoSpec:
    """Run the model to find out whether it accepts batches and whether it looks at a central crop only.

    Raises:
        ModelError: the model cannot run, or its score or map has a wrong shape.
    """
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, *spec.size, 3), dtype=np.uint8)
    single = OnnxReferenceModel(model, dataclasses.replace(spec, batch=1))
    apart = [single.raw(frames[:1]), single.raw(frames[1:])]
    if spec.score and any(found[spec.score].size != 1 for found in apart):
        shape = "×".join(map(str, apart[0][spec.score].shape))
        raise ModelError(
            f"'{spec.score}' has the shape {shape} for one image; a score is one number (--score).\n{ONE_CLASS}"
        )
    spec = dataclasses.replace(spec, batch=0 if _takes_batches(model, spec, frames, apart) else 1)
    if spec.map == "none":
        return spec
    height, width = as_maps(apart[0][spec.map], spec.map).shape[1:]
    cut_off = np.array_equal(apart[0][spec.map], apart[1][spec.map])  # noise is all the same to it: it shows nothing
    if height < spec.size[0] and width < spec.size[1] and not cut_off:
        top, left = (spec.size[0] - height) // 2, (spec.size[1] - width) // 2
        other = frames[1:].copy()
        other[:, top : top + height, left : left + width] = frames[0, top : top + height, left : left + width]
        repainted = single.raw(other)
        if all(np.array_equal(repainted[name], apart[0][name]) for name in repainted):
            return dataclasses.replace(spec, crop=(height, width))
    return spec


def _takes_batches(
    model: onnx.ModelProto, spec: IoSpec, frames: NDArray[np.uint8], apart: list[dict[str, NDArray[np.float32]]]
) -> bool:
    try:
        together = OnnxReferenceModel(model, dataclasses.replace(spec, batch=0)).raw(frames)
    except ModelError:
        return False
    for name, values in together.items():
        expected = np.concatenate([found[name].reshape(1, -1) for found in apart])
        if values.size != expected.size:
            return False
        if not np.allclose(values.reshape(2, -1), expected, rtol=1e-4, atol=1e-5):
            return False
    return True
