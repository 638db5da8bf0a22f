"""What our code asks of TensorRT is there, in the real bindings of six versions.

NVIDIA's wheels of the bindings are about 1 MB each. They are fetched once into the user's cache folder, from wherever
pip gets its packages, and never become part of anything. A library of nine C functions makes them importable.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tensorrt_on_cpu import environment, make_cuda, needs_compiler
from test_engines import odd_graph

VERSIONS = {
    "8.6.1": "tensorrt-bindings==8.6.1",
    "10.3.0": "tensorrt-cu12-bindings==10.3.0",
    "10.7.0": "tensorrt-cu12-bindings==10.7.0",
    "10.13.3.9": "tensorrt-cu12-bindings==10.13.3.9",
    "10.16.1.11": "tensorrt-cu12-bindings==10.16.1.11",
    "11.4.0.106": "tensorrt-cu12-bindings==11.4.0.106",
}
STUB = """
#define NOTHING(name) void *name(void) { return 0; }
NOTHING(createInferBuilder_INTERNAL) NOTHING(createInferRuntime_INTERNAL) NOTHING(createInferRefitter_INTERNAL)
NOTHING(createNvOnnxParser_INTERNAL) NOTHING(createNvOnnxParserRefitter_INTERNAL) NOTHING(getNvOnnxParserVersion)
NOTHING(getPluginRegistry) NOTHING(getBuilderPluginRegistry) NOTHING(initLibNvInferPlugins)
NOTHING(_ZN11nvuffparser15createUffParserEv) NOTHING(_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi)
NOTHING(_ZN14nvcaffeparser117createCaffeParserEv) NOTHING(_ZN14nvcaffeparser123shutdownProtobufLibraryEv)
"""
NO_TENSORRT = {
    "tensorrt_build.BuildSettings.__post_init__",
    "tensorrt_build._end_with_the_parent",
    "tensorrt_build.as_json",
    "tensorrt_build.main",
    "tensorrt_build.main.report",
    "tensorrt_cache.CachedPlan._build",
    "tensorrt_cache.CachedPlan._discard",
    "tensorrt_cache.CachedPlan._load",
    "tensorrt_cache.CachedPlan._read_note",
    "tensorrt_cache.CachedPlan._sealed",
    "tensorrt_cache.CachedPlan._trtexec",
    "tensorrt_cache.CachedPlan.build_command",
    "tensorrt_cache.CachedPlan.note",
    "tensorrt_cache.CachedPlan.read",
    "tensorrt_cache.CachedPlan.write_note",
    "tensorrt_engine.TensorRtSettings.__post_init__",
    "tensorrt_engine.TensorRtSettings.build",
    "tensorrt_engine._read_plan",
    "tensorrt_engine._start",
    "tensorrt_engine.find_tensorrt",
    "tensorrt_engine.open_tensorrt",
    "tensorrt_process._failure",
    "tensorrt_process.build_in_process",
    "tensorrt_process.disk_error",
    "tensorrt_resize.CachedResizes.__call__",
    "tensorrt_trtexec.trtexec_line",
}
"""Functions whose attribute accesses are not run over the bindings: they ask nothing of a TensorRT object."""
MINIMUM = {
    "Builder": "build_serialized_network create_builder_config create_network create_optimization_profile "
    "num_DLA_cores",
    "BuilderFlag": "FP16 GPU_FALLBACK INT8 PREFER_PRECISION_CONSTRAINTS TF32",
    "IBuilderConfig": "DLA_core add_optimization_profile builder_optimization_level clear_flag create_timing_cache "
    "default_device_type get_timing_cache profiling_verbosity progress_monitor set_flag set_memory_pool_limit "
    "set_timing_cache",
    "EngineInspector": "get_engine_information",
    "ICudaEngine": "create_engine_inspector create_execution_context get_tensor_dtype get_tensor_name "
    "get_tensor_profile_shape get_tensor_shape num_io_tensors num_optimization_profiles",
    "IExecutionContext": "execute_async_v3 get_tensor_shape set_input_shape set_optimization_profile_async "
    "set_tensor_address",
    "ILayer": "get_input get_output num_inputs num_outputs precision set_output_type type",
    "INetworkDefinition": "get_layer num_layers",
    "IOptimizationProfile": "set_shape",
    "ITensor": "dtype is_shape_tensor name",
    "ITimingCache": "serialize",
    "LayerInformationFormat": "JSON",
    "LayerType": "CAST CONSTANT DEQUANTIZE QUANTIZE SHAPE",
    "NetworkDefinitionCreationFlag": "EXPLICIT_BATCH STRONGLY_TYPED",
    "OnnxParser": "get_error num_errors parse set_flag",
    "OnnxParserFlag": "ADJUST_FOR_DLA",
    "ParserError": "desc node node_name node_operator",
    "ProfilingVerbosity": "DETAILED",
    "Runtime": "DLA_core deserialize_cuda_engine",
}
"""Class of TensorRT ↦ what our code asks of it; all of it must have been asked for in some version."""
pytestmark = [needs_compiler, pytest.mark.slow]


@pytest.fixture(scope="module")
def wheels() -> dict[str, Path]:
    """The folders of the unpacked wheels; skips where they are not to be had."""
    folder = Path.home() / ".cache" / "edgead-tests" / f"tensorrt-bindings-{sys.version_info[0]}{sys.version_info[1]}"
    downloads = {}
    for version, package in VERSIONS.items():
        if not (folder / version / "tensorrt_bindings").is_dir():
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            command += [
                "--disable-pip-version-check",
                "--dest",
                str(folder / f"{version}.{os.getpid()}.wheel"),
                package,
            ]
            downloads[version] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    for version, download in downloads.items():
        try:
            _, errors = download.communicate(timeout=90)
        except subprocess.TimeoutExpired:
            download.kill()
            download.wait()
            errors = "no answer in 90 s"
        found = list((folder / f"{version}.{os.getpid()}.wheel").glob("*.whl"))
        if not found:
            pytest.skip(f"no {VERSIONS[version]} to be had: {(errors.strip().splitlines() or ['?'])[-1]}")
        part = folder / f"{version}.{os.getpid()}"
        zipfile.ZipFile(found[0]).extractall(part)
        with suppress(OSError):  # another process of these tests was first
            part.rename(folder / version)
    return {version: folder / version for version in VERSIONS}


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of libraries under TensorRT's names that hold nothing, and of CUDA on the host."""
    folder = make_cuda(tmp_path_factory.mktemp("libraries"))
    source = folder / "stub.c"
    source.write_text(STUB)
    library = folder / "stub.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    for name in ("nvinfer", "nvonnxparser", "nvinfer_plugin", "nvparsers"):
        for major in (8, 10, 11):
            (folder / f"lib{name}.so.{major}").symlink_to(library)
    return folder


