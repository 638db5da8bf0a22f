"""Loading and running engines as far as that goes without a GPU: our CUDA calls, buffers, batches, and the verbs."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tensorrt_on_cpu import environment, make_cuda, make_shim, needs_compiler, needs_rtx
from test_tensorrt_build import is_running
from waiting import wait_until

pytestmark = needs_compiler


@pytest.fixture(scope="module")
def cuda_on_host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cuda(tmp_path_factory.mktemp("cuda"))


@pytest.fixture(scope="module")
def found(cuda_on_host: Path, line_bundle: Path) -> dict[str, Any]:
    program = Path(__file__).with_name("tensorrt_by_onnxruntime.py")
    command = [sys.executable, str(program), str(line_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment(libraries=cuda_on_host))
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("how", ["copied", "mapped", "no graph", "one", "not recordable", "sleeping"])
def test_batches_of_every_size_give_what_a_plain_run_gives(found: dict[str, Any], how: str) -> None:
    assert found[how]["worst"] < 1e-5
    buffers = 3 if how == "one" else 6
    assert found[how]["allocated"] == (buffers if how == "mapped" else 2 * buffers)
    assert found[how]["left"] == 0


def test_an_engine_is_loaded_on_the_dla_that_was_asked_for(found: dict[str, Any]) -> None:
    assert found["one"]["core"] is None
    assert found["on a DLA"]["core"] == 1


def test_a_frame_is_one_launch_of_a_graph_where_it_can_be_recorded(found: dict[str, Any]) -> None:
    recorded = {how: found[how]["recorded"] for how in ("copied", "mapped", "one", "no graph", "not recordable")}
    assert recorded == {"copied": True, "mapped": True, "one": True, "no graph": False, "not recordable": False}
    assert found["cuda"] == {
        "untouched": True,
        "replayed": True,
        "broken": "DeviceError: CUDA failed: cudaStreamEndCapture: operation failed due to a previous error "
        "during capture (901). See:  edgead doctor",
        "raised": "DeviceError: in the block",
        "usable": True,
        "memory": "DeviceError: CUDA failed: cudaMalloc: out of memory (2). See:  edgead doctor",
        "integrated": False,
        "asked": False,
    }


def test_engines_that_are_not_this_bundles_are_refused(found: dict[str, Any]) -> None:
    assert found["unloadable"] == (
        "_UnloadableError: TensorRT 0.0 cannot load the engine: Error Code 1: Serialization (another version).\n"
        "Was it built on this device?"
    )
    assert found["other size"].startswith("BundleError: The engine's 'frames' is uint8 (-1, 64, 65, 3); the bundle")
    assert found["other type"].startswith("BundleError: The engine's 'frames' is float32")
    assert found["dead"] == "DeviceError: TensorRT 0.0 does not start: CUDA initialization failure with error: 2."
    assert found["failing"] == (
        "DeviceError: TensorRT failed to run the engine: "
        "Error Code 1: Cuda Runtime (an illegal memory access was encountered)."
    )


def edgead(*arguments: object, folders: Sequence[Path] = (), **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgead", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment(*folders, **options))


def test_without_a_gpu_the_verbs_say_so(line_bundle: Path) -> None:
    done = edgead("doctor", "--build", line_bundle)
    assert done.returncode == 4
    assert done.stderr.startswith("Error: No NVIDIA driver is installed here (libcuda.so.1 is missing).")
    done = edgead("export", "--format", "engine", "--method", "draem")
    assert done.returncode == 4  # before anything else is looked for
    assert "NVIDIA driver" in done.stderr


def test_doctor_proves_any_engine(line_bundle: Path) -> None:
    done = edgead("doctor", "--build", line_bundle, "--engine", "onnxruntime", "--json")
    assert done.returncode == 0, done.stderr
    proof = json.loads(done.stdout)
    assert proof["engine"] == "onnxruntime-cpu"
    assert proof["golden"]["score_error"] <= proof["golden"]["tolerance"]
    assert 0 < proof["latency_ms"]["p50"] <= proof["latency_ms"]["p99"]
    assert "agrees with the reference outputs" in done.stderr


@needs_rtx
def test_doctor_builds_and_says_what_does_not_load(line_bundle: Path, cuda_on_host: Path, tmp_path: Path) -> None:
    """The whole path but the GPU: a driver that answers, a real build, and an engine that this machine cannot load."""
    done = edgead("doctor", "--build", line_bundle, folders=[make_shim(tmp_path / "shim")], libraries=cuda_on_host)
    assert done.returncode == 4, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith("Building the TensorRT engine for this device")
    assert "The cached engine cannot be loaded. It is built again." in lines
    assert done.stderr.count("Building the TensorRT engine") == 2
    assert re.match(r"Error: TensorRT 1\.\S+ cannot load the engine: .+\.$", lines[-2])
    assert lines[-1] == "  Was it built on this device?"
    folder = tmp_path / "cache" / "edgead" / "tensorrt"
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".lock", ".plan", ".timing"]


@needs_rtx
def test_for_want_of_memory_no_engine_is_built_again(line_bundle: Path, cuda_on_host: Path, tmp_path: Path) -> None:
    tests = Path(__file__).parents[1]
    folders = [make_shim(tmp_path / "shim", "tensorrt_with_kernels"), tests, tests / "runtime"]
    done = edgead("doctor", "--build", line_bundle, folders=folders, libraries=cuda_on_host, EDGEAD_TEST_NO_MEMORY=1)
    assert done.returncode == 4, done.stderr
    assert done.stderr.count("Building the TensorRT engine") == 1
    assert re.search(
        r"\nError: TensorRT 1\.\S+ has too little memory to load the engine: .+ Cuda Runtime \(out of memory\)\.\n"
        r"  Stop other programs that use the device's memory and try again\.\n$",
        done.stderr,
    )
    folder = tmp_path / "cache" / "edgead" / "tensorrt"
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".lock", ".plan", ".timing"]


@needs_rtx
def test_ctrl_c_stops_a_build_and_leaves_nothing(line_bundle: Path, cuda_on_host: Path, tmp_path: Path) -> None:
    """As a terminal does it: the signal goes to the whole process group."""
    variables = environment(make_shim(tmp_path / "shim"), libraries=cuda_on_host)
    folder = tmp_path / "cache" / "edgead" / "tensorrt"
    for _ in range(5):
        code, errors, builder = interrupt_a_build(line_bundle, variables)
        if "Built in" not in errors:
            break
        shutil.rmtree(folder)  # a build takes less than a second: this one was over before the signal came
    assert code == 130, errors
    assert errors.splitlines()[-1] == "Error: interrupted."
    assert "Traceback" not in errors
    wait_until(lambda: not is_running(builder))
    assert [path.suffix for path in folder.iterdir()] == [".lock"]


def interrupt_a_build(bundle: Path, variables: dict[str, str]) -> tuple[int, str, int]:
    """Return the exit code, what was said, and the number of the process that was building."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edgead", "inspect", str(bundle), "--engine", "tensorrt:opt_level=5"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=variables,
        start_new_session=True,
    )
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_until(lambda: children.read_text())
        builder = int(children.read_text())
        wait_until(lambda: "tensorrt" in Path(f"/proc/{builder}/maps").read_text())
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, errors, builder


ASKS = """
import platform
from edgead.runtime.engines.tensorrt_engine import find_tensorrt
platform.machine = lambda: MACHINE
try:
    find_tensorrt()
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed")
@pytest.mark.parametrize(("machine", "remedy"), [("aarch64", "--system-site-packages"), ("x86_64", "pip install")])
def test_a_missing_tensorrt_is_said_with_what_brings_it(cuda_on_host: Path, machine: str, remedy: str) -> None:
    program = ASKS.replace("MACHINE", repr(machine))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(libraries=cuda_on_host)
    )
    assert done.stdout.startswith("MissingDependencyError "), done.stderr
    assert remedy in done.stdout
