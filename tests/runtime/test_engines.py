"""Engines: they give the golden outputs, and what cannot run here says why."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgead.bundle import Bundle, read_bundle
from edgead.errors import BundleError, ConfigError, DeviceError
from edgead.files import sha256
from edgead.machine import find_gpu, physical_cores
from edgead.runtime.engine_table import ENGINES
from edgead.runtime.engines import Engine, EngineSpec, Opening, split_batch
from edgead.runtime.engines.onnx_nodes import read_nodes
from edgead.runtime.engines.onnx_types import float_types
from edgead.runtime.engines.opening import find_spec, open_engine, usable_engines
from edgead.runtime.golden import check_golden, compare

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="no openvino")


def has_gpu() -> bool:
    try:
        find_gpu()
    except DeviceError:
        return False
    return True


@pytest.fixture
def opened(line_bundle: Path) -> Bundle:
    return read_bundle(line_bundle)


@pytest.mark.parametrize("name", ["onnxruntime", pytest.param("openvino", marks=needs_openvino)])
def test_engine_gives_the_golden_outputs_and_new_arrays(opened: Bundle, name: str) -> None:
    engine = open_engine(name, opened)
    assert check_golden(opened, engine).good
    frames = opened.golden().frames
    scores, maps = engine.infer(frames[:1])
    kept = maps.copy()
    others, _ = engine.infer(frames)
    np.testing.assert_array_equal(maps, kept)
    assert (scores.shape, scores.dtype, maps.dtype) == ((1,), np.float32, np.float32)
    assert others.shape == (len(frames),)
    engine.close()


def with_graph(bundle: Bundle, folder: Path) -> Bundle:
    """The bundle with another graph, from a folder."""
    files = {"model.onnx": sha256(folder / "model.onnx")}
    return Bundle(folder, dataclasses.replace(bundle.manifest, files=files))


@pytest.mark.parametrize("name", ["onnxruntime", pytest.param("openvino", marks=needs_openvino)])
def test_engine_refuses_what_is_no_graph(opened: Bundle, name: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match="cannot read"):
        open_engine(name, with_graph(opened, tmp_path))


def test_unknown_engine_lists_those_that_there_are(opened: Bundle) -> None:
    with pytest.raises(ConfigError, match="auto, onnxruntime, onnxruntime-cuda, openvino, openvino-bf16, tensorrt"):
        open_engine("cudnn", opened)


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_tensorrt_asks_the_driver_before_anything_else(opened: Bundle) -> None:
    with pytest.raises(DeviceError, match="NVIDIA driver"):
        open_engine("tensorrt", opened)


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_onnxruntime_cuda_never_falls_back_to_the_cpu(opened: Bundle) -> None:
    with pytest.raises(DeviceError, match=r"CPU package|NVIDIA driver"):
        open_engine("onnxruntime-cuda", opened)


def test_settings_stand_behind_the_name(opened: Bundle) -> None:
    with pytest.raises(ConfigError, match=r"Unknown setting 'threads' of the engine onnxruntime. Available: none"):
        open_engine("onnxruntime:threads=2", opened)
    with pytest.raises(
        ConfigError,
        match=r"Unknown setting 'opt_levle' of the engine tensorrt. Did you mean 'opt_level'\? Available: typing, opt",
    ):
        open_engine("tensorrt:opt_levle=5", opened)
    with pytest.raises(ConfigError, match="tensorrt: opt_level must be a whole number, not 'high'"):
        open_engine("tensorrt:opt_level=high", opened)
    with pytest.raises(ConfigError, match="tensorrt:opt_level must be 0 to 5, not 6"):
        open_engine("tensorrt:opt_level=6", opened)
    with pytest.raises(ConfigError, match="the engine tensorrt: cuda_graph must be on or off, not 'yes'"):
        open_engine("tensorrt:cuda_graph=yes", opened)
    with pytest.raises(ConfigError, match=r"^Unknown setting 'x' of the engine auto\. Available: none\.$"):
        open_engine("auto:x=1", opened)
    with pytest.raises(
        ConfigError, match=r"^Unknown engine 'opnvino'\. Did you mean 'openvino'\? Available: auto, onnxr"
    ):
        open_engine("opnvino", opened)
    with pytest.raises(ConfigError, match="tensorrt:NAME=VALUE"):
        open_engine("tensorrt:dla", opened)


@pytest.mark.parametrize(
    ("count", "sizes", "parts"),
    [
        (1, [1], [(0, 1, 1)]),
        (3, [1], [(0, 1, 1), (1, 2, 1), (2, 3, 1)]),
        (1, [1, 4], [(0, 1, 1)]),
        (3, [1, 4], [(0, 3, 4)]),
        (9, [1, 4], [(0, 4, 4), (4, 8, 4), (8, 9, 1)]),
        (0, [1, 4], []),
    ],
)
def test_batches_are_cut_to_the_sizes_that_an_engine_has(
    count: int, sizes: list[int], parts: list[tuple[int, int, int]]
) -> None:
    assert list(split_batch(count, sizes)) == parts


def odd_graph(path: Path, operator: str, domain: str, *, half: bool = False) -> None:
    """A graph of a bundle's signature with one operator in the middle that no engine has.

    With `half` it also has tensors in float16 and float32, which it does not use.
    """
    make = onnx.helper.make_node
    nodes = [
        make("Cast", ["frames"], ["f"], to=onnx.TensorProto.FLOAT, name="/Cast"),
        make(operator, ["f"], ["g"], domain=domain, name="/gates.0/match/Odd"),
        make("ReduceMax", ["g"], ["scores"], axes=[1, 2, 3], keepdims=0, name="/ReduceMax"),
        make("ReduceMax", ["g"], ["maps"], axes=[3], keepdims=0, name="/ReduceMax_1"),
    ]
    value, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto
    if half:
        nodes.append(make("Cast", ["f"], ["h"], to=kind.FLOAT16))
        nodes += [make("Relu", ["h"], ["half"]), make("Relu", ["f"], ["single"])]
    inputs = [value("frames", kind.UINT8, ["N", 64, 64, 3])]
    outputs = [value("scores", kind.FLOAT, ["N"]), value("maps", kind.FLOAT, ["N", 64, 64])]
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.acme", 1)]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", inputs, outputs), opset_imports=opsets), path)


@pytest.mark.parametrize(("operator", "domain"), [("Swizzle", "com.acme"), ("Nope", "")])
@pytest.mark.parametrize("name", ["onnxruntime", pytest.param("openvino", marks=needs_openvino)])
def test_a_lacking_operator_is_named_with_engine_and_place(
    opened: Bundle, name: str, tmp_path: Path, operator: str, domain: str
) -> None:
    odd_graph(tmp_path / "model.onnx", operator, domain)
    with pytest.raises(BundleError) as caught:
        open_engine(name, with_graph(opened, tmp_path))
    text = str(caught.value)
    assert re.match(r"(ONNX Runtime|OpenVINO) 2?\d", text)
    shown = f"{domain}.{operator}" if domain else operator
    assert f"does not support operator {shown} (node '/gates.0/match/Odd', in gates.0.match)" in text


def test_nodes_are_read_as_onnx_reads_them(opened: Bundle) -> None:
    expected = [(node.name, node.op_type, node.domain) for node in onnx.load(opened.model).graph.node]
    assert [(node.name, node.operator, node.domain) for node in read_nodes(opened.model)] == expected


def test_types_are_read_as_onnx_infers_them(tmp_path: Path) -> None:
    """Every operator that sets a type; an operator that our graphs do not contain gives `other`."""
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (uint8[1, 4] frames) => (float[1, 4] scores, bool[1, 4] above)
          <float16[4] weight = {1, 2, 3, 4}, float[1] scale = {0.5}, int8[1] zero = {0}, int64[1] k = {2}> {
        f = Cast <to = 1> (frames)
        h = Cast <to = 10> (f)
        product = Mul (h, weight)
        left, right = Split <axis = 1> (product)
        values, places = TopK (product, k)
        q = QuantizeLinear (f, scale, zero)
        back = DequantizeLinear (q, scale, zero)
        one = Constant <value_float = 1.0> ()
        half_one = Constant <value = float16[1] {1}> ()
        shape = Shape (h)
        zeros = ConstantOfShape (shape)
        above = Greater (f, back)
        moved = Where (above, f, back)
        scores = Add (moved, one)
    }""")
    onnx.save(model, tmp_path / "m.onnx")
    found = float_types(tmp_path / "m.onnx")
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    kinds = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.FLOAT16: "float16"}
    truth = {
        value.name: kinds.get(value.type.tensor_type.elem_type, "other")
        for value in [*inferred.value_info, *inferred.output]
    }
    constants = {each.name: kinds.get(each.data_type, "other") for each in model.graph.initializer}
    assert found == truth | constants
    assert set(found.values()) == {"float32", "float16", "other"}


