"""What every method must do, whatever it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from level_bundle import teaching
from numpy.typing import NDArray
from tiny import SMALL

from edgead.errors import ConfigError
from edgead.export.graph.to_onnx import OPSET, write_onnx
from edgead.export.inference import run_reference
from edgead.export.parity import check_parity
from edgead.images import read_frame
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
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


def briefly_trained(name: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Method, NDArray[np.uint8]]:
    """Return a method after a few steps, and what it learned from."""
    method, normals = small(name, teaching(name, tmp_path_factory.mktemp("teacher")))
    fit(method, method.stages(TrainingData(normals)), tmp_path_factory.mktemp("run"), seed=0, device="cpu")
    return method, normals


@pytest.fixture(scope="module", params=list(SMALL))
def fitted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Method, NDArray[np.uint8]]:
    return briefly_trained(request.param, tmp_path_factory)


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


@pytest.fixture(scope="module")
def graph(fitted: tuple[Method, NDArray[np.uint8]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    method, path = fitted[0], tmp_path_factory.mktemp("graph") / "model.onnx"
    write_onnx(method.export_model(), method.config.size, path, channels=method.config.channels)
    return path


def test_the_graph_is_the_network(fitted: tuple[Method, NDArray[np.uint8]], graph: Path) -> None:
    method, normals = fitted
    engine = OnnxRuntimeEngine(graph)
    together = engine.infer(normals)
    check_parity(run_reference(method.reference_model(), normals), *together)
    alone = engine.infer(normals[2:3])
    assert np.allclose(alone[0], together[0][2:3], atol=1e-5)
    assert np.allclose(alone[1], together[1][2:3], atol=1e-5)


def test_the_graph_has_the_one_signature_and_no_leftovers(
    fitted: tuple[Method, NDArray[np.uint8]], graph: Path
) -> None:
    method, model = fitted[0], onnx.load(graph)

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
