"""Read a third-party ONNX file, refuse unsafe or unsupported ones, and find its image input and outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath

import onnx
from google.protobuf.message import DecodeError
from onnx import defs, inliner
from onnx.external_data_helper import load_external_data_for_model

from edgead.bundle.graph_file import ENDLESS
from edgead.errors import ModelError
from edgead.export.graph.opset import is_standard, opset_of
from edgead.files import stays_below

OLDEST_OPSET = 13
"""Models of older operator sets are converted to this one first."""
SHOWN_NAMES = 4
"""Names that an error lists."""


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read a model with all its weights, and check it.

    Raises:
        ModelError: not ONNX, truncated, weights missing or outside the model's folder, or unsupported operators.
    """
    try:
        return _read_checked(path)
    except (TypeError, UnicodeError) as error:  # protobuf returns a name that is not text as bytes
        raise ModelError(f"{path} is damaged: a name in it is not text ({_line(error)}).") from error


def _read_checked(path: Path) -> onnx.ModelProto:
    model = _parse(path)
    _read_weights(model, path)
    if model.functions:
        model = _inline(model, path)
    _check_operators(model, path)
    if opset_of(model) < OLDEST_OPSET:
        model = _raise_version(model, path)
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # onnx raises errors of its own kinds, and of C++
        raise ModelError(f"{path} is not a valid ONNX model: {_line(error)}") from error
    return model


