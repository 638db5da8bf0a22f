"""Import an ONNX file: an anomalib export, or any other model with one image input."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

import edgead
from edgead.bundle import Bundle
from edgead.bundle.manifest import InputRecord
from edgead.bundle.provenance import HeadRecord, Origin
from edgead.decision import Threshold
from edgead.errors import ConfigError, ModelError
from edgead.export.builder import ModelSource, build_bundle
from edgead.export.draft import DecisionLimits
from edgead.export.graph.adapter import add_adapter
from edgead.export.graph.io_spec import IoSpec
from edgead.export.graph.opset import OPSET, downgrade, opset_of
from edgead.export.imports import anomalib
from edgead.export.imports.reference_model import OnnxReferenceModel, as_maps, find_resize, observe
from edgead.export.imports.source_images import files_of, source_images
from edgead.export.imports.third_party_onnx import (
    detect_precision,
    dimensions,
    find_channels,
    find_input,
    pick_outputs,
    read_onnx,
)
from edgead.export.imports.threshold_data import ThresholdData, load_threshold_data
from edgead.export.options import SOURCES, BuildOptions, OnnxOptions
from edgead.images import COLOUR


@dataclasses.dataclass(frozen=True)
class _ParsedModel:
    """A model with its inputs and outputs, its anomalib heads (if any), and notes for the manifest."""

    model: onnx.ModelProto
    spec: IoSpec
    heads: dict[str, anomalib.AnomalibHead]
    notes: tuple[str, ...]


def import_onnx(
    path: Path, source: str, told: OnnxOptions, threshold_data: str | Path | None, options: BuildOptions
) -> Bundle:
    """Convert a third-party ONNX model to a bundle, see `edgead.export.import_model`.

    The bundle's graph and the model run on the same frames, and their outputs are compared.

    Raises:
        ModelError: the model cannot be imported.
        GateError: the bundle's graph differs from the model, or the precision fails the gate.
        EdgeadError: see `edgead.errors`.
    """
    if source not in SOURCES:
        raise ConfigError(f"Unknown source '{source}'. Available with --from: {', '.join(SOURCES)}.")
    model, console = read_onnx(path), options.console
    parsed = _parse_anomalib(model, told) if source == "anomalib" else _parse(model, told)
    console.say(describe_spec(parsed.spec))
    normals = None if threshold_data is None else load_threshold_data(threshold_data, parsed.spec.size, console)
    return build_bundle(_source_of(path, source, parsed, normals, options), options)


def _source_of(
    path: Path, source: str, parsed: _ParsedModel, normals: ThresholdData | None, options: BuildOptions
) -> ModelSource:
    spec, limits = parsed.spec, _own_limits(parsed.heads)
    if normals is None and limits is None:
        raise ConfigError("The model holds no threshold. Add images of good parts with --threshold-data DIR.")
    reference = OnnxReferenceModel(parsed.model, spec)
    images = source_images(normals, spec.size, options.precision.labelled)
    _check_anomalib(parsed, reference, images.probes)
    downgraded, blocking = downgrade(parsed.model)
    if blocking:
        names = ", ".join(blocking[:4])
        kept = opset_of(parsed.model)
        options.console.say(
            f"the graph keeps operator set {kept}, because it cannot be rewritten for {OPSET} ({names})"
        )
    origin = _origin(path, source, parsed, opset_of(downgraded))
    return ModelSource(
        verb="import",
        name=path.stem,
        method=source,
        preset="imported",
        config=dataclasses.asdict(spec),
        input=InputRecord.of(spec.size, COLOUR, spec.batch or None),
        files=origin.files,
        origin=lambda engine: origin,
        precision=detect_precision(parsed.model),
        write_graph=lambda target: onnx.save_model(_with_adapter(downgraded, spec, reference), target),
        reference=reference.run,
        images=images,
        limits=limits,
    )


def describe_spec(spec: IoSpec) -> str:
    """Describe input and outputs in one line."""
    order = "grey" if spec.channels == 1 else "RGB" if spec.rgb else "BGR"
    text = f"input {spec.size[0]}×{spec.size[1]} {order}"
    text += f" divided by {spec.scale:g}" if spec.scale != 1 else ""
    if any(spec.mean) or any(value != 1 for value in spec.std):
        text += f", mean {', '.join(f'{value:g}' for value in spec.mean)}"
        text += f", std {', '.join(f'{value:g}' for value in spec.std)}"
    pooled = "highest map value" if not spec.pool else f"mean of the highest {spec.pool:.2%} of the map"
    text += f"; score {spec.score or pooled}; map {spec.map}"
    text += f"; looks at the middle {spec.crop[0]}×{spec.crop[1]} only" if spec.crop else ""
    return text + ("; one image at a time" if spec.batch else "")


def _parse(
    model: onnx.ModelProto, options: OnnxOptions, heads: Mapping[str, anomalib.AnomalibHead] | None = None
) -> _ParsedModel:
    """Combine the options with what the model itself states."""
    value = find_input(model, options.input)
    channels, channels_last = find_channels(value)
    _check_channels(channels, options)
    if heads is None:
        score, anomaly_map = pick_outputs(model, options.score, options.map)
    else:
        score = heads[anomalib.SCORE].raw if anomalib.SCORE in heads else None
        anomaly_map = heads[anomalib.MAP].raw if anomalib.MAP in heads else "none"
    if score is not None and options.pool != "max":
        raise ConfigError(f"The image score is the tensor '{score}', so --pool has no effect. Leave it out.")
    kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    spec = IoSpec(
        input=value.name,
        size=(0, 0),
        channels=channels,
        channels_last=channels_last,
        rgb=True if options.rgb is None else options.rgb,
        scale=options.scale or (1.0 if kind.kind in "iu" else 255.0),
        mean=options.mean or (0.0,) * channels,
        std=options.std or (1.0,) * channels,
        score=score,
        map=anomaly_map,
        pool=options.share,
    )
    _check_levels(spec, kind)
    spec = dataclasses.replace(spec, size=_find_size(model, value, spec, options.size))
    return _ParsedModel(model, observe(model, spec), dict(heads or {}), ())


def _check_channels(channels: int, options: OnnxOptions) -> None:
    """Refuse options that do not fit the model's number of channels."""
    if channels == 1 and options.rgb is not None:
        raise ConfigError("The model takes grey images, which have no colour order. Leave out --rgb and --bgr.")
    for name in ("mean", "std"):
        values = getattr(options, name)
        if values is not None and len(values) != channels:
            raise ConfigError(f"--{name} takes one number per channel (here {channels}), not {values}.")