@pytest.mark.parametrize(
    "content", [b"no graph", bytes(range(256)), b"\x3a\xff\xff\xff\xff\x0f", b"\x3a\x04\x0a\x02\x1a\x7f"]
)
def test_what_is_no_onnx_file_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    for read in (read_nodes, float_types):
        with pytest.raises(BundleError, match="is not an ONNX file"):
            read(tmp_path / "model.onnx")


@needs_openvino
def test_openvinos_requests_give_each_frame_its_own_outputs(opened: Bundle) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (7, 64, 64, 3), dtype=np.uint8)
    engine, plain = open_engine("openvino:hint=throughput", opened, batch=3), open_engine("openvino", opened)
    for count in (1, 3, 7):
        found, wanted = engine.infer(frames[:count]), plain.infer(frames[:count])
        engine.infer(frames[::-1][:count])
        for array, expected in zip(found, wanted):
            np.testing.assert_allclose(array, expected, atol=1e-5)
    engine.close()
    with pytest.raises(ConfigError, match="the engine openvino: hint must be one of latency, throughput, not 'fast'"):
        open_engine("openvino:hint=fast", opened)


@needs_openvino
@pytest.mark.parametrize(("batch", "fixed"), [(1, True), (3, False)])
def test_openvino_compiles_for_one_frame_where_none_are_batched(opened: Bundle, batch: int, fixed: bool) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    engine, other = open_engine("openvino", opened, batch=batch), open_engine("onnxruntime", opened)
    assert engine.inner._compiled.input(0).partial_shape.is_static == fixed  # type: ignore[attr-defined]
    for count in (1, 3):
        found, wanted = engine.infer(frames[:count]), other.infer(frames[:count])
        for array, expected in zip(found, wanted):
            np.testing.assert_allclose(array, expected, rtol=1e-3, atol=1e-4)
    engine.close()
    other.close()


