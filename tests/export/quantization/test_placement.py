"""Q/DQ of TensorRT's form: each pattern that TensorRT fuses, placed, computed, and built by its parser and builder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper
from tensorrt_on_cpu import needs_rtx
from wrong_int8 import FAULTS, golden_of, wrong_int8_graphs

from edgead.bundle import CPU_MODEL, Golden, Outputs
from edgead.export.quantization.calibration import measure_ranges
from edgead.export.quantization.int8 import to_int8
from edgead.export.quantization.mixed_precision import open_variant
from edgead.runtime.golden import compare

HEAD = """
    <ir_version: 8, opset_import: ["": 17]>
    pattern (uint8[N,16,16,3] frames) => (float[N] scores, float[N,16,16] maps)
    <int64[1] ones = {1}, float limit = {20.0}> {
        pixels = Cast<to=1>(frames)
        image = Transpose<perm=[0,3,1,2]>(pixels)
        x = Conv<pads=[1,1,1,1]>(image, stem)
        r = Relu(x)
"""
TAIL = """
        end = Conv(y, last)
        maps = Squeeze(end, ones)
        scores = ReduceMax<axes=[1,2], keepdims=0>(maps)
    }"""
PATTERNS = {
    "residual": """
        a = Conv<pads=[1,1,1,1]>(r, w1)
        s = Add(a, r)
        y = Relu(s)""",
    "shortcut": """
        side = Conv(r, p1)
        a = Conv<pads=[1,1,1,1]>(r, w1)
        b = Relu(a)
        c = Conv<pads=[1,1,1,1]>(b, w2)
        s = Add(c, side)
        y = Relu(s)""",
    "no layer before the sum": """
        a = Conv<pads=[1,1,1,1]>(r, w1)
        b = Relu(a)
        y = Add(b, r)""",
    "skip": """
        p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
        d = Conv<pads=[1,1,1,1]>(p, w1)
        e = Relu(d)
        u = ConvTranspose<strides=[2,2]>(e, t1)
        v = Relu(u)
        k = Concat<axis=1>(v, r)
        y = Conv<pads=[1,1,1,1]>(k, wide)""",
    "a mask beside it": """
        bright = Greater(r, limit)
        mask = Cast<to=1>(bright)
        k = Concat<axis=1>(r, mask)
        y = Conv<pads=[1,1,1,1]>(k, wide)""",
    "a concatenation that is read exactly": """
        a = Conv<pads=[1,1,1,1]>(r, w1)
        b = Relu(a)
        k = Concat<axis=1>(b, r)
        c = Conv<pads=[1,1,1,1]>(k, wide)
        m = ReduceMean<axes=[1], keepdims=1>(k)
        y = Mul(c, m)""",
}
SHAPES = {"stem": (8, 3, 3, 3), "last": (1, 8, 1, 1), "w1": (8, 8, 3, 3), "w2": (8, 8, 3, 3), "p1": (8, 8, 1, 1)}
SHAPES |= {"t1": (8, 8, 2, 2), "wide": (8, 16, 3, 3)}


def make(pattern: str) -> onnx.ModelProto:
    """Return a graph with the pattern, named after its tensors."""
    text = HEAD + PATTERNS[pattern] + TAIL
    used = {name: shape for name, shape in SHAPES.items() if f", {name})" in text}
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, shape in used.items():
        values = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    for node in model.graph.node:
        node.name = f"/{node.output[0]}"
    return model


class Quantised:
    """A pattern in float32 and in TensorRT's form."""

    def __init__(self, pattern: str, folder: Path) -> None:
        self.folder, self.model = folder, make(pattern)
        onnx.save(self.model, folder / "exact.onnx")
        blocks = np.random.default_rng(1).integers(0, 256, (6, 4, 4, 3)).repeat(4, 1).repeat(4, 2)
        self.frames = blocks.astype(np.uint8)
        self.ranges = measure_ranges(folder / "exact.onnx", self.frames, "minmax", iter)
        self.graph = to_int8(self.model, self.ranges, (), "tensorrt")
        self.nodes = {node.name: node for node in self.graph.graph.node}
        self.makers = {node.output[0]: node for node in self.graph.graph.node}
        self.constants = {each.name: numpy_helper.to_array(each) for each in self.graph.graph.initializer}

    def pair(self, reader: str, index: int = 0) -> tuple[str, float] | None:
        """Return the tensor and the scale of the pair that an input of a node comes from; None without a pair."""
        last = self.makers[self.nodes[f"/{reader}"].input[index]]
        if last.op_type != "DequantizeLinear":
            return None
        return self.makers[last.input[0]].input[0], float(self.constants[last.input[1]])

    def run(self, graph: onnx.ModelProto) -> Any:
        return self.outputs(graph)[1]

    def outputs(self, graph: onnx.ModelProto, variant: str = "graph") -> Outputs:
        return open_variant(variant, graph, self.folder).infer(self.frames)


@pytest.fixture
def quantised(request: pytest.FixtureRequest, tmp_path: Path) -> Quantised:
    return Quantised(request.param, tmp_path)


