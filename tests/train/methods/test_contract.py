"""What every method must do, whatever it is."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from float16_device import run_in_half, with_biases, wrong_graphs
from level_bundle import teaching
from numpy.typing import NDArray
from tiny import SMALL
from torch import nn
from wrong_int8 import golden_of, wrong_int8_graphs

from edgead.bundle import CPU_MODEL, Golden, Outputs
from edgead.errors import ConfigError
from edgead.export.graph.normal_form import with_names_and_constants
from edgead.export.graph.to_onnx import OPSET, write_onnx
from edgead.export.inference import run_reference, run_singly
from edgead.export.parity import check_parity
from edgead.export.quantization.calibration import measure_ranges
from edgead.export.quantization.float16 import to_float16
from edgead.export.quantization.int8 import Ranges
from edgead.export.quantization.mixed_precision import GraphVariants
from edgead.images import read_frame
from edgead.machine import overflows_int8
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgead.runtime.engines.openvino_engine import the_core
from edgead.runtime.golden import compare
from edgead.train.configuration import as_setting, configure, read_config, reconfigure
from edgead.train.describe import as_text, describe
from edgead.train.fit import fit
from edgead.train.method import Method, TrainingData
from edgead.train.methods import METHODS, get_method
from edgead.train.plots import draw_examples


def small(name: str, more: tuple[str, ...] = ()) -> tuple[Method, NDArray[np.uint8]]:
    kind = get_method(name.split()[0])
    torch.manual_seed(0)
    method = kind(configure(kind, "nano", (*SMALL[name], *more)))
    shape = (6, *method.config.size, method.config.channels)
    normals = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return method, normals


def untrained(method: Method, seed: int = 0) -> Method:
    torch.manual_seed(seed)
    return type(method)(method.config)  # type: ignore[call-arg]


@pytest.fixture(scope="module", params=list(SMALL))
def fitted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Method, NDArray[np.uint8]]:
    method, normals = small(request.param, teaching(request.param, tmp_path_factory.mktemp("teacher")))
    stages = method.stages(TrainingData(normals))
    fit(method, stages, tmp_path_factory.mktemp("run"), seed=0, device="cpu")
    return method, normals


def test_shapes_types_and_values(fitted: tuple[Method, NDArray[np.uint8]]) -> None:
    method, normals = fitted
    for module in (method.reference_model(), method.export_model()):
        with torch.inference_mode():
            scores, maps = module(torch.from_numpy(normals[:3]))
        assert scores.shape == (3,)
        assert maps.shape == (3, *method.config.size)
        assert scores.dtype == maps.dtype == torch.float32
        assert torch.isfinite(scores).all()
        assert torch.isfinite(maps).all()
        assert not module.training


def test_the_graph_is_the_network(fitted: tuple[Method, NDArray[np.uint8]], tmp_path: Path) -> None:
    method, normals = fitted
    write_onnx(method.export_model(), method.config.size, tmp_path / "model.onnx", channels=method.config.channels)
    engine = OnnxRuntimeEngine(tmp_path / "model.onnx")
    together = engine.infer(normals)
    check_parity(run_reference(method.reference_model(), normals), *together)
    alone = engine.infer(normals[2:3])
    assert np.allclose(alone[0], together[0][2:3], atol=1e-5)
    assert np.allclose(alone[1], together[1][2:3], atol=1e-5)


def _open_openvino(path: Path) -> Any:
    pytest.importorskip("openvino")
    core = the_core()
    compiled = core.compile_model(core.read_model(str(path)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda frame: [np.array(compiled({"frames": frame})[name]) for name in ("scores", "maps")]


def lively(fitted: Method) -> tuple[Method, NDArray[np.uint8]]:
    """Return a copy with norms fitted to frames, and these frames, noise of several grains and strengths.

    After three steps of training a network hardly tells one frame from another, and every error would be small enough.
    """
    method, (height, width) = copy.deepcopy(fitted), fitted.config.size
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
    return method, batch


@pytest.fixture(scope="module")
def traced(
    fitted: tuple[Method, NDArray[np.uint8]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[onnx.ModelProto, Ranges, Golden]:
    """The graph, its tensors' ranges, and what the network gives."""
    method, frames = lively(fitted[0])
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


