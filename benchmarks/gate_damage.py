"""Damaged graphs of finished runs, and images that need no label, for `gate_prediction.py`."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgead.datasets import Frames, load_frames
from edgead.export.builder import GATE_ANOMALIES
from edgead.export.graph.normal_form import with_names_and_constants
from edgead.export.graph.to_onnx import write_onnx
from edgead.export.quantization.calibration import measure_ranges
from edgead.export.quantization.gate import PERTURB_SEED, PERTURBED
from edgead.export.quantization.int8 import quantizable, to_int8
from edgead.export.quantization.perturb import perturb
from edgead.images import Frame
from edgead.train.checkpoint import load_method
from edgead.train.foreground import load_foreground_masks
from edgead.train.method import Method, TrainingData
from edgead.train.methods.student.config import StudentConfig
from edgead.train.methods.student.examples import draw_anomalous
from edgead.train.run_config import RunConfig

BITS = (6, 5, 4, 3)
STEPS = (4, 2, 1)
FULL_STEPS = 18
DRAWN = 40
"""Images of each kind that is drawn here."""
CALIBRATED = 32
OPACITY, EXTENT = (0.1, 0.5), (0.05, 0.25)
"""Ranges of a faint patch's opacity, and of its sides as shares of the image's."""


def unlabelled(run: RunConfig, method: Method, held_out: Frames) -> dict[str, NDArray[np.uint8]]:
    """Return images of every kind that needs no label, ``[N, H, W, 3] uint8`` each."""
    size = method.config.size
    masks = load_foreground_masks(run.config.foreground, held_out.paths, size)
    data = TrainingData(held_out.frames, foreground_masks=masks)
    gate_rng, rng = (np.random.default_rng((run.seed, salt)) for salt in (0x60D, 0xFA1))
    config = StudentConfig(size=(max(64, size[0]), max(64, size[1])))
    return {
        "good": held_out.frames,
        "gate": np.stack([method.example(data, gate_rng)["frame"] for _ in range(GATE_ANOMALIES)]),
        "jittered": perturb(held_out.frames, PERTURBED, np.random.default_rng(PERTURB_SEED)),
        "varied": np.stack([draw_anomalous(rng, data, config)[0] for _ in range(DRAWN)]),
        "faint": paste_faintly(held_out.frames, DRAWN, rng),
    }


def damaged(folder: Path, run: RunConfig, method: Method, reference: Path, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Yield damaged graphs with their names."""
    if getattr(method.config, "reverse_steps", 0) == FULL_STEPS:
        for steps in STEPS:
            _, fewer = load_method(folder, [f"reverse_steps={steps}"])
            path = scratch / f"{steps}.onnx"
            write_onnx(fewer.export_model(), method.config.size, path, channels=method.config.channels)
            yield f"{steps} steps", path
        return
    model = with_names_and_constants(onnx.load(reference))
    frames = load_frames(run.training_images(Path(run.data))[:CALIBRATED], method.config.size, run.pixels).frames
    graphs = {"int8": to_int8(model, measure_ranges(reference, frames, "minmax", iter), (), "cpu")}
    graphs |= {f"{bits} bits": rounded(model, bits) for bits in BITS}
    for name, graph in graphs.items():
        path = scratch / f"{name}.onnx"
        onnx.save(graph, path)
        yield name, path


def rounded(model: onnx.ModelProto, bits: int) -> onnx.ModelProto:
    """Round the weights of the layers that INT8 would lower, by output channel where they are convolutions."""
    model = copy.deepcopy(model)
    layers = {*quantizable(model)}
    names = {node.input[1] for node in model.graph.node if node.name in layers and node.op_type != "Add"}
    for tensor in model.graph.initializer:
        if tensor.name not in names:
            continue
        weight = numpy_helper.to_array(tensor)
        axes = (1, 2, 3) if weight.ndim == 4 else None
        scale = np.maximum(np.abs(weight).max(axis=axes, keepdims=True), 1e-12) / (2 ** (bits - 1) - 1)
        tensor.CopyFrom(numpy_helper.from_array((np.round(weight / scale) * scale).astype(np.float32), tensor.name))
    return model


def paste_faintly(frames: NDArray[np.uint8], count: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return good images with a faint patch of another place, every other one with its colours inverted."""
    return np.stack([_paste(frames[number % len(frames)], frames, number % 2 == 1, rng) for number in range(count)])


def _paste(frame: Frame, frames: NDArray[np.uint8], invert: bool, rng: np.random.Generator) -> Frame:
    height, width = (max(3, round(rng.uniform(*EXTENT) * side)) for side in frame.shape[:2])
    (top, left), (from_top, from_left) = (
        rng.integers(0, (frame.shape[0] - height + 1, frame.shape[1] - width + 1)) for _ in range(2)
    )
    patch = frames[rng.integers(len(frames)), from_top : from_top + height, from_left : from_left + width]
    rows, columns = (np.linspace(-1, 1, side) for side in (height, width))
    inside = np.clip(1 - rows[:, None] ** 2 - columns[None, :] ** 2, 0, 1)[:, :, None]
    changed = frame.astype(np.float64)
    place = changed[top : top + height, left : left + width]
    place += rng.uniform(*OPACITY) * inside * ((255.0 - patch if invert else patch) - place)
    return np.clip(np.round(changed), 0, 255).astype(np.uint8)