@pytest.mark.parametrize("quantised", ["residual"], indirect=True)
def test_the_residual_input_alone_has_a_pair(quantised: Quantised) -> None:
    assert quantised.pair("s", 0) is None
    assert quantised.nodes["/s"].input[0] == "a"  # so that the convolution, the sum and the Relu are one kernel
    assert quantised.pair("s", 1) == quantised.pair("a")
    assert quantised.makers["y"].input[0] == "s"
    assert "a_QuantizeLinear" not in quantised.nodes
    assert not [name for name in quantised.constants if name.startswith("a_")]


@pytest.mark.parametrize("quantised", ["shortcut"], indirect=True)
def test_of_two_layers_the_later_one_takes_the_sum_in(quantised: Quantised) -> None:
    assert quantised.nodes["/s"].input[0] == "c"
    tensor, _ = quantised.pair("s", 1) or ("", 0)
    assert tensor == "side"


@pytest.mark.parametrize("quantised", ["no layer before the sum"], indirect=True)
def test_a_sum_that_no_layer_takes_in_reads_exact_values(quantised: Quantised) -> None:
    assert [*quantised.nodes["/y"].input] == ["b", "r"]


@pytest.mark.parametrize("quantised", ["skip"], indirect=True)
def test_pooling_concatenation_and_the_skip_have_one_scale(quantised: Quantised) -> None:
    pairs = [quantised.pair("k", 0), quantised.pair("k", 1), quantised.pair("y"), quantised.pair("d")]
    assert [pair and pair[0] for pair in pairs] == ["v", "r", "k", "p"]
    assert len({pair and pair[1] for pair in pairs}) == 1
    assert quantised.pair("p") == quantised.pair("k", 1)
    assert quantised.makers["v"].input[0] == "u"  # nothing between the transposed convolution and its activation
    assert quantised.pair("u", 0) is not None


@pytest.mark.parametrize("quantised", ["a concatenation that is read exactly"], indirect=True)
def test_what_is_read_exactly_is_not_rounded_before(quantised: Quantised) -> None:
    assert quantised.nodes["/k"].input[0] == "b"
    assert quantised.nodes["/m"].input[0] == "k"
    assert (quantised.pair("c") or ("",))[0] == "k"


@pytest.mark.parametrize("quantised", ["a mask beside it"], indirect=True)
def test_a_mask_has_no_pair(quantised: Quantised) -> None:
    assert [*quantised.nodes["/k"].input] == ["r", "mask"]
    assert (quantised.pair("y") or ("",))[0] == "k"


@pytest.mark.parametrize("quantised", list(PATTERNS), indirect=True)
def test_every_pattern_gives_what_float32_gives(quantised: Quantised) -> None:
    exact, found = quantised.run(quantised.model), quantised.run(quantised.graph)
    onnx.checker.check_model(quantised.graph, full_check=True)
    assert np.sqrt(np.square(found - exact).mean()) < 0.08 * exact.std()
    compact = quantised.run(to_int8(quantised.model, quantised.ranges, (), "compact"))
    assert np.allclose(found, compact, atol=1e-4 * exact.std())


@pytest.mark.parametrize("quantised", list(PATTERNS), indirect=True)
def test_golden_frames_refuse_every_wrong_fusion_of_a_pattern(quantised: Quantised) -> None:
    forms = {name: to_int8(quantised.model, quantised.ranges, (), name) for name in ("tensorrt", "cpu")}
    reference = Golden(quantised.frames, *quantised.outputs(quantised.model))
    judged = [quantised.outputs(forms["tensorrt"]), quantised.outputs(forms["cpu"], CPU_MODEL)]
    golden, limits = golden_of(reference, judged)
    fused = compare(golden, *quantised.outputs(forms["tensorrt"], CPU_MODEL), *limits)
    assert fused.good, fused.describe()
    tried = set()
    for fault, graph in wrong_int8_graphs(forms["tensorrt"], places=99):
        tried.add(fault)
        assert not compare(golden, *quantised.outputs(graph), *limits).good, fault
    assert tried == set(FAULTS)


@pytest.mark.parametrize("quantised", list(PATTERNS), indirect=True)
def test_kept_layers_take_no_sum_in(quantised: Quantised) -> None:
    keep = [f"/{name}" for name in ("a", "c", "s") if f"/{name}" in quantised.nodes]
    graph = to_int8(quantised.model, quantised.ranges, keep, "tensorrt").graph
    made = {node.output[0]: node.op_type for node in graph.node}
    for node in graph.node:
        if node.name in keep:
            assert "DequantizeLinear" not in [made.get(name) for name in node.input]


@needs_rtx
@pytest.mark.parametrize("quantised", list(PATTERNS), indirect=True)
def test_every_pattern_is_parsed_and_built(quantised: Quantised) -> None:
    import tensorrt_rtx as trt

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(quantised.graph.SerializeToString()), [parser.get_error(i) for i in range(parser.num_errors)]
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape("frames", *[(1, 16, 16, 3)] * 3)
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None