def test_the_graph_has_the_one_signature_and_no_leftovers(
    fitted: tuple[Method, NDArray[np.uint8]], tmp_path: Path
) -> None:
    method, _ = fitted
    write_onnx(method.export_model(), method.config.size, tmp_path / "model.onnx", channels=method.config.channels)
    model = onnx.load(tmp_path / "model.onnx")

    def form(value: Any) -> tuple[str, int, list[Any]]:
        tensor = value.type.tensor_type
        return value.name, tensor.elem_type, [side.dim_param or side.dim_value for side in tensor.shape.dim]

    (height, width), channels = method.config.size, method.config.channels
    frames = ("frames", onnx.TensorProto.UINT8, ["N", height, width, channels])
    assert [form(value) for value in model.graph.input] == [frames]
    assert [form(value) for value in model.graph.output] == [
        ("scores", onnx.TensorProto.FLOAT, ["N"]),
        ("maps", onnx.TensorProto.FLOAT, ["N", height, width]),
    ]
    assert model.opset_import[0].version == OPSET
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"BatchNormalization", "Shape", "Loop", "If", "Dropout"}


def test_the_same_seed_gives_the_same_weights(fitted: tuple[Method, NDArray[np.uint8]], tmp_path: Path) -> None:
    method, normals = fitted
    states = {}
    for name, seed in (("again", 0), ("other", 1)):
        fresh = untrained(method, seed)
        fit(fresh, fresh.stages(TrainingData(normals)), tmp_path / name, seed=seed, device="cpu")
        states[name] = fresh.network.state_dict()
    for key, value in method.network.state_dict().items():
        assert torch.equal(value, states["again"][key]), key
    assert any(not torch.equal(value, states["other"][key]) for key, value in method.network.state_dict().items())


def test_training_changes_weights_and_deploying_does_not(fitted: tuple[Method, NDArray[np.uint8]]) -> None:
    method, _ = fitted
    fresh = untrained(method)
    before = {key: value.clone() for key, value in method.network.state_dict().items()}
    assert any(not torch.equal(value, fresh.network.state_dict()[key]) for key, value in before.items())
    method.export_model()
    assert all(torch.equal(value, before[key]) for key, value in method.network.state_dict().items())


def test_examples_are_anomalies(fitted: tuple[Method, NDArray[np.uint8]]) -> None:
    method, normals = fitted
    example = method.example(TrainingData(normals), np.random.default_rng(0))
    assert example["frame"].shape == (*method.config.size, method.config.channels)
    assert example["frame"].dtype == np.uint8
    assert example["mask"].any()


def test_the_grid_shows_frames_above_their_depth_and_masks(
    fitted: tuple[Method, NDArray[np.uint8]], tmp_path: Path
) -> None:
    method, normals = fitted
    rng = np.random.default_rng(0)
    made = [method.example(TrainingData(normals), rng) for _ in range(3)]
    draw_examples([(example["frame"], example["mask"]) for example in made], tmp_path / "synthetic.png")
    grid = read_frame(tmp_path / "synthetic.png")
    height, width = method.config.size
    assert grid.shape == ((method.config.channels - 1) * height, 3 * width, 3)
    for column, example in enumerate(made):
        shown, frame = grid[:, column * width : (column + 1) * width], example["frame"]
        assert np.array_equal(shown[:height], frame[:, :, :3])
        assert np.array_equal(shown[-height:] > 0, np.repeat(example["mask"][:, :, None], 3, axis=2))
        if method.config.channels == 4:
            assert np.array_equal(shown[height : 2 * height], np.repeat(frame[:, :, 3:], 3, axis=2))


