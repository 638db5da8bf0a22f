"""What our code asks of TensorRT is there, in the real bindings of six versions.

NVIDIA's wheels of the bindings are about 1 MB each. They are fetched once into the user's cache folder, from wherever
pip gets its packages, and never become part of anything. A library of nine C functions makes them importable.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tensorrt_on_cpu import environment, make_cuda, needs_compiler
from test_engines import odd_graph

from edgead.runtime.engines import tensorrt_build, tensorrt_engine, tensorrt_logger

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
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "problem": "ParserError",
    "layer": "ILayer",
    "cache": "ITimingCache",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "_engine": "ICudaEngine",
    "_context": "IExecutionContext",
    "_runtime": "Runtime",
}
"""Variable in our code ↦ class of TensorRT."""
REAL = ("ILogger", "IProgressMonitor")
"""Classes that the runs use themselves, not their shadows."""
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
    odd_graph(folder / "odd.onnx", "Swizzle", "com.acme")
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
    assert "operator " in found["refusal"]
    assert "Swizzle (node '/gates.0/match/Odd', in gates.0.match): no importer" in found["refusal"]


WEAK, STRONG = {"strong": False, "precision": ["int8", "fp16"]}, {"strong": True, "precision": []}


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
            assert ("set_flag(BuilderFlag.PREFER_PRECISION_CONSTRAINTS)" in did) is weak


def test_int8_beside_float32_is_allowed_no_float16(runs: dict[str, Any]) -> None:
    """What docs/precision.md says of an int8 bundle."""
    weak = {version: run["int8 alone"] for version, run in runs.items() if "int8 alone" in run}
    assert weak == {version: ["int8"] for version in VERSIONS if not version.startswith("11")}


def test_nothing_in_our_code_escapes_this_test(runs: dict[str, Any]) -> None:
    """Every attribute that the sources name on a TensorRT object was asked for in some version."""
    named = set()
    for module in (tensorrt_build, tensorrt_engine, tensorrt_logger):
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
            if isinstance(node, ast.Attribute):
                named |= _on_tensorrt(node)
    touched = set().union(*(found["touched"] for found in runs.values()))
    assert len(named) > 60
    assert named - touched == set()


def _on_tensorrt(node: ast.Attribute) -> set[str]:
    value = node.value
    if isinstance(value, ast.Name) and value.id == "trt":
        return {node.attr}
    if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name) and value.value.id == "trt":
        return {f"{value.attr}.{node.attr}"} if value.attr not in REAL else set()
    name = value.id if isinstance(value, ast.Name) else value.attr if isinstance(value, ast.Attribute) else ""
    return {f"{CLASSES[name]}.{node.attr}"} if name in CLASSES else set()