def _inline(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    try:
        inlined: onnx.ModelProto = inliner.inline_local_functions(model)
    except Exception as error:  # onnx raises errors of its own kinds, and of C++
        raise ModelError(f"{path} has functions that cannot be put in place: {_line(error)}") from error
    return inlined


def _parse(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise ModelError(f"{path} is not a file." if path.exists() else f"{path} does not exist.")
    with path.open("rb") as stream:
        first = stream.read(4)
    if first[:2] == b"PK" or first[:1] == b"\x80":
        raise ModelError(
            f"{path} is a PyTorch or pickle file, not ONNX.\n"
            "For a published checkpoint, set --method. Export an anomalib checkpoint first:\n"
            "  anomalib export --model NAME --ckpt_path FILE --export_type onnx"
        )
    try:
        model: onnx.ModelProto = onnx.load_model(path, format="protobuf", load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise ModelError(f"{path} is not an ONNX file, or it is truncated: {_line(error)}") from error
    if not model.graph.node or not model.graph.output:
        raise ModelError(f"{path} is not an ONNX file, or it is truncated: it has no graph.")
    return model


def _read_weights(model: onnx.ModelProto, path: Path) -> None:
    """Load weights from other files in the model's own folder."""
    folder = path.parent.resolve()
    external = [each for each in _tensors(model.graph) if each.data_location == onnx.TensorProto.EXTERNAL]
    for tensor in external:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        on_windows = PureWindowsPath(location)
        outside = not stays_below(location) or on_windows.is_absolute() or ".." in on_windows.parts
        if not location or outside or not (folder / location).resolve().is_relative_to(folder):
            raise ModelError(
                f"{path} refers to weights in {location[:100]!a}. Weights outside the model's folder are refused."
            )
        file = folder / location
        if not file.is_file():
            raise ModelError(
                f"{path} keeps its weights in {location}, which does not exist.\nCopy that file to the model's folder."
            )
        try:
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", 0))
        except ValueError as error:
            raise ModelError(
                f"{path} is damaged: the offset of '{tensor.name}' in {location} is not a number."
            ) from error
        if min(offset, length) < 0 or offset + length > file.stat().st_size:
            raise ModelError(f"{file} is truncated: '{tensor.name}' of {path.name} is beyond its end.")
    if not external:
        return
    try:
        load_external_data_for_model(model, str(folder))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(f"The weights of {path} cannot be read: {_line(error)}") from error


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _tensors(inner)


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a graph and of the graphs inside its nodes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from all_nodes(inner)


def _check_operators(model: onnx.ModelProto, path: Path) -> None:
    own = sorted({f"{node.domain}.{node.op_type}" for node in all_nodes(model.graph) if not is_standard(node.domain)})
    if own:
        raise ModelError(
            f"{path} uses operators that are not part of ONNX: {_some(own)}.\n"
            "Export the model without them, a quantised one with QuantizeLinear and DequantizeLinear (Q/DQ)."
        )
    version = opset_of(model)
    if version > defs.onnx_opset_version():
        raise ModelError(
            f"{path} uses operator set {version}; the installed onnx reads up to "
            f"{defs.onnx_opset_version()}.\nUpgrade with:  pip install --upgrade onnx onnxruntime"
        )
    kinds = {node.op_type for node in all_nodes(model.graph)}
    if endless := kinds & {*ENDLESS}:
        raise ModelError(
            f"{path} contains loops ({', '.join(sorted(endless))}), which may never end.\n"
            "Export the model with a fixed number of steps, without control flow."
        )
    unknown = sorted(kind for kind in kinds if not defs.has(kind, max_inclusive_version=version))
    if unknown:
        raise ModelError(f"{path} uses operators that are not in operator set {version}: {_some(unknown)}.")


def _raise_version(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    from onnx import version_converter

    version = opset_of(model)
    try:
        converted: onnx.ModelProto = version_converter.convert_version(model, OLDEST_OPSET)
    except Exception as error:  # onnx raises errors of its own kinds, and of C++
        raise ModelError(
            f"{path} uses operator set {version} and cannot be converted to {OLDEST_OPSET}: {_line(error)}\n"
            f"Export the model again with operator set {OLDEST_OPSET} or newer."
        ) from error
    return converted


def detect_precision(model: onnx.ModelProto) -> str:
    """Return ``"int8"`` for a model with Q/DQ, ``"fp16"`` for one with half-precision weights, else ``"fp32"``."""
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in all_nodes(model.graph)):
        return "int8"
    half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in _tensors(model.graph))
    return "fp16" if half else "fp32"


def dimensions(value: onnx.ValueInfoProto) -> list[int]:
    """Return a tensor's declared dimensions; 0 for a dynamic one."""
    return [side.dim_value if side.dim_value > 0 else 0 for side in value.type.tensor_type.shape.dim]


def find_input(model: onnx.ModelProto, wanted: str | None) -> onnx.ValueInfoProto:
    """Return the image input: the given one, or the only one.

    Raises:
        ModelError: unknown input, several inputs, or an input that is not an image.
    """
    weights = {value.name for value in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    names = [value.name for value in inputs]
    if wanted is not None and wanted not in names:
        raise ModelError(f"Unknown input '{wanted}'. Available: {', '.join(names)}.")
    if wanted is None and len(inputs) != 1:
        raise ModelError(f"The model has {len(inputs)} inputs: {', '.join(names)}. Select the image with --input.")
    if len(inputs) != 1:
        others = [name for name in names if name != wanted]
        raise ModelError(f"The model has more than one input: {_some(others)}. A bundle's graph has one input.")
    chosen = inputs[0]
    if len(chosen.type.tensor_type.shape.dim) != 4:
        raise ModelError(
            f"The input '{chosen.name}' has the shape {_shape(chosen)}; a batch of images has four dimensions: "
            "N×3×H×W or N×H×W×3, or 1 instead of 3."
        )
    return chosen


def find_channels(value: onnx.ValueInfoProto) -> tuple[int, bool]:
    """Return the number of channels of an input, 3 or 1, and whether they come last (N×H×W×C).

    Raises:
        ModelError: another number of channels.
    """
    _, second, _, last = dimensions(value)
    for channels in (3, 1):
        if channels in (second, last):
            return channels, second != channels
    if second == 0:
        return 3, False
    raise ModelError(
        f"The input '{value.name}' has the shape {_shape(value)}; colour images have three channels, grey images one."
    )


def pick_outputs(model: onnx.ModelProto, score: str | None, anomaly_map: str | None) -> tuple[str | None, str]:
    """Return the tensors with score and map: the given ones, or the only candidates.

    Any tensor of the graph can be given, not only an output, for instance the score before it is clamped.

    Returns:
        Score, None if it must be computed from the map; and map, ``"none"`` if there is none.

    Raises:
        ModelError: unknown tensor, or several candidates.
    """
    known = {name for node in model.graph.node for name in node.output}
    for name in (score, anomaly_map):
        if name not in (None, "none") and name not in known:
            raise ModelError(f"Unknown tensor '{name}'. Outputs of the model: {_outputs(model)}.")
    if anomaly_map is None:
        found = [value.name for value in model.graph.output if len(value.type.tensor_type.shape.dim) in (3, 4)]
        if len(found) != 1:
            raise ModelError(
                f"Select the pixel map with --map. Outputs of the model: {_outputs(model)}.\n"
                "--map none imports a model with a score only; its masks cover the whole frame or nothing."
            )
        anomaly_map = found[0]
    if anomaly_map == "none" and score is None:
        raise ModelError(f"Without a map, select the score with --score. Outputs of the model: {_outputs(model)}.")
    return score, anomaly_map


def _outputs(model: onnx.ModelProto) -> str:
    return ", ".join(f"{value.name} {_shape(value)}" for value in model.graph.output)


def _shape(value: onnx.ValueInfoProto) -> str:
    return "×".join(str(side.dim_value or side.dim_param or "?") for side in value.type.tensor_type.shape.dim)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more


def _line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