@pytest.mark.parametrize("name", list(METHODS))
def test_presets_and_configuration_survive_json(name: str) -> None:
    kind = get_method(name)
    assert {"paper", "edge", "nano"} <= set(kind.presets)
    for preset in kind.presets:
        config = configure(kind, preset)
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in config.__dict__.items()}
        assert read_config(kind, values) == config


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("size=big", "size must be HEIGHTxWIDTH"),
        ("learning_rat=1", "Did you mean 'learning_rate'"),
        ("steps", "NAME=VALUE"),
        ("batch_size=0", "batch_size is 0; it must be from 1 to"),
    ],
)
def test_bad_settings_say_what_would_be_right(setting: str, message: str) -> None:
    for name in METHODS:
        if setting.startswith("learning") and not get_method(name).Config.step_settings:
            continue
        with pytest.raises(ConfigError, match=message):
            configure(get_method(name), "nano", [setting])


@pytest.mark.parametrize("name", list(METHODS))
def test_numbers_that_float32_cannot_hold_are_refused(name: str) -> None:
    kind = get_method(name)
    for field in dataclasses.fields(kind.Config):
        *others, last = field.default if isinstance(field.default, tuple) else (field.default,)
        if isinstance(last, float):
            for number in ("nan", "inf", "-inf", "3e38"):
                setting = ",".join([*map(str, others), number])
                with pytest.raises(ConfigError, match=rf"^{field.name} must be a finite number below 1e\+30, not"):
                    configure(kind, "nano", [f"{field.name}={setting}"])
    for setting in kind.Config.step_settings:
        with pytest.raises(ConfigError, match=rf"^{setting} must be a finite number"):
            configure(kind, "nano", [f"{setting}={10**400}"])


def test_unknown_names_are_corrected() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'draem'"):
        get_method("dream")
    with pytest.raises(ConfigError, match="Available: paper, edge, nano"):
        configure(get_method("draem"), "tiny")


@pytest.mark.parametrize("name", list(METHODS))
def test_settings_at_export(name: str) -> None:
    kind = get_method(name)
    values = configure(kind, "nano")
    assert reconfigure(kind, values, [], "export") == values
    with pytest.raises(ConfigError, match="size was fixed when the run was started"):
        reconfigure(kind, values, ["size=64"], "export")
    with pytest.raises(ConfigError, match="Unknown setting 'stepz'"):
        reconfigure(kind, values, ["stepz=1"], "export")
    for setting in kind.export_settings:
        method, _ = small(name)
        before = {key: value.shape for key, value in method.network.state_dict().items()}
        stored, given = method.config, f"{setting}={type(getattr(values, setting))(1)}"
        changed = reconfigure(kind, stored, [given], "export")
        assert changed != stored
        after = kind(changed).network.state_dict()
        assert {key: value.shape for key, value in after.items()} == before  # the weights still fit


def test_every_method_is_described_and_each_of_its_settings_has_a_meaning_and_can_be_set_as_shown() -> None:
    assert [entry.name for entry in describe()] == list(METHODS)
    for entry in describe():
        kind = get_method(entry.name)
        assert list(entry.settings) == [field.name for field in dataclasses.fields(kind.Config)]
        for setting in entry.settings.values():
            assert setting.meaning[-1] in ".…"
            assert set(setting.presets) == set(kind.presets)
        lines = [line.strip() for line in as_text(entry, settings=True).splitlines()]
        for name, setting in entry.settings.items():
            (line,) = (line for line in lines if line.startswith(f"{name} = "))
            shown = line.partition(" = ")[2].partition(" (")[0]
            read = configure(kind, "paper", [f"{name}={shown.strip(chr(34))}"])
            assert as_setting(name, getattr(read, name)) == shown == as_setting(name, setting.presets["paper"])
