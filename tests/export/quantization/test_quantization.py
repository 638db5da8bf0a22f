"""Graphs of lower precision: what is marked, what is folded, which types and Q/DQ they hold, what they give."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from edgead.errors import ConfigError
from edgead.export.graph.sensitive import is_sensitive
from edgead.export.graph.simplify import fold_batch_norms
from edgead.export.graph.to_onnx import OPSET, write_onnx
from edgead.export.quantization.calibration import measure_ranges
from edgead.export.quantization.float16 import overflowing, to_float16
from edgead.export.quantization.int8 import Ranges, quantizable, to_int8
from edgead.export.quantization.mixed_precision import open_variant
from edgead.runtime.engines import CPU_MODEL

SIZE = (32, 48)


class Ending(nn.Module):
    """A weighted layer, and values that float16 cannot hold."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return (self.mix(x).abs() * 1e6 + 1e-9) / 1e6


class Network(nn.Module):
    """Convolutions, a residual sum, upsampling, concatenation, and the signature of a bundle."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.up, self.norm = nn.ConvTranspose2d(8, 8, 2, 2, groups=2), nn.BatchNorm2d(8)
        self.join = nn.Conv2d(16, 8, 3, padding=1)
        self.endings = nn.ModuleList([Ending(), Ending()])

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        x = self.first(frames.float().permute(0, 3, 1, 2) / 255).relu()
        x = x + self.second(x).relu()
        deep = self.norm(self.up(self.down(x))).relu()
        wide = nn.functional.interpolate(self.down(x), scale_factor=2.0, mode="bilinear", align_corners=True)
        y = self.join(torch.cat([deep, wide], dim=1))
        maps = (self.endings[0](y) + self.endings[1](y.relu()))[:, 0]
        return maps.amax(dim=(1, 2)), maps


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    network = Network()
    for buffer in (network.norm.running_mean, network.norm.running_var):
        assert buffer is not None
        buffer.uniform_(0.5, 2)
    return network.eval()


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (6, *SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def path(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    write_onnx(network, SIZE, path, ["endings"])
    return path


@pytest.fixture(scope="module")
def model(path: Path) -> onnx.ModelProto:
    return onnx.load(path)


@pytest.fixture(scope="module")
def ranges(path: Path, frames: NDArray[np.uint8]) -> Ranges:
    return measure_ranges(path, frames, "minmax", iter)


def infer(model: onnx.ModelProto, frames: NDArray[np.uint8], folder: Path) -> NDArray[np.float32]:
    """Return the maps."""
    onnx.checker.check_model(model, full_check=True)
    return open_variant(CPU_MODEL, model, folder).infer(frames)[1]


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    types = {v.name: v.type.tensor_type.elem_type for v in [*inferred.value_info, *inferred.input, *inferred.output]}
    return types | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def test_the_sensitive_are_marked_and_stay_marked(model: onnx.ModelProto) -> None:
    marked = [node for node in model.graph.node if is_sensitive(node)]
    assert sorted(node.op_type for node in marked) == sorted(["Conv", "Abs", "Mul", "Add", "Div"] * 2)
    assert {node.op_type for node in model.graph.node if not is_sensitive(node)} >= {"Conv", "ConvTranspose", "Resize"}


@pytest.mark.parametrize(
    ("name", "message"),
    [("ending", "no such submodule"), ("", "no such submodule"), ("idle", "never calls it")],
)
def test_a_sensitive_name_that_matches_nothing_is_an_error(name: str, message: str, tmp_path: Path) -> None:
    network = Network().eval()
    network.add_module("idle", nn.Identity())
    with pytest.raises(ConfigError, match=message):
        write_onnx(network, SIZE, tmp_path / "model.onnx", [name])


def test_batch_norms_behind_transposed_convolutions_are_folded(
    network: Network, model: onnx.ModelProto, frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    assert not {node.op_type for node in model.graph.node} & {"BatchNormalization", "Identity", "Constant"}
    with torch.inference_mode():
        expected = network(torch.from_numpy(frames))[1].numpy()
    assert np.allclose(infer(model, frames, tmp_path), expected, atol=1e-4)


def test_a_batch_norm_is_not_folded_into_what_others_read(tmp_path: Path) -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.ConvTranspose2d(2, 3, 2), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return y + self.norm(y)

    network = Shared().eval()
    example = (torch.zeros(1, 2, 4, 4),)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, example, str(tmp_path / "x.onnx"), dynamo=False, opset_version=OPSET)
    model = onnx.load(tmp_path / "x.onnx")
    fold_batch_norms(model)
    assert "BatchNormalization" in {node.op_type for node in model.graph.node}


def test_float16_keeps_the_signature_and_the_sensitive(model: onnx.ModelProto) -> None:
    half = to_float16(model, {"/second/Conv"})
    types = element_types(half)
    assert (types["frames"], types["scores"], types["maps"]) == (
        TensorProto.UINT8,
        TensorProto.FLOAT,
        TensorProto.FLOAT,
    )
    assert half.opset_import[0].version == OPSET
    for node in half.graph.node:
        if node.op_type in ("Cast", "Resize"):
            continue
        wanted = TensorProto.FLOAT if is_sensitive(node) or node.name == "/second/Conv" else TensorProto.FLOAT16
        floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
        found = {types[name] for name in (*node.input, *node.output) if types.get(name) in floats}
        # The output of a graph stays float32 where a float16 node makes it: the last cast is its own node.
        assert found <= {wanted}, node.name
    assert "/Cast_output_0" in types


def test_float16_gives_what_it_should(model: onnx.ModelProto, frames: NDArray[np.uint8], tmp_path: Path) -> None:
    exact = infer(model, frames, tmp_path)
    typed, emulated = to_float16(model, ()), to_float16(model, (), emulate=True)
    assert TensorProto.FLOAT16 not in {tensor.data_type for tensor in emulated.graph.initializer}
    for graph in (typed, emulated):
        error = np.abs(infer(graph, frames, tmp_path) - exact)
        assert 0 < error.max() < 0.05 * exact.std()


def test_overflow_shows_in_the_emulation_alone(frames: NDArray[np.uint8], tmp_path: Path) -> None:
    """ONNX Runtime computes a float16 graph in float32 on a CPU, so only the emulation can be judged."""

    class Square(nn.Module):
        def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
            x = frames.float().permute(0, 3, 1, 2).mean(dim=1)
            maps = (x * 4) * (x * 4) / 1000
            return maps.amax(dim=(1, 2)), maps

    write_onnx(Square(), SIZE, tmp_path / "square.onnx")
    model = onnx.load(tmp_path / "square.onnx")
    assert np.isfinite(infer(to_float16(model, ()), frames, tmp_path)).all()
    assert not np.isfinite(infer(to_float16(model, (), emulate=True), frames, tmp_path)).all()
    large = overflowing(model, measure_ranges(tmp_path / "square.onnx", frames, "minmax", iter))
    assert large
    exact = infer(model, frames, tmp_path)
    kept = infer(to_float16(model, large, emulate=True), frames, tmp_path)
    assert np.allclose(kept, exact, rtol=5e-3)


def test_constants_that_float16_cannot_hold_are_found(model: onnx.ModelProto) -> None:
    constants = [node.name for node in model.graph.node if node.op_type in ("Mul", "Add", "Div") and is_sensitive(node)]
    assert set(overflowing(model, {})) == set(constants)  # 1e6 overflows, 1e-9 vanishes


def test_what_comes_near_the_end_of_float16_is_found(model: onnx.ModelProto) -> None:
    """Calibration has not seen every value."""
    node = next(node for node in model.graph.node if node.op_type == "Resize")
    usual = {*overflowing(model, {})}
    assert {*overflowing(model, {node.output[0]: (-65504 / 4.1, 1)})} == usual
    assert node.name in {*overflowing(model, {node.output[0]: (-65504 / 3.9, 1)})} - usual


def test_tensorrts_form_is_what_its_parsers_take(model: onnx.ModelProto, ranges: Ranges) -> None:
    quantized = to_int8(model, ranges, {"/second/Conv"}, "tensorrt")
    constants = {tensor.name: tensor for tensor in quantized.graph.initializer}
    nodes = quantized.graph.node
    makers = {output: node for node in nodes for output in node.output}
    pairs = [node for node in nodes if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) > 10
    for node in pairs:
        zero = numpy_helper.to_array(constants[node.input[2]])
        assert len(node.input) == 3
        assert zero.dtype == np.int8
        assert not zero.any()
        assert constants[node.input[1]].data_type == TensorProto.FLOAT
        assert node.input[0] not in constants or node.op_type == "QuantizeLinear"  # 8.x takes no int8 weights
    assert TensorProto.INT32 not in element_types(quantized).values()
    assert [entry.domain for entry in quantized.opset_import] == [""]
    behind = {node.name: makers.get(node.input[0]) for node in nodes if node.op_type in ("Conv", "ConvTranspose")}
    lowered = {name for name, maker in behind.items() if maker is not None and maker.op_type == "DequantizeLinear"}
    assert lowered == {"/first/Conv", "/down/Conv", "/join/Conv"}
    # Nothing behind a layer is quantised for its own sake, so that sums are taken in full.
    assert all(makers[node.input[0]].op_type != "Conv" for node in pairs if node.input[0] in makers)


def test_the_form_for_cpus_has_bytes_and_whole_biases(model: onnx.ModelProto, ranges: Ranges) -> None:
    types = element_types(to_int8(model, ranges, (), "cpu"))
    assert {TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32} <= set(types.values())
    weights = {name: kind for name, kind in types.items() if name.endswith("weight_quantized")}
    assert weights
    assert set(weights.values()) == {TensorProto.INT8}


def test_int8_forms_agree_with_float32_and_with_each_other(
    model: onnx.ModelProto, ranges: Ranges, frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    exact = infer(model, frames, tmp_path)
    found = {form: infer(to_int8(model, ranges, (), form), frames, tmp_path) for form in ("tensorrt", "compact", "cpu")}
    for form, maps in found.items():
        assert 0 < np.sqrt(np.square(maps - exact).mean()) < 0.15 * exact.std(), form
    assert np.allclose(found["tensorrt"], found["compact"], atol=1e-4)
    assert np.sqrt(np.square(found["tensorrt"] - found["cpu"]).mean()) < 0.15 * exact.std()


def test_nothing_is_left_when_everything_is_kept(model: onnx.ModelProto, ranges: Ranges) -> None:
    for form in ("tensorrt", "compact", "cpu"):
        graph = to_int8(model, ranges, quantizable(model), form).graph
        assert "QuantizeLinear" not in {node.op_type for node in graph.node}


def test_int8_beside_float16(model: onnx.ModelProto, ranges: Ranges, frames: NDArray[np.uint8], tmp_path: Path) -> None:
    compact = to_int8(model, ranges, ("/second/Conv",), "compact")
    mixed = to_float16(compact, ())
    onnx.checker.check_model(mixed, full_check=True)
    types = element_types(mixed)
    assert mixed.opset_import[0].version == 19
    scales = {types[node.input[1]] for node in mixed.graph.node if node.op_type.endswith("quantizeLinear")}
    assert scales <= {TensorProto.FLOAT16}
    assert {node.name for node in model.graph.node} <= {node.name for node in mixed.graph.node}
    exact, emulated = infer(model, frames, tmp_path), infer(to_float16(compact, (), emulate=True), frames, tmp_path)
    assert np.sqrt(np.square(emulated - exact).mean()) < 0.15 * exact.std()
    assert TensorProto.FLOAT not in {tensor.data_type for tensor in mixed.graph.initializer if "second" in tensor.name}


def test_a_scale_does_not_vanish_in_float16(model: onnx.ModelProto, ranges: Ranges) -> None:
    almost_nothing = {name: (-1e-9, 1e-9) for name in ranges}
    graph = to_float16(to_int8(model, almost_nothing, (), "compact"), ()).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    scales = [constants[node.input[1]] for node in graph.node if node.op_type == "QuantizeLinear"]
    assert scales
    assert all(scale.dtype == np.float16 and (scale > 0).all() for scale in scales)


def test_a_graph_that_was_quantised_elsewhere_runs(
    model: onnx.ModelProto, frames: NDArray[np.uint8], path: Path, tmp_path: Path
) -> None:
    """A user's own Q/DQ graph, here of ONNX Runtime's own tool with its defaults, is a graph like any other."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.frames = iter(frames)

        def get_next(self) -> Any:
            frame = next(self.frames, None)
            return None if frame is None else {"frames": frame[None]}

    exact_nodes = [node.name for node in model.graph.node if is_sensitive(node) or node.op_type == "ConvTranspose"]
    quantization.quantize_static(path, tmp_path / "own.onnx", Reader(), nodes_to_exclude=exact_nodes)
    own = onnx.load(tmp_path / "own.onnx")
    exact = infer(model, frames, tmp_path)
    assert np.sqrt(np.square(infer(own, frames, tmp_path) - exact).mean()) < 0.5 * exact.std()
