"""The most that this machine computes and moves per second: what a floor is calculated from.

The peak is measured on an engine as bundles run on it: a bundle of nothing but 3×3 convolutions of many channels, in
the row's precision. Its graph is written here byte by byte, because the onnx package is not installed on the line.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import FORMAT, MODEL, Bundle, Golden, write_bundle
from edgead.bundle.manifest import DataRecord, InputRecord, Manifest, ParityRecord, StoredThreshold
from edgead.bundle.provenance import TrainingRecord
from edgead.machine import usable_cores
from edgead.runtime.engines import CPU_MODEL
from edgead.runtime.engines.opening import open_engine, runs_on_gpu

REPEATS = 12
"""Runs; the fastest counts."""
COPIED = 256 << 20
"""Bytes of the large copy, far more than the caches hold."""
OPSET, IR_VERSION = 17, 8
FLOAT, UINT8, INT8, FLOAT16 = 1, 2, 3, 10
"""ONNX's numbers of element types."""


@dataclass(frozen=True)
class Load:
    """A graph of `layers` 3×3 convolutions of `channels` on `side` × `side` pixels."""

    channels: int
    side: int
    layers: int

    @property
    def multiply_adds(self) -> int:
        """Of one frame."""
        pixels = self.side**2
        return self.layers * 9 * self.channels**2 * pixels + 3 * self.channels * pixels


ON_CPU, ON_GPU = Load(256, 32, 4), Load(512, 128, 8)


def peak_per_second(engine: str, precision: str) -> float:
    """Return the multiply-adds per second of an engine in a precision of `Manifest.precision`.

    Raises:
        EdgeadError: the engine cannot be opened here, or fails.
    """
    load = ON_GPU if runs_on_gpu(engine.partition(":")[0]) else ON_CPU
    with tempfile.TemporaryDirectory() as folder:
        runner = open_engine(engine, _bundle(Path(folder), load, precision))
        frames = np.random.default_rng(0).integers(0, 256, (1, load.side, load.side, 3), dtype=np.uint8)
        try:
            seconds = []
            for _ in range(REPEATS):
                start = time.perf_counter()
                runner.infer(frames)
                seconds.append(time.perf_counter() - start)
        finally:
            runner.close()
    return load.multiply_adds / min(seconds)


def bandwidth_per_second() -> float:
    """Return the bytes per second, read and written, of a copy of `COPIED` bytes by all cores."""
    cores = usable_cores() or 1
    source, target = np.ones(COPIED, np.uint8), np.zeros(COPIED, np.uint8)
    parts = list(zip(np.array_split(target, cores), np.array_split(source, cores)))
    seconds = []
    with ThreadPoolExecutor(cores) as pool:
        for _ in range(REPEATS):
            start = time.perf_counter()
            list(pool.map(lambda pair: np.copyto(*pair), parts))
            seconds.append(time.perf_counter() - start)
    return 2 * COPIED / min(seconds)


def _bundle(folder: Path, load: Load, precision: str) -> Bundle:
    (folder / MODEL).write_bytes(write_load(load, precision, INT8))
    if "int8" in precision:  # the CPU engines run unsigned activations faster
        (folder / CPU_MODEL).write_bytes(write_load(load, precision, UINT8))
    size = (load.side, load.side)
    manifest = Manifest(
        format=FORMAT,
        name="peak",
        method="peak",
        preset="",
        config={},
        category="",
        input=InputRecord(*size, bit_depth=16),
        precision=precision,
        threshold=StoredThreshold(0.0, 0, 1.0, 1.0),
        mask_threshold=0.0,
        parity=ParityRecord(score_error=0.0, map_error=0.0, tolerance=1.0),
        data=DataRecord(),
        training=TrainingRecord(),
        created="",
        edgead="",
    )
    outputs = np.zeros(1, np.float32), np.zeros((1, *size), np.float32)
    return Bundle(folder, write_bundle(folder, manifest, Golden(np.zeros((1, *size, 3), np.uint8), *outputs)))


