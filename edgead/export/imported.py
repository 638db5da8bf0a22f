"""`edgead import`, for models that come as ONNX: anomalib's exports, and any other graph with an image in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

import edgead
from edgead import schema
from edgead.bundle import MODEL, Bundle
from edgead.console import Console
from edgead.datasets import open_category
from edgead.decision import Threshold, check_false_reject
from edgead.errors import ConfigError, ModelError
from edgead.export import anomalib
from edgead.export.calibration import find_images
from edgead.export.choose import PrecisionOptions, Trial, choose
from edgead.export.complete import Assembled, Limits, assemble, limits_of, seal
from edgead.export.foreign import dimensions, find_channels, find_input, pick_outputs, precision_of, read_onnx
from edgead.export.gate import read_labelled
from edgead.export.opset import OPSET, lower, version_of
from edgead.export.original import Original, Reading, as_maps, find_resize, observe
from edgead.export.target import choose_target
from edgead.export.threshold_data import ThresholdData, load_threshold_data
from edgead.export.wrap import wrap
from edgead.files import atomic_folder, sha256
from edgead.manifest import DataRecord, HeadRecord, InputRecord, Manifest, Origin, TrainingRecord, sizes_of

SOURCES = ("onnx", "anomalib")
PROBES = 6
"""Images that graph and original are compared on, beside as many of noise."""
SYNTHETIC = 40
"""Images with noise that a lower precision is judged on."""
ONNX_TYPES = {"float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}


@dataclasses.dataclass(frozen=True)
class OnnxOptions:
    """What a user says about a model; None where its file says it, or the usual is meant.

    Attributes:
        input, score, map: names of tensors; ``map="none"`` where the model has none.
        size: (height, width) in pixels, where the model's input is dynamic.
        rgb: colour order; RGB by default.
        scale: what grey values are divided by; 255 by default, 1 for a model that takes bytes.
        mean, std: for each channel, after that division.
        pool: how a missing score is computed: ``"max"``, or ``"top:SHARE"`` for the mean of that share of pixels.
    """

    input: str | None = None
    score: str | None = None
    map: str | None = None
    size: tuple[int, int] | None = None
    rgb: bool | None = None
    scale: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    pool: str = "max"

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and (len(values) not in (1, 3) or not np.isfinite(values).all()):
                raise ConfigError(f"--{name} takes three numbers, one for each channel (grey: one), not {values}.")
        if self.std is not None and min(self.std) <= 0:
            raise ConfigError(f"--std must be positive, not {self.std}.")
        if self.scale is not None and not 0 < self.scale < np.inf:
            raise ConfigError(f"--scale must be positive, not {self.scale}.")
        if self.size is not None and min(self.size) < 8:
            raise ConfigError(f"--size must be at least 8×8 pixels, not {self.size[0]}×{self.size[1]}.")

    @property
    def share(self) -> float:
        """`pool` as a share of pixels; 0 for the maximum."""
        if self.pool == "max":
            return 0.0
        kind, _, text = self.pool.partition(":")
        try:
            share = float(text)
        except ValueError:
            share = 0.0
        if kind != "top" or not 0 < share <= 1:
            raise ConfigError(f"--pool is max, or top: and a share of the pixels as in top:0.01, not '{self.pool}'.")
        return share


@dataclasses.dataclass(frozen=True)
class _Taken:
    """A model that was understood: how it is read, anomalib's heads where it has them, and what to remember of it."""

    model: onnx.ModelProto
    reading: Reading
    heads: dict[str, anomalib.Head]
    notes: tuple[str, ...]