@pytest.fixture(scope="module")
def runs(wheels: dict[str, Path], libraries: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `tensorrt_shadow` found in each version."""
    folder = tmp_path_factory.mktemp("shadow")
    odd_graph(folder / "odd.onnx", "Swizzle", "com.acme", half=True)
    program = Path(__file__).with_name("tensorrt_shadow.py")
    started = {
        version: subprocess.Popen(
            [sys.executable, str(program), str(folder / "odd.onnx"), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(path, libraries=libraries),
        )
        for version, path in wheels.items()
    }
    outputs = {version: process.communicate(timeout=120) for version, process in started.items()}
    return {version: json.loads(out) if out else errors[-3000:] for version, (out, errors) in outputs.items()}


@pytest.mark.parametrize("version", VERSIONS)
def test_builder_and_engine_ask_for_nothing_that_a_version_has_not(runs: dict[str, Any], version: str) -> None:
    found = runs[version]
    assert isinstance(found, dict), found
    assert version.startswith(found["version"])
    refusal = found["builder refuses"]["graph"]
    assert "operator " in refusal
    assert "Swizzle (node '/gates.0/match/Odd', in gates.0.match): no importer" in refusal


WEAK = {"strong": False, "precision": ["int8", "fp16"], "unused": ["int8", "fp16"]}
STRONG = {"strong": True, "precision": [], "unused": []}


@pytest.mark.parametrize(
    ("version", "auto", "strong", "weak"),
    [
        ("8.6.1", WEAK, "does not support strongly typed", WEAK),
        ("10.3.0", WEAK, STRONG, WEAK),
        ("10.7.0", WEAK, STRONG, WEAK),
        ("10.13.3.9", STRONG, STRONG, WEAK),
        ("10.16.1.11", STRONG, STRONG, WEAK),
        ("11.4.0.106", STRONG, STRONG, "supports only strongly typed"),
    ],
)
def test_typing_of_each_version(runs: dict[str, Any], version: str, auto: Any, strong: Any, weak: Any) -> None:
    for typing, expected in (("auto", auto), ("strong", strong), ("weak", weak)):
        found = runs[version]["flags"][typing]
        assert found == expected if isinstance(expected, dict) else expected in found


def test_float32_stays_float32(runs: dict[str, Any]) -> None:
    """No TF32 anywhere; where TensorRT chooses the types, what the graph has in float32 is bound to it."""
    for run in runs.values():
        for typing, did in run["did"].items():
            assert "clear_flag(BuilderFlag.TF32)" in did
            weak = not run["flags"][typing]["strong"]
            assert ("ILayer.precision = DataType.FLOAT" in did) is weak
            assert ("set_output_type(0, DataType.FLOAT)" in did) is weak  # stored in float32 too
            assert ("IBuilderConfig.profiling_verbosity = ProfilingVerbosity.DETAILED" in did) is weak
            assert ("set_flag(BuilderFlag.PREFER_PRECISION_CONSTRAINTS)" in did) is weak


def test_a_graph_for_a_dla_is_read_for_it_where_the_parser_can(runs: dict[str, Any]) -> None:
    adjusted = {
        version
        for version, run in runs.items()
        if all("set_flag(OnnxParserFlag.ADJUST_FOR_DLA)" in did for did in run["did"].values())
    }
    assert adjusted == {"10.16.1.11", "11.4.0.106"}


def test_int8_beside_float32_is_allowed_no_float16(runs: dict[str, Any]) -> None:
    """What docs/precision.md says of an int8 bundle."""
    weak = {version: run["int8 alone"] for version, run in runs.items() if "int8 alone" in run}
    assert weak == {version: ["int8"] for version in VERSIONS if not version.startswith("11")}


def test_every_attribute_in_our_code_is_run_over_some_version(runs: dict[str, Any]) -> None:
    """What is not run is not compared with the bindings. By function, so that the names of variables do not matter."""
    missing = set.intersection(*(set(run["not run"]) for run in runs.values()))
    beside = {place for place in missing if place.partition(":")[0] not in NO_TENSORRT}
    assert beside == set()
    assert {place.partition(":")[0] for place in missing} == NO_TENSORRT, "a function in the list is gone, or runs"


def test_the_bindings_were_asked_for_what_our_code_needs(runs: dict[str, Any]) -> None:
    touched = set().union(*(run["touched"] for run in runs.values()))
    needed = {f"{kind}.{name}" for kind, names in MINIMUM.items() for name in names.split()}
    assert needed - touched == set()
    assert {
        "Builder",
        "ILogger",
        "IProgressMonitor",
        "OnnxParser",
        "Runtime",
        "__version__",
        "init_libnvinfer_plugins",
    } <= touched


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("node", r"BundleError: .*operator com\.acme\.Swizzle \(node '/gates\.0/match/Odd'"),
        ("no node", r"BundleError: .*cannot read .*odd\.onnx: no importer$"),
        ("start", "DeviceError: .*cannot build here: pybind11"),
        ("changed", "BundleError: .*is damaged"),
        ("shape", r"DeviceError: .*does not accept frames of shape \(1, 16, 24, 3\)"),
        ("cores", "ConfigError: .*finds 0 DLA cores"),
        ("plan", "DeviceError: .*could not build"),
        ("cache", "{'unkept': "),
    ],
)
def test_what_ends_a_build_is_reported_in_every_version(runs: dict[str, Any], answer: str, error: str) -> None:
    for run in runs.values():
        assert re.match(error, run["builder refuses"][answer])


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("start", "DeviceError: .*does not start: pybind11"),
        ("plan", "_UnloadableError: .*cannot load the engine"),
        ("memory", "DeviceError: .*too little memory to load the engine: out of memory"),
        ("name", "BundleError: The engine has no tensor 'frames'. Available: images"),
        ("type", r"BundleError: The engine's 'frames' is DataType\.INT32"),
        ("context", "DeviceError: TensorRT cannot create an execution context"),
        ("profile", "DeviceError: TensorRT rejects the engine's profile 1"),
        ("frames", r"DeviceError: The engine does not accept frames of shape \(1, 16, 24, 3\)"),
        ("sides", r"BundleError: The engine's 'scores' is DataType\.FLOAT \(-1, -1, -1, 3\)"),
        ("shape", r"BundleError: The engine's 'frames' is \(7,\), not \(1, 16, 24, 3\)"),
        ("address", "DeviceError: TensorRT rejects the address of 'frames'"),
        ("run", "DeviceError: TensorRT failed to run the engine"),
    ],
)
def test_what_ends_a_start_is_reported_in_every_version(runs: dict[str, Any], answer: str, error: str) -> None:
    for run in runs.values():
        assert re.match(error, run["engine refuses"][answer])