def write_load(load: Load, precision: str, activations: int) -> bytes:
    """Return the ONNX file of a load with a bundle's signature.

    Args:
        load: of the graph.
        precision: ``fp32``, ``fp16``, ``int8`` or ``int8-fp16``.
        activations: element type of an INT8 graph's activations.
    """
    rng = np.random.default_rng(0)
    half, quantized = precision == "fp16", "int8" in precision
    kind = FLOAT16 if half else FLOAT
    nodes = [
        _node("Cast", ["frames"], "pixels", to=kind),
        _node("Transpose", ["pixels"], "planes", perm=[0, 3, 1, 2]),
    ]
    tensors: list[bytes] = []

    def weights(name: str, shape: tuple[int, ...], size: float) -> None:
        values = rng.normal(0, size, shape)
        if not quantized:
            tensors.append(_tensor(name, kind, values.astype(np.float16 if half else np.float32)))
            return
        scale = 3 * size / 127
        tensors.extend(_scale(f"{name}_scale", f"{name}_zero", scale, INT8))
        tensors.append(_tensor(f"{name}_q", INT8, np.clip(np.rint(values / scale), -127, 127).astype(np.int8)))
        nodes.append(_node("DequantizeLinear", [f"{name}_q", f"{name}_scale", f"{name}_zero"], name))

    weights("w_in", (load.channels, 3, 1, 1), 0.01)
    nodes.append(_node("Conv", ["planes", "w_in"], "c_in"))
    nodes.append(_node("Relu", ["c_in"], "x0"))
    for layer in range(load.layers):
        weights(f"w{layer}", (load.channels, load.channels, 3, 3), math.sqrt(2 / (9 * load.channels)))
        taken = f"x{layer}"
        if quantized:
            tensors.extend(_scale(f"s{layer}", f"z{layer}", 8 / 127, activations))
            nodes.append(_node("QuantizeLinear", [taken, f"s{layer}", f"z{layer}"], f"q{layer}"))
            nodes.append(_node("DequantizeLinear", [f"q{layer}", f"s{layer}", f"z{layer}"], f"d{layer}"))
            taken = f"d{layer}"
        nodes.append(_node("Conv", [taken, f"w{layer}"], f"c{layer}", pads=[1, 1, 1, 1]))
        nodes.append(_node("Relu", [f"c{layer}"], f"x{layer + 1}"))
    nodes += [
        _node("Cast", [f"x{load.layers}"], "last", to=FLOAT),
        _node("ReduceMean", ["last"], "maps", axes=[1], keepdims=0),
        _node("ReduceMax", ["maps"], "scores", axes=[1, 2], keepdims=0),
    ]
    side = load.side
    graph = [
        *(_field(1, node) for node in nodes),
        _field(2, b"peak"),
        *(_field(5, tensor) for tensor in tensors),
        _field(11, _value("frames", UINT8, ["N", side, side, 3])),
        _field(12, _value("scores", FLOAT, ["N"])),
        _field(12, _value("maps", FLOAT, ["N", side, side])),
    ]
    opset = _field(8, _field(1, b"") + _number(2, OPSET))
    return b"".join([_number(1, IR_VERSION), _field(7, b"".join(graph)), opset])


def _scale(scale: str, zero: str, value: float, kind: int) -> list[bytes]:
    point = np.zeros((), np.uint8 if kind == UINT8 else np.int8)
    return [_tensor(scale, FLOAT, np.asarray(value, np.float32)), _tensor(zero, kind, point)]


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _numbers(field: int, values: Iterable[int]) -> bytes:
    return b"".join(_number(field, value) for value in values)


def _node(operator: str, inputs: Sequence[str], output: str, **attributes: int | list[int]) -> bytes:
    """NodeProto: input 1, output 2, op_type 4, attribute 5; AttributeProto: name 1, i 3, ints 8, type 20."""
    written = [_field(1, name.encode()) for name in inputs]
    written += [_field(2, output.encode()), _field(3, output.encode()), _field(4, operator.encode())]
    for name, value in attributes.items():
        single = isinstance(value, int)
        body = _numbers(3, [value]) if isinstance(value, int) else _numbers(8, value)
        written.append(_field(5, _field(1, name.encode()) + body + _number(20, 2 if single else 7)))
    return b"".join(written)


def _tensor(name: str, kind: int, values: NDArray[np.generic]) -> bytes:
    """TensorProto: dims 1, data_type 2, name 8, raw_data 9."""
    little = values.astype(values.dtype.newbyteorder("<"))
    return _numbers(1, values.shape) + _number(2, kind) + _field(8, name.encode()) + _field(9, little.tobytes())


def _value(name: str, kind: int, shape: Sequence[str | int]) -> bytes:
    """ValueInfoProto with a TypeProto.Tensor: elem_type 1, shape 2; a dimension's value 1 or name 2."""
    dims = (_number(1, each) if isinstance(each, int) else _field(2, each.encode()) for each in shape)
    tensor = _number(1, kind) + _field(2, b"".join(_field(1, dim) for dim in dims))
    return _field(1, name.encode()) + _field(2, _field(1, tensor))
