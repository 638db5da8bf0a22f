"""`edgead doctor`: report what this machine can run and what is missing."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from edgead.errors import DeviceError, first_line, is_installed, require
from edgead.machine import (
    describe_accelerator,
    distributions,
    find_gpu,
    module_versions,
    overflows_int8,
    usable_cores,
)
from edgead.runtime.engines.opening import all_specs


def _of_engines() -> dict[str, tuple[str, str]]:
    """Return what the packages of the CPU engines are for: the first engine with a package stands for it."""
    purposes: dict[str, tuple[str, str]] = {}
    for spec in all_specs().values():
        if spec.module and not spec.on_gpu:
            purposes.setdefault(spec.module, (spec.purpose, spec.extra))
    return purposes


PURPOSES = {
    "numpy": ("arrays", ""),
    "cv2": ("reading images and cameras", "cpu"),
    "simplejpeg": ("reading JPEG files and MJPEG cameras", "jpeg"),
    **_of_engines(),
    "av": ("RTSP cameras and videos, detects damaged frames", "rtsp"),
    "harvesters": ("GenICam cameras", "genicam"),
    "paho.mqtt": ("the MQTT sink", "mqtt"),
    "pymodbus": ("Modbus triggers, and writing to a PLC", "modbus"),
    "asyncua": ("the OPC UA server for PLCs", "opcua"),
    "gpiod": ("GPIO triggers and outputs", "gpio"),
    "starlette": ("the live page", "view"),
    "torch": ("training and export", "train"),
    "onnx": ("export", "train"),
    "torchvision": ("pretrained backbones", "train"),
    "accelerate": ("training", "train"),
    "safetensors": ("training and export", "train"),
    "PIL": ("training", "train"),
    "jinja2": ("reports of trainings, exports and benchmarks", "benchmark"),
}
IMPORT_SECONDS = 60.0
"""Longest import of one package, in seconds. PyTorch takes up to 20 on a Jetson."""
PROBE = """
import contextlib, sys
from edgead.errors import describe, require
from edgead.telemetry import turn_off
turn_off()
try:
    with contextlib.redirect_stdout(sys.stderr):
        if sys.argv[1] == "torchvision":  # beside a CPU-only torch it needs help
            from edgead.train.backbones import torchvision
            module = torchvision()
        else:
            module = require(sys.argv[1], sys.argv[2])
except Exception as error:
    print(describe(error))
    sys.exit(1)
print(getattr(module, "__version__", ""))
"""
"""Imports a package as the verbs do; prints its version or the error."""


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis. `good` is None for a fact that is neither good nor bad."""

    name: str
    good: bool | None
    text: str


@dataclass(frozen=True)
class Imported:
    """The result of importing a package in a process of its own: its version, or why it cannot be imported."""

    version: str = ""
    error: str = ""


def diagnose() -> list[Finding]:
    """Examine this machine. Every installed package is imported, in a process of its own, which may crash."""
    findings = [Finding("python", None, f"{platform.python_version()} on {platform.platform()}")]
    imports = try_imports([module for module in PURPOSES if is_installed(module)])
    for module, (purpose, extra) in PURPOSES.items():
        if module not in imports:
            findings.append(Finding(module, False, f"missing, needed for {purpose}: pip install 'edgead[{extra}]'"))
        elif error := imports[module].error:
            findings.append(Finding(module, False, f"{_version(module, imports)}: {error}"))
        else:
            findings.append(Finding(module, True, f"{_version(module, imports)}, {purpose}"))
    if "cv2" in imports and not imports["cv2"].error:
        findings.append(_camera_support())
    if is_installed("onnxruntime") and {"onnxruntime", "onnxruntime-gpu"} <= set(distributions("onnxruntime")):
        findings.append(
            Finding("onnxruntime", False, "onnxruntime and onnxruntime-gpu overwrite each other: uninstall one")
        )
    findings += _int8()
    gpu = describe_accelerator()
    findings.append(Finding("gpu", None, gpu or "no NVIDIA GPU found (nvidia-smi lists none)"))
    findings.append(_tensorrt())
    return findings


def _tensorrt() -> Finding:
    """TensorRT needs a GPU; without one, its absence is not a fault."""
    try:
        gpu = find_gpu()
    except DeviceError as error:
        return Finding("tensorrt", None, first_line(error).partition(" See:")[0])
    where = f"{gpu.name}, compute capability {gpu.capability}, driver {gpu.driver}"
    if not is_installed("tensorrt"):
        return Finding("tensorrt", False, f"missing on {where}: see docs/tensorrt.md")
    imports = try_imports(["tensorrt"])
    version = _version("tensorrt", imports)
    if broken := imports["tensorrt"].error:
        return Finding("tensorrt", False, f"{version} on {where}: {broken}")
    return Finding("tensorrt", True, f"{version} on {where}; check it with: edgead doctor --build BUNDLE")


def _int8() -> list[Finding]:
    """Warn of an x86 processor without VNNI: it adds products of 8-bit numbers in 16 bits, which may overflow."""
    if not overflows_int8():
        return []
    text = "this processor has no VNNI: its INT8 is slow, and may overflow; prefer fp32 bundles (docs/precision.md)"
    return [Finding("int8", None, text)]


def try_imports(modules: Sequence[str]) -> dict[str, Imported]:
    """Import packages, as many at once as this process may use cores, each for at most `IMPORT_SECONDS`."""
    found: dict[str, Imported] = {}
    at_once = usable_cores() or 1
    for start in range(0, len(modules), at_once):
        processes = {module: _start_import(module) for module in modules[start : start + at_once]}
        until = time.monotonic() + IMPORT_SECONDS
        try:
            found |= {module: _wait(process, until) for module, process in processes.items()}
        finally:
            for process in processes.values():
                process.kill()
                process.communicate()
    return found


def _start_import(module: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROBE, module, PURPOSES.get(module, ("", ""))[1]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True, env=environment
    )


def _wait(process: subprocess.Popen[str], until: float) -> Imported:
    try:
        text = process.communicate(timeout=max(1.0, until - time.monotonic()))[0].strip()
    except subprocess.TimeoutExpired:
        return Imported(error=f"its import takes longer than {IMPORT_SECONDS:.0f} s")
    code = process.returncode
    if code < 0:
        return Imported(error=f"its import ended the process with signal {signal.Signals(-code).name}")
    if code:
        return Imported(error=" ".join(text.split()) or f"its import ended the process with code {code}")
    return Imported(version=text)


def _version(module: str, imports: dict[str, Imported]) -> str:
    """Return the names and versions of a package's distributions, or its own version: the system's have no metadata."""
    own = imports[module].version if module in imports else ""
    return ", ".join(module_versions(module)) or f"{module} {own}".strip()


def _camera_support() -> Finding:
    cv2 = require("cv2", "cpu")
    registry = cv2.videoio_registry
    backends = {"V4L2": cv2.CAP_V4L2, "FFmpeg": cv2.CAP_FFMPEG, "GStreamer": cv2.CAP_GSTREAMER}
    there = [name for name, number in backends.items() if registry.hasBackend(number)]
    absent = [name for name in backends if name not in there]
    text = f"OpenCV reads cameras and videos with {', '.join(there) or 'nothing'}"
    return Finding("cameras", bool(there), text + (f" (not with {', '.join(absent)})" if absent else ""))