class FailsOnce:
    """An OpenVINO request that fails at its first start."""

    def __init__(self, request: Any) -> None:
        self.request, self.failed = request, False

    def start_async(self, *inputs: Any, **options: Any) -> None:
        if not self.failed:
            self.failed = True
            raise RuntimeError("the device is gone")
        self.request.start_async(*inputs, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.request, name)


@needs_openvino
def test_after_one_of_openvinos_requests_failed_the_others_are_free_again(opened: Bundle) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    engine = open_engine("openvino:hint=throughput", opened, batch=3)
    requests = engine.inner._requests  # type: ignore[attr-defined]
    expected = engine.infer(frames)[0]
    requests[2] = FailsOnce(requests[2])
    with pytest.raises(DeviceError, match="the device is gone"):
        engine.infer(frames[::-1])
    np.testing.assert_array_equal(engine.infer(frames)[0], expected)
    engine.close()


def test_threads_are_counted_by_cores() -> None:
    if hasattr(os, "sched_getaffinity"):
        assert 0 < physical_cores() <= len(os.sched_getaffinity(0))


CLOSED_ELSEWHERE = """
import gc, os, signal, sys, threading
from pathlib import Path
from typing import Any
from edgead.bundle import read_bundle
from edgead.runtime.engines.opening import open_engine

heard = []
signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
bundle = read_bundle(Path(sys.argv[1]))
held = [open_engine("openvino", bundle)]
held[0].infer(bundle.golden().frames[:1])

def close():
    held.pop().close()
    gc.collect()

thread = threading.Thread(target=close)
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGUSR1)
print("heard", len(heard))
"""