def import_onnx(
    path: str | Path,
    *,
    source: str = "onnx",
    options: OnnxOptions | None = None,
    threshold_data: str | Path | None = None,
    out: str | Path | None = None,
    false_reject: float = 0.01,
    precision: PrecisionOptions | None = None,
    force: bool = False,
    console: Console | None = None,
) -> Bundle:
    """Make a bundle of somebody else's ONNX model.

    The bundle's graph is compared with the model itself, run on the same frames.

    Args:
        path: the file.
        source: ``"anomalib"`` for a model that anomalib 2.x exported, ``"onnx"`` for any other.
        options: what the file does not say.
        threshold_data: images of good parts, best ones that the model was not trained on. May be left out for
            anomalib's models, which hold a threshold.
        out: the bundle's folder; ``runs/import/NAME.edgead`` by default, ``NAME-int8.edgead`` in another precision.
            The same bundle, made again, replaces the one that is there.
        false_reject: wanted bound on the share of good parts that fail.
        precision: to a lower precision than the model's.
        force: replace any bundle in `out`.
        console: what shows progress.

    Raises:
        ModelError: the model cannot be taken over.
        GateError: the bundle's graph differs from the model, or the precision does not pass the gate.
        EdgeadError: see `edgead.errors`.
    """
    path, options, console = Path(path), options or OnnxOptions(), console or Console()
    if source not in SOURCES:
        raise ConfigError(f"--from is one of {', '.join(SOURCES)}, not '{source}'.")
    check_false_reject(false_reject)
    model = read_onnx(path)
    taken = _take_anomalib(model, options) if source == "anomalib" else _take(model, options)
    console.say(describe(taken.reading))
    normals = None if threshold_data is None else load_threshold_data(threshold_data, taken.reading.size, console)
    config = dataclasses.asdict(taken.reading)
    folder = choose_import_target(out, [path], source, config, normals, false_reject, precision, force)
    own = _own_limits(taken.heads) if normals is None else None
    if normals is None and own is None:
        raise ConfigError("The model holds no threshold. Give images of good parts with --threshold-data DIR.")
    original = Original(model, taken.reading)
    probes = probe_frames(normals, taken.reading.size)
    _check_anomalib(taken, original, probes)
    lowered, blocking = lower(model)
    if blocking:
        console.say(f"kept in operator set {version_of(model)}: {OPSET} has no {', '.join(blocking[:4])}")
    with atomic_folder(folder) as temporary:
        (temporary / "fp32").mkdir()
        onnx.save_model(_wrapped(lowered, taken.reading, original), temporary / "fp32" / MODEL)
        facts = {
            **facts_of(folder, source, taken.reading, normals),
            "config": config,
            "origin": _origin(path, source, taken, version_of(lowered)),
        }
        assembled = assemble(
            temporary / "fp32",
            facts,
            reference=original.reference,
            probes=probes,
            shown=[0, 1, len(probes) // 2, len(probes) // 2 + 1],
            limits=lambda engine: own or limits_of(engine, normals.frames.frames, false_reject, console),  # type: ignore[union-attr]
            console=console,
            precision=precision_of(model),
        )
        if precision:
            assembled = lower_precision(assembled, precision, normals, false_reject, console)
        manifest = seal(temporary, assembled, console)
    console.say(f"Imported: {folder}")
    return Bundle(folder, manifest)


def choose_import_target(
    out: str | Path | None,
    files: Sequence[Path],
    method: str,
    config: dict[str, Any],
    normals: ThresholdData | None,
    false_reject: float,
    precision: PrecisionOptions | None,
    force: bool,
) -> Path:
    """Return where an imported bundle goes, see `edgead.export.target`.

    Raises:
        DataError: something else is there.
    """
    named, wanted = files_of(files), precision.precision if precision else ""

    def same(there: Manifest) -> bool:
        return (
            there.origin is not None
            and (there.method, there.origin.files.items() >= named.items()) == (method, True)
            and there.config == schema.write(config)
            and there.data.held_out_fingerprint == (normals.frames.fingerprint if normals else "")
            and there.threshold.requested_bound in (false_reject, 1.0)
            and (wanted == "auto" or wanted in (there.precision, ""))
            and (there.calibration.source == "threshold" if wanted and there.calibration else there.calibration is None)
        )

    return choose_target(out, "import", files[0].stem, wanted or "fp32", same, force)


def probe_frames(normals: ThresholdData | None, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the frames that graph and original are compared on: real ones first, then as many with noise in them."""
    rng = np.random.default_rng(0x1A9)
    if normals is None:
        coarse = rng.integers(0, 256, (PROBES, 8, 8, 3), dtype=np.uint8)
        rows, columns = (np.arange(side) * 8 // side for side in size)
        real = coarse[:, rows][:, :, columns]
    else:
        real = normals.frames.frames[:PROBES]
        real = np.concatenate([real] * (2 // len(real) + 1)) if len(real) < 2 else real
    return np.concatenate([real, disturb(real, rng)])


def disturb(frames: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return copies of frames ``[N, H, W, 3] uint8`` with noise in a ninth of each."""
    noisy = frames.copy()
    height, width = frames.shape[1:3]
    for frame in noisy:
        top, left = rng.integers(0, (height // 2, width // 2))
        part = frame[top : top + height // 3, left : left + width // 3]
        part[:] = rng.integers(0, 256, part.shape, dtype=np.uint8)
    return noisy


def lower_precision(
    assembled: Assembled,
    options: PrecisionOptions,
    normals: ThresholdData | None,
    false_reject: float,
    console: Console,
) -> Assembled:
    """Lower an imported float32 graph behind the gate of docs/precision.md; frames with noise stand for anomalies.

    Raises:
        GateError: the precision does not pass.
        ConfigError: there is nothing to judge on, or nothing to lower.
    """
    if normals is None:
        raise ConfigError("A lower precision is judged on images of good parts; give some with --threshold-data DIR.")
    if assembled.manifest.precision != "fp32":
        raise ConfigError(f"The model comes in {assembled.manifest.precision} already; leave out --precision.")
    find_images(options.calibration, normals.good)  # too few of them are said before anything is scored
    manifest, labelled, frames = assembled.manifest, None, normals.frames
    if options.labelled:
        labelled = read_labelled(open_category(options.labelled), manifest.size, manifest.pixels, console)
        if labelled is None:
            raise ConfigError(f"{options.labelled} has no labelled test images, good and defective ones.")
    rng = np.random.default_rng(0x1A8)
    anomalies = disturb(frames.frames[rng.integers(0, len(frames.frames), SYNTHETIC)], rng)
    trial = Trial(
        assembled, normals.good, "threshold", 0, frames, anomalies, labelled, false_reject, options.budget, console
    )
    return choose(trial, options.precision, options.calibration)


def facts_of(folder: Path, method: str, reading: Reading, normals: ThresholdData | None) -> dict[str, Any]:
    """Return the manifest's fields that every import of an ONNX model has."""
    return {
        "name": folder.name.removesuffix(".edgead"),
        "method": method,
        "preset": "imported",
        "category": normals.category if normals else "",
        "input": InputRecord(reading.size[0], reading.size[1], 16, batch=reading.batch or None),
        "data": data_of(normals),
        "training": TrainingRecord(),
        "images": sizes_of(normals.frames.size_ranges()) if normals else None,
    }


def data_of(normals: ThresholdData | None) -> DataRecord:
    """Return what the manifest says about the images: of an imported model's training nothing is known."""
    return DataRecord("", normals.frames.fingerprint, normals.part) if normals else DataRecord()


def files_of(paths: Sequence[Path]) -> dict[str, str]:
    """Return file name ↦ SHA-256, in the order given; with its folder's name where two have the same."""
    names = [path.name for path in paths]
    keys = [
        name if names.count(name) == 1 else f"{path.resolve().parent.name}/{name}" for path, name in zip(paths, names)
    ]
    return {key: sha256(path) for key, path in zip(keys, paths)}


def describe(reading: Reading) -> str:
    """Say in one line what the model is taken to want."""
    order = "grey" if reading.channels == 1 else "RGB" if reading.rgb else "BGR"
    text = f"input {reading.size[0]}×{reading.size[1]} {order}"
    text += f" divided by {reading.scale:g}" if reading.scale != 1 else ""
    if any(reading.mean) or any(value != 1 for value in reading.std):
        text += f", mean {', '.join(f'{value:g}' for value in reading.mean)}"
        text += f", std {', '.join(f'{value:g}' for value in reading.std)}"
    pooled = "highest map value" if not reading.pool else f"mean of the highest {reading.pool:.2%} of the map"
    text += f"; score {reading.score or pooled}; map {reading.map}"
    text += f"; looks at the middle {reading.crop[0]}×{reading.crop[1]} only" if reading.crop else ""
    return text + ("; one image at a time" if reading.batch else "")


def _take(model: onnx.ModelProto, options: OnnxOptions, heads: Mapping[str, anomalib.Head] | None = None) -> _Taken:
    """Resolve what the options leave open from the model itself."""
    value = find_input(model, options.input)
    channels, channels_last = find_channels(value)
    _check_channels(channels, options)
    if heads is None:
        score, anomaly_map = pick_outputs(model, options.score, options.map)
    else:
        score = heads[anomalib.SCORE].raw if anomalib.SCORE in heads else None
        anomaly_map = heads[anomalib.MAP].raw if anomalib.MAP in heads else "none"
    bytes_in = value.type.tensor_type.elem_type == TensorProto.UINT8
    reading = Reading(
        input=value.name,
        size=(0, 0),
        channels=channels,
        channels_last=channels_last,
        rgb=True if options.rgb is None else options.rgb,
        scale=options.scale or (1.0 if bytes_in else 255.0),
        mean=options.mean or (0.0,) * channels,
        std=options.std or (1.0,) * channels,
        score=score,
        map=anomaly_map,
        pool=options.share,
    )
    reading = dataclasses.replace(reading, size=_find_size(model, value, reading, options.size))
    return _Taken(model, observe(model, reading), dict(heads or {}), ())


def _check_channels(channels: int, options: OnnxOptions) -> None:
    """Refuse options that are of another number of channels than the model's."""
    if channels == 1 and options.rgb is not None:
        raise ConfigError("The model takes grey images, which have no colour order; leave out --rgb and --bgr.")
    for name in ("mean", "std"):
        values = getattr(options, name)
        if values is not None and len(values) != channels:
            raise ConfigError(f"--{name} takes one number for each of the model's {channels} channels, not {values}.")


def _find_size(
    model: onnx.ModelProto, value: onnx.ValueInfoProto, reading: Reading, wanted: tuple[int, int] | None
) -> tuple[int, int]:
    sides = dimensions(value)
    height, width = sides[1:3] if reading.channels_last else sides[2:4]
    for declared, side in zip((height, width), wanted or (0, 0)):
        if declared and side and declared != side:
            raise ConfigError(f"The model's input is {height}×{width}; another --size does not fit it. Leave it out.")
    if sides[0] > 1:
        raise ModelError(f"The model takes {sides[0]} images at a time. Export it for one, or for any number.")
    size = wanted or (height, width)
    if not all(size):
        size = find_resize(model, reading) or (0, 0)
    if not all(size):
        raise ModelError(
            f"The model takes images of any size ('{value.name}' is dynamic), a bundle has one.\n"
            "Say which it was trained with:  --size HEIGHTxWIDTH"
        )
    return size[0], size[1]


def _take_anomalib(model: onnx.ModelProto, options: OnnxOptions) -> _Taken:
    for name in ("score", "map", "rgb", "scale", "mean", "std"):
        if getattr(options, name) is not None:
            raise ConfigError(f"--{name} is known for a model of anomalib's; leave it out, or use --from onnx.")
    score, anomaly_map = anomalib.find_heads(model)
    heads = {anomalib.SCORE: score, anomalib.MAP: anomaly_map}
    taken = _take(model, options, {name: head for name, head in heads.items() if head})
    cut = [name for name, head in taken.heads.items() if head.spread is None]
    notes = tuple(f"{name} is taken as the model gives it: no normalisation was found before it" for name in cut)
    return dataclasses.replace(taken, notes=notes)


def _check_anomalib(taken: _Taken, original: Original, probes: NDArray[np.uint8]) -> None:
    """Normalised again, the raw values must be what the model's own heads give."""
    if not taken.heads:
        return
    names = list(taken.heads)
    reading = dataclasses.replace(taken.reading, score=names[0], map=names[1] if len(names) > 1 else "none")
    heads = Original(taken.model, reading)
    for frame in probes[:: len(probes) // 3, None]:
        anomalib.check_heads(taken.heads, original.raw(frame), heads.raw(frame))


def _own_limits(heads: Mapping[str, anomalib.Head]) -> Limits | None:
    """Return anomalib's own limits where the model holds them; they promise nothing about good parts."""
    score, anomaly_map = heads.get(anomalib.SCORE), heads.get(anomalib.MAP)
    limits = [head.threshold for head in (score, anomaly_map) if head and head.threshold is not None]
    if not limits:
        return None
    return Limits(Threshold(limits[0], 0, 1.0, 1.0), limits[-1], [], [])


def _wrapped(model: onnx.ModelProto, reading: Reading, original: Original) -> onnx.ModelProto:
    blank = np.zeros((1, *reading.size, 3), np.uint8)
    found, kinds = original.raw(blank), original.kinds()
    size = None if reading.map == "none" else as_maps(found[reading.map], reading.map).shape[1:]
    types = tuple(
        ONNX_TYPES.get(kinds.get(name, "float32"), TensorProto.FLOAT)
        for name in (reading.input, reading.score or "", reading.map)
    )
    return wrap(model, reading, None if size is None else (size[0], size[1]), (types[0], types[1], types[2]))


def _origin(path: Path, source: str, taken: _Taken, opset: int) -> Origin:
    external = [path.with_name(name) for name in _data_files(path)]
    model = taken.model
    maker = " ".join(part for part in (model.producer_name, model.producer_version) if part)
    heads = {name: HeadRecord(**dataclasses.asdict(head)) for name, head in taken.heads.items()}
    return Origin(
        what="an ONNX model of anomalib's" if source == "anomalib" else "an ONNX model",
        files=files_of([path, *external]),
        versions={"maker": maker, **{each.key: each.value[:200] for each in model.metadata_props}},
        opset={"model": version_of(model), "bundle": opset},
        edgead=edgead.__version__,
        anomalib=heads or None,
        notes=taken.notes or None,
    )


def _data_files(path: Path) -> list[str]:
    model = onnx.load_model(path, load_external_data=False)
    places = {
        entry.value for value in model.graph.initializer for entry in value.external_data if entry.key == "location"
    }
    return sorted(places)
