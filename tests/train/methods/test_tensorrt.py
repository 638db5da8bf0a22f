"""Every method in every precision, for TensorRT: the rules of its parsers, and NVIDIA's own parser and builder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from tensorrt_on_cpu import make_shim, needs_rtx
from test_contract import small
from tiny import LARGE, SMALL

from edgead.bundle import MODEL
from edgead.console import Console
from edgead.errors import BundleError
from edgead.export.graph.tensorrt_rules import find_refusals
from edgead.export.graph.to_onnx import write_onnx
from edgead.export.quantization.calibration import measure_ranges
from edgead.export.quantization.float16 import overflowing, to_float16
from edgead.export.quantization.int8 import to_int8
from edgead.export.quantization.mixed_precision import GraphVariants
from edgead.runtime.engines.onnx_types import float_types
from edgead.runtime.engines.tensorrt_build import BuildEvent, BuildRequest, BuildSettings, build_plan
from edgead.runtime.engines.tensorrt_process import build_in_process
from edgead.runtime.engines.tensorrt_types import float32_layers

Graph = onnx.ModelProto
FORMS: dict[str, tuple[Callable[[Graph, dict[str, tuple[float, float]]], Graph], set[str]]] = {
    "fp32": (lambda graph, ranges: graph, set()),
    "fp16": (lambda graph, ranges: to_float16(graph, overflowing(graph, ranges)), set()),
    "int8": (lambda graph, ranges: to_int8(graph, ranges, [], "tensorrt"), set()),
    "int8-fp16": (
        lambda graph, ranges: to_float16(to_int8(graph, ranges, [], "compact"), overflowing(graph, ranges)),
        {"8.6", "8.x"},
    ),
}
"""Precision ↦ how its graph is made, and which TensorRT is known to refuse that form."""
builds = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the bindings warn, as in the process that builds


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.long if name in LARGE else ()) for name in SMALL]
)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, tuple[int, int], int, dict[str, tuple[float, float]]]:
    """A method's float32 graph with random weights, its size and channels, its tensors' ranges on two frames."""
    method, normals = small(request.param)
    path = tmp_path_factory.mktemp(request.param) / "model.onnx"
    config = method.config
    write_onnx(method.export_model(), config.size, path, method.sensitive, config.channels)
    return path, config.size, config.channels, dict(measure_ranges(path, normals[:2], "minmax", lambda items: items))


@pytest.mark.slow
@needs_rtx
@builds
@pytest.mark.parametrize("precision", FORMS)
def test_every_method_keeps_the_rules_and_builds(
    exported: tuple[Path, tuple[int, int], int, dict[str, tuple[float, float]]], precision: str, tmp_path: Path
) -> None:
    path, size, channels, ranges = exported
    make, refused_by = FORMS[precision]
    graph = make(onnx.load(path), ranges)
    assert {refusal.versions for refusal in find_refusals(graph)} == refused_by
    assert built_bytes(graph, size, channels, tmp_path) > 100_000


def built_bytes(graph: Graph, size: tuple[int, int], channels: int, folder: Path) -> int:
    """Build a graph's engine in this process, which is quicker than in one of its own; return how large it is."""
    import tensorrt_rtx as trt

    onnx.save(graph, folder / "model.onnx")
    places = (str(folder / name) for name in ("x.part", "x.timing"))
    request = BuildRequest(str(folder / "model.onnx"), size, (1,), *places, BuildSettings(), channels)
    events: list[BuildEvent] = []
    plan = build_plan(request, trt, events.append)
    assert events[0]["strong"]
    return memoryview(plan).nbytes


@pytest.mark.slow
@needs_rtx
@pytest.mark.parametrize("precision", FORMS)
def test_what_the_file_has_in_float32_is_what_nvidias_parser_has(
    exported: tuple[Path, tuple[int, int], int, dict[str, tuple[float, float]]], precision: str, tmp_path: Path
) -> None:
    """A strongly typed network tells every type, a weakly typed one only what the file says."""
    import tensorrt_rtx as trt

    original, _, _, ranges = exported
    graph, path = FORMS[precision][0](onnx.load(original), ranges), tmp_path / "model.onnx"
    onnx.save(graph, path)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(graph.SerializeToString())
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    found = {layer.name for layer, outputs in float32_layers(trt, layers, float_types(path)) if outputs}
    left_out = (trt.LayerType.CAST, trt.LayerType.CONSTANT, trt.LayerType.QUANTIZE, trt.LayerType.DEQUANTIZE)
    truth = {
        layer.name
        for layer in layers
        if layer.type not in left_out
        and any(layer.get_output(index).dtype == trt.float32 for index in range(layer.num_outputs))
    }
    assert found == truth
    assert len(found) < len(layers)


@pytest.mark.slow
@needs_rtx
@builds
@pytest.mark.parametrize("exported", ["draem", "drept"], indirect=True)
@pytest.mark.parametrize("precision", ["int8", "int8-fp16"])
def test_with_layers_handed_back_a_graph_keeps_the_rules_and_builds(
    exported: tuple[Path, tuple[int, int], int, dict[str, tuple[float, float]]], precision: str, tmp_path: Path
) -> None:
    """Every second layer in float32, so that INT8 and float32 meet in every way."""
    path, size, channels, ranges = exported
    lowering = GraphVariants(onnx.load(path), ranges, precision)
    kept = {name for names in list(lowering.layers().values())[1::2] for name in names}
    graph = lowering.shipped(kept)[MODEL]
    makers = {name: node.op_type for node in graph.graph.node for name in node.output}
    quantized = {node.name: makers.get(node.input[0]) == "DequantizeLinear" for node in graph.graph.node if node.input}
    assert not any(quantized[name] for name in kept)
    assert sum(quantized[node.name] for node in graph.graph.node if node.op_type == "Conv") >= 2
    assert {refusal.versions for refusal in find_refusals(graph)} == FORMS[precision][1]
    assert built_bytes(graph, size, channels, tmp_path) > 100_000


@needs_rtx
def test_the_form_for_cpus_is_refused_by_the_rules_and_by_nvidia(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, normals = small("draem")
    path = tmp_path / "model.onnx"
    write_onnx(method.export_model(), method.config.size, path, method.sensitive)
    graph = to_int8(onnx.load(path), measure_ranges(path, normals[:2], "minmax", lambda items: items), [], "cpu")
    assert "of every version" in {refusal.versions for refusal in find_refusals(graph)}
    onnx.save(graph, path)
    monkeypatch.syspath_prepend(str(make_shim(tmp_path / "shim")))
    request = BuildRequest(
        str(path), method.config.size, (1,), str(tmp_path / "p"), str(tmp_path / "t"), BuildSettings()
    )
    with pytest.raises(BundleError, match=r"cannot read .*: operator (De)?[Qq]uantizeLinear \(node '"):
        build_in_process(request, Console())
