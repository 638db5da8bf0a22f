"""Every method's lower precisions: near the network, golden frames that accept what is right and refuse what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from float16_device import run_in_half, with_biases, wrong_graphs
from numpy.typing import NDArray
from test_contract import briefly_trained
from tiny import LARGE, SMALL
from torch import nn
from wrong_int8 import golden_of, wrong_int8_graphs

from edgead.bundle import CPU_MODEL, Golden, Outputs
from edgead.export.graph.normal_form import with_names_and_constants
from edgead.export.graph.to_onnx import write_onnx
from edgead.export.inference import run_reference, run_singly
from edgead.export.quantization.calibration import measure_ranges
from edgead.export.quantization.float16 import to_float16
from edgead.export.quantization.int8 import Ranges
from edgead.export.quantization.mixed_precision import GraphVariants
from edgead.machine import overflows_int8
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgead.runtime.engines.openvino_engine import the_core
from edgead.runtime.golden import compare
from edgead.train.method import Method


def _open_openvino(path: Path) -> Any:
    pytest.importorskip("openvino")
    core = the_core()
    compiled = core.compile_model(core.read_model(str(path)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda frame: [np.array(compiled({"frames": frame})[name]) for name in ("scores", "maps")]


def lively(method: Method) -> NDArray[np.uint8]:
    """Fit a network's norms to frames, noise of several grains and strengths, and return these.

    After three steps of training a network hardly tells one frame from another, and every error would be small enough.
    """
    height, width = method.config.size
    rng, frames = np.random.default_rng(1), []
    for grain, strength in ((1, 255), (2, 120), (4, 60), (8, 200), (1, 60), (2, 255), (4, 200), (8, 120)):
        shape = (height // grain + 1, width // grain + 1, method.config.channels)
        noise = rng.integers(0, 256, shape).repeat(grain, 0).repeat(grain, 1)
        frames.append(noise[:height, :width] * strength // 255 + rng.integers(0, 256 - strength))
    detector = method.reference_model()
    norms = [module for module in detector.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches, here of the one
        norm.train()
    batch = np.stack(frames).astype(np.uint8)
    with torch.no_grad():
        detector(torch.from_numpy(batch))
    for norm in norms:
        norm.eval()
    return batch


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.long if name in LARGE else ()) for name in SMALL]
)
def traced(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[onnx.ModelProto, Ranges, Golden]:
    """The graph, its tensors' ranges, and what the network gives."""
    method = briefly_trained(request.param, tmp_path_factory)[0]
    frames = lively(method)
    path = tmp_path_factory.mktemp("traced") / "model.onnx"
    write_onnx(method.export_model(), method.config.size, path, method.sensitive, method.config.channels)
    return (
        onnx.load(path),
        measure_ranges(path, frames, "minmax", iter),
        run_reference(method.reference_model(), frames),
    )


@pytest.mark.parametrize(("precision", "allowed"), [("fp16", 0.05), ("int8", 0.35), ("int8-fp16", 0.35)])
def test_lower_precisions_are_the_network_up_to_their_rounding(
    traced: tuple[onnx.ModelProto, Ranges, Golden], tmp_path: Path, precision: str, allowed: float
) -> None:
    """Root mean square errors of maps and scores on every engine, relative to what these vary by: 1 is a constant's."""
    model, ranges, reference = traced
    lowering = GraphVariants(model, ranges, precision)
    found = {}
    for form, make in lowering.judged().items():
        if precision == "int8-fp16" and form == "model.cpu.onnx":
            continue  # which is that of int8
        path = tmp_path / "lowered.onnx"
        onnx.save(make([]), path)
        as_written = form != CPU_MODEL and overflows_int8()  # sums of a form for GPUs would overflow
        found[f"onnxruntime {form}"] = OnnxRuntimeEngine(path, as_written=as_written).infer(reference.frames)
        if (form == "model.cpu.onnx" and not overflows_int8()) or (precision, form) == ("fp16", "model.onnx"):
            infer = _open_openvino(path)
            pairs = [infer(frame[None]) for frame in reference.frames]
            found[f"openvino {form}"] = tuple(np.concatenate(parts) for parts in zip(*pairs))
    for name, outputs in found.items():
        for what, ours, exact in zip(("scores", "maps"), outputs, (reference.scores, reference.maps)):
            error = np.sqrt(np.square(ours - exact).mean()) / exact.std()
            assert error < allowed, (name, what)


FAULTS = {"transposed weights", "no bias", "wrong scale"}


@pytest.mark.long
def test_an_engine_that_sums_in_float16_is_accepted_and_a_wrong_one_is_not(
    traced: tuple[onnx.ModelProto, Ranges, Golden], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Of each kind of fault at least one is refused, but TransFusion's biases: its layers add little to a residual."""
    model, frames = with_names_and_constants(with_biases(traced[0])), traced[2].frames

    def run(graph: onnx.ModelProto) -> Outputs:
        onnx.save(graph, tmp_path / "graph.onnx")
        return run_singly(OnnxRuntimeEngine(tmp_path / "graph.onnx"), frames)

    variants = GraphVariants(model, traced[1], "fp16")
    forms = [run(make([])) for make in variants.judged().values()]
    golden, limits = golden_of(Golden(frames, *run(model)), forms)
    device = run_in_half(to_float16(model, variants.too_large, emulate=True), frames)
    agreement = compare(golden, *device, *limits)
    assert agreement.good, agreement.describe()
    refused: dict[str, list[bool]] = {}
    for fault, graph in wrong_graphs(model, layers=4):
        refused.setdefault(fault, []).append(not compare(golden, *run(graph), *limits).good)
    hidden = {"no bias"} if "[transfusion" in request.node.name else set()
    assert {fault for fault, found in refused.items() if any(found)} >= FAULTS - hidden, refused


@pytest.mark.long
def test_golden_frames_of_int8_accept_what_is_right_and_refuse_what_is_not(
    traced: tuple[onnx.ModelProto, Ranges, Golden], tmp_path: Path
) -> None:
    """Right: the form for CPUs without integers. Of each kind of fault in TensorRT's form at least one is refused."""
    model, ranges, reference = traced
    forms = {name: make([]) for name, make in GraphVariants(model, ranges, "int8").judged().items()}

    def run(graph: onnx.ModelProto, *, as_written: bool = False) -> Outputs:
        onnx.save(graph, tmp_path / "graph.onnx")
        return run_singly(OnnxRuntimeEngine(tmp_path / "graph.onnx", as_written=as_written), reference.frames)

    judged = [run(graph, as_written=name != CPU_MODEL) for name, graph in forms.items()]
    golden, limits = golden_of(reference, judged)
    agreement = compare(golden, *run(forms[CPU_MODEL], as_written=True), *limits)
    assert agreement.good, agreement.describe()
    refused: dict[str, list[bool]] = {}
    for fault, graph in wrong_int8_graphs(forms["model.onnx"], places=4):
        refused.setdefault(fault, []).append(not compare(golden, *run(graph, as_written=True), *limits).good)
    assert refused
    assert all(any(found) for found in refused.values()), refused