def test_outputs_that_are_not_there_do_not_agree(bundle: Bundle) -> None:
    golden = bundle.golden()
    assert compare(golden, golden.scores, golden.maps, 1e-4).good
    assert not compare(golden, golden.scores[:0], golden.maps, 1e-4).good
    assert not compare(golden, golden.scores, golden.maps[:0], 1e-4).good


IMPORTED = """
import sys, threading
from pathlib import Path
from typing import Any
from edgead.bundle import read_bundle
from edgead.runtime.engines.opening import open_engine

open_engine("openvino", read_bundle(Path(sys.argv[1])))
print([thread.name for thread in threading.enumerate()])
"""


def test_openvino_calls_nobody(bundle: Bundle) -> None:
    """Its telemetry would fork the process at the import, and call a server."""
    pytest.importorskip("openvino")
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = f"http://127.0.0.1:{server.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", IMPORTED, str(bundle.path)],
            **{"capture_output": True, "text": True, "check": False},
            env={**os.environ, "http_proxy": proxy, "https_proxy": proxy},
        )
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert (done.stdout, done.stderr) == ("['MainThread']\n", "")


def test_openvino_closed_by_another_thread_leaves_signals_alone(bundle: Bundle) -> None:
    """Streams close engines in threads of their own; Ctrl-C must still end them well."""
    pytest.importorskip("openvino")
    command = [sys.executable, "-X", "faulthandler", "-c", CLOSED_ELSEWHERE, str(bundle.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "heard 1\n"), done.stderr


@dataclass(frozen=True)
class FastSettings:
    level: int = 1


def test_a_plugin_brings_an_engine(opened: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is opened by its name, gets its settings, and `auto` may choose it."""
    given: list[FastSettings] = []

    def open_fast(bundle: Bundle, opening: Opening) -> Engine:
        given.append(opening.settings)
        return open_engine("onnxruntime", bundle).inner

    class Plugin:
        name = "fast"

        def load(self) -> EngineSpec:
            return EngineSpec(open_fast, "an example", settings=FastSettings)

    monkeypatch.setattr(metadata, "entry_points", lambda group: [Plugin()] if group == "edgead.engines" else [])
    engine = open_engine("fast:level=3", opened)
    assert given == [FastSettings(3)]
    assert check_golden(opened, engine).good
    engine.close()
    assert "fast" in usable_engines()
    with pytest.raises(ConfigError, match=r"Unknown engine 'slow'\. Available: auto, .*, fast\."):
        open_engine("slow", opened)


def test_every_engine_of_the_table_describes_itself() -> None:
    specs = {name: find_spec(name) for name in ENGINES}
    assert [name for name, spec in specs.items() if spec.chooses] == ["auto"]
    assert {name for name, spec in specs.items() if spec.on_gpu} == {"onnxruntime-cuda", "tensorrt"}
    assert [name for name, spec in specs.items() if not spec.exact] == ["openvino-bf16"]
    extras = re.findall(r'^    "([a-z0-9]+)": \[', (Path(__file__).parents[2] / "setup.py").read_text(), re.MULTILINE)
    assert {spec.extra for spec in specs.values()} - {""} <= set(extras)
    assert all(spec.purpose for spec in specs.values())