def _check_levels(spec: IoSpec, kind: np.dtype[Any]) -> None:
    """Refuse an input of whole numbers that cannot hold every level of a pixel as it is scaled."""
    if kind.kind not in "iu":
        return
    levels: NDArray[Any] = np.arange(256, dtype=np.float32)[:, None] / np.float32(spec.scale)
    levels = (levels - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
    holds = np.iinfo(kind)
    if (levels != np.rint(levels)).any() or levels.min() < holds.min or levels.max() > holds.max:
        raise ConfigError(
            f"The input '{spec.input}' takes whole numbers from {holds.min} to {holds.max} ({kind}). "
            f"Pixels would become {levels.min():g} to {levels.max():g}, in steps of {levels[1, 0] - levels[0, 0]:g}.\n"
            "Change --scale, --mean and --std so that they fit; int8 mostly needs  --mean 128,128,128"
        )


def _find_size(
    model: onnx.ModelProto, value: onnx.ValueInfoProto, spec: IoSpec, wanted: tuple[int, int] | None
) -> tuple[int, int]:
    sides = dimensions(value)
    height, width = sides[1:3] if spec.channels_last else sides[2:4]
    for declared, side in zip((height, width), wanted or (0, 0)):
        if declared and side and declared != side:
            raise ConfigError(f"The model's input is {height}×{width}. Leave out --size.")
    if sides[0] > 1:
        raise ModelError(
            f"The model takes batches of {sides[0]} images. Export it for a batch of 1, or of any size.\n"
            "In anomalib:  Engine().export(model, 'onnx', input_size=(HEIGHT, WIDTH), onnx_kwargs={'dynamic_axes': {}})"
        )
    size = wanted or (height, width)
    if not all(size):
        size = find_resize(model, spec) or (0, 0)
    if not all(size):
        raise ModelError(
            f"The model accepts any image size ('{value.name}' is dynamic), but a bundle has one size.\n"
            "Set the size that it was trained with:  --size HEIGHTxWIDTH"
        )
    return size[0], size[1]


def _parse_anomalib(model: onnx.ModelProto, options: OnnxOptions) -> _ParsedModel:
    for name in ("score", "map", "rgb", "scale", "mean", "std"):
        if getattr(options, name) is not None:
            raise ConfigError(f"--{name} is already known for an anomalib model. Leave it out, or use --from onnx.")
    score, anomaly_map = anomalib.find_heads(model)
    heads = {anomalib.SCORE: score, anomalib.MAP: anomaly_map}
    parsed = _parse(model, options, {name: head for name, head in heads.items() if head})
    cut = [name for name, head in parsed.heads.items() if head.spread is None]
    notes = tuple(f"{name} is taken as the model gives it: no normalisation was found before it" for name in cut)
    return dataclasses.replace(parsed, notes=notes)


def _check_anomalib(parsed: _ParsedModel, reference: OnnxReferenceModel, probes: NDArray[np.uint8]) -> None:
    """Refuse raw tensors that do not reproduce the outputs of the model's heads."""
    if not parsed.heads:
        return
    names = list(parsed.heads)
    spec = dataclasses.replace(parsed.spec, score=names[0], map=names[1] if len(names) > 1 else "none")
    heads = OnnxReferenceModel(parsed.model, spec)
    for frame in probes[:: len(probes) // 3, None]:
        anomalib.check_heads(parsed.heads, reference.raw(frame), heads.raw(frame))


def _own_limits(heads: Mapping[str, anomalib.AnomalibHead]) -> DecisionLimits | None:
    """Return the limits that anomalib stored in the model, with no false-reject bound; None if the score has none."""
    score, anomaly_map = heads.get(anomalib.SCORE), heads.get(anomalib.MAP)
    decides = score or anomaly_map  # a score that is computed from the map has the map's units
    if decides is None or decides.limit is None:
        return None
    limit = anomaly_map.limit if anomaly_map and anomaly_map.limit is not None else decides.limit
    return DecisionLimits(Threshold(decides.limit, 0, 1.0, 1.0), limit)


def _with_adapter(model: onnx.ModelProto, spec: IoSpec, reference: OnnxReferenceModel) -> onnx.ModelProto:
    blank = np.zeros((1, *spec.size, 3), np.uint8)
    found, kinds = reference.raw(blank), reference.kinds()
    size = None if spec.map == "none" else as_maps(found[spec.map], spec.map).shape[1:]
    if size is not None:
        _refuse_turned(size, spec)
    types = tuple(kinds.get(name, TensorProto.FLOAT) for name in (spec.input, spec.score or "", spec.map))
    return add_adapter(model, spec, None if size is None else (size[0], size[1]), (types[0], types[1], types[2]))


def _refuse_turned(size: tuple[int, ...], spec: IoSpec) -> None:
    """Refuse a map that lies across the image: stretched over it, it would mark other places. A square one may."""
    height, width = spec.crop or spec.size
    if height != width and size[0] * height == size[1] * width:
        raise ModelError(
            f"The map '{spec.map}' has {size[0]}×{size[1]} values for an image of {height}×{width}: its sides are "
            "exchanged.\nTranspose it in the model, or select another tensor with --map."
        )


def _origin(path: Path, source: str, parsed: _ParsedModel, opset: int) -> Origin:
    external = [path.with_name(name) for name in _data_files(path)]
    model = parsed.model
    maker = " ".join(part for part in (model.producer_name, model.producer_version) if part)
    heads = {name: HeadRecord(head.raw, head.threshold, head.spread) for name, head in parsed.heads.items()}
    return Origin(
        what="an ONNX model of anomalib's" if source == "anomalib" else "an ONNX model",
        files=files_of([path, *external]),
        versions={"maker": maker, **{each.key: each.value[:200] for each in model.metadata_props}},
        opset={"model": opset_of(model), "bundle": opset},
        edgead=edgead.__version__,
        anomalib=heads or None,
        notes=parsed.notes or None,
    )


def _data_files(path: Path) -> list[str]:
    model = onnx.load_model(path, load_external_data=False)
    places = {
        entry.value for value in model.graph.initializer for entry in value.external_data if entry.key == "location"
    }
    return sorted(places)
