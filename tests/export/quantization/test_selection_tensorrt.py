"""`edgead export --precision` where TensorRT and a GPU are, as far as that goes without one: tensorrt-rtx builds."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorrt_on_cpu import environment, make_cuda, make_shim, needs_compiler, needs_rtx

from edgead.bundle import read_bundle

pytestmark = [needs_rtx, needs_compiler]
TESTS = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of a TensorRT and a CUDA that work without a GPU."""
    folder = tmp_path_factory.mktemp("machine")
    return make_shim(folder / "shim", "tensorrt_with_kernels"), make_cuda(folder / "cuda")


def export(machine: tuple[Path, Path], run: Path, out: Path, *options: str, **variables: Any) -> Any:
    shim, cuda = machine
    folders = [shim, TESTS, TESTS / "runtime"]
    loose = ["--max-flips", "1", "--max-auroc-drop", "1", "--calib-samples", "8"]
    command = ["export", "--checkpoint", str(run), *loose, "--out", str(out), *options]
    return subprocess.run(
        [sys.executable, "-m", "edgead", *command],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(*folders, libraries=cuda, XDG_CACHE_HOME=out.parent / "cache", **variables),
    )


@pytest.mark.long
def test_builds_are_announced_and_the_bundle_s_own_can_be_done_by_hand(
    machine: tuple[Path, Path], trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "second line" / "washer.edgead"
    done = export(machine, trained, out, "--precision", "int8", "--format", "engine")
    assert done.returncode == 0, done.stderr
    announced = re.findall(r"Building the TensorRT engine for this device \((.*)\)", done.stderr)
    assert announced == ["fp32", "int8", "fp16"]
    assert done.stderr.count("Built in ") == 3
    assert done.stderr.rindex("Built in ") < done.stderr.index(
        "Exported:"
    )  # so that the bundle's own was there by then
    [line] = re.findall(r"To build it with trtexec:  (.*)", done.stderr)
    assert shlex.split(line)[:3] == ["trtexec", f"--onnx={out}/model.onnx", "--saveEngine=model.plan"]
    notes = [json.loads(path.read_text()) for path in out.parent.glob("cache/edgead/tensorrt/*.json")]
    assert [shlex.split(note["trtexec"])[1] for note in notes] == ["--onnx=model.onnx"] * 3
    manifest = read_bundle(out).manifest
    assert manifest.files["model.onnx"] in {note["model"] for note in notes}
    timed = {name for name, times in manifest.gate.milliseconds_here.items() if "tensorrt" in times}
    assert timed == {"fp32", "int8", "fp16"}
    assert not any("tensorrt" in reasons for reasons in manifest.gate.failed_here.values())
    assert "does not run correctly on tensorrt" not in done.stderr


@pytest.mark.long
def test_an_int8_that_the_gpu_does_not_run_is_said_and_recorded(
    machine: tuple[Path, Path], trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "washer.edgead"
    done = export(machine, trained, out, "--precision", "int8", "--format", "engine", EDGEAD_TEST_NO_INT8=1)
    assert done.returncode == 4, done.stderr
    gate = read_bundle(out).manifest.gate
    why = gate.failed_here["int8"]["tensorrt"]
    assert re.fullmatch(r"TensorRT \S+ could not build model\.onnx: .*Could not find any implementation\.", why)
    said = done.stderr.splitlines()
    assert f"int8 does not run correctly on tensorrt on this machine: {why}" in said
    assert said[-1] == f"Error: {out} was written, but TensorRT cannot run it on this machine: {why}"
    assert done.stderr.count("Building the TensorRT engine for this device (int8)") == 1
    assert "Warning: no engine runs int8 on the GPU of this machine; fp16 does. Try --precision fp16 or auto." in said
    assert {name for name, times in gate.milliseconds_here.items() if "tensorrt" in times} == {"fp32", "fp16"}
    assert not any("tensorrt" in gate.failed_here.get(name, {}) for name in ("fp32", "fp16"))


USABLE = "from edgead.runtime.engines.opening import usable_engines; print(*usable_engines())"


def test_tensorrt_without_a_driver_counts_for_nothing(machine: tuple[Path, Path]) -> None:
    shim, cuda = machine
    found = {
        libraries: subprocess.run(
            [sys.executable, "-c", USABLE],
            capture_output=True,
            text=True,
            check=True,
            env=environment(shim, TESTS, libraries=libraries),
        ).stdout.split()
        for libraries in (cuda, None)
    }
    assert "tensorrt" in found[cuda]
    assert "onnxruntime" in found[None]
    assert not {"tensorrt", "onnxruntime-cuda"} & {*found[None]}
