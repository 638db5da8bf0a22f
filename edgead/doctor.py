"""`edgead doctor`: report what this machine can run and what is missing."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from edgead.errors import DeviceError, MissingDependencyError, first_line, is_installed, require
from edgead.machine import describe_accelerator, distributions, find_gpu, module_versions, processor_flags
from edgead.runtime.engines.opening import all_specs

PURPOSES = {
    "cv2": ("reading images and cameras", "cpu"),
    "simplejpeg": ("reading JPEG files and MJPEG cameras", "jpeg"),
    **{each.module: (each.purpose, each.extra) for each in all_specs().values() if each.module and not each.on_gpu},
    "av": ("RTSP cameras and videos, detects damaged frames", "rtsp"),
    "harvesters": ("GenICam cameras", "genicam"),
    "paho.mqtt": ("the MQTT sink", "mqtt"),
    "starlette": ("the live page", "view"),
    "torch": ("training and export", "train"),
    "onnx": ("export", "train"),
    "torchvision": ("pretrained backbones", "train"),
    "accelerate": ("training", "train"),
    "safetensors": ("training and export", "train"),
    "PIL": ("training", "train"),
    "jinja2": ("reports of trainings, exports and benchmarks", "benchmark"),
}


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis. `good` is None for a fact that is neither good nor bad."""

    name: str
    good: bool | None
    text: str


def diagnose() -> list[Finding]:
    """Examine this machine, without slow imports."""
    findings = [Finding("python", None, f"{platform.python_version()} on {platform.platform()}")]
    for module, (purpose, extra) in PURPOSES.items():
        if is_installed(module):
            findings.append(Finding(module, True, f"{_version(module)}, {purpose}"))
        else:
            findings.append(Finding(module, False, f"missing, needed for {purpose}: pip install 'edgead[{extra}]'"))
    if is_installed("cv2"):
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
    return Finding("tensorrt", True, f"{_version('tensorrt')} on {where}; check it with: edgead doctor --build BUNDLE")


def _int8() -> list[Finding]:
    """Warn of an x86 processor without VNNI: it adds products of 8-bit numbers in 16 bits, which may overflow."""
    flags = processor_flags()
    if "sse2" not in flags or {"avx512_vnni", "avx_vnni"} & flags:
        return []
    text = "this processor has no VNNI: its INT8 is slow, and may overflow; prefer fp32 bundles (docs/precision.md)"
    return [Finding("int8", None, text)]


def _version(module: str) -> str:
    return ", ".join(module_versions(module)) or "installed"


def _camera_support() -> Finding:
    try:
        cv2 = require("cv2", "cpu")
    except MissingDependencyError as error:
        return Finding("cameras", False, str(error))
    registry = cv2.videoio_registry
    backends = {"V4L2": cv2.CAP_V4L2, "FFmpeg": cv2.CAP_FFMPEG, "GStreamer": cv2.CAP_GSTREAMER}
    there = [name for name, number in backends.items() if registry.hasBackend(number)]
    absent = [name for name in backends if name not in there]
    text = f"OpenCV reads cameras and videos with {', '.join(there) or 'nothing'}"
    return Finding("cameras", bool(there), text + (f" (not with {', '.join(absent)})" if absent else ""))
