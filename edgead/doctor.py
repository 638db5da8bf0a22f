"""`edgead doctor`: what this machine can run, and what is missing."""

from __future__ import annotations

import importlib.util
import platform
import subprocess
from dataclasses import dataclass
from importlib import metadata

PACKAGES = {
    "cv2": ("reading images and cameras", "cpu"),
    "onnxruntime": ("the CPU engine", "cpu"),
    "openvino": ("the faster engine on many x86 CPUs", "cpu"),
    "paho.mqtt": ("the MQTT sink", "mqtt"),
    "torch": ("training and export", "train"),
    "onnx": ("export", "train"),
    "accelerate": ("training", "train"),
    "safetensors": ("training and export", "train"),
    "PIL": ("training", "train"),
    "matplotlib": ("loss curves and benchmark reports", "benchmark"),
}


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis. `good` is None for what is merely a fact."""

    name: str
    good: bool | None
    text: str


def diagnose() -> list[Finding]:
    """Look at this machine. Nothing is imported that is slow to import."""
    findings = [Finding("python", None, f"{platform.python_version()} on {platform.platform()}")]
    for module, (purpose, extra) in PACKAGES.items():
        if not _is_installed(module):
            findings.append(Finding(module, False, f"missing, needed for {purpose}: pip install 'edgead[{extra}]'"))
        else:
            findings.append(Finding(module, True, f"{_version(module)}, {purpose}"))
    if importlib.util.find_spec("cv2") is not None:
        findings.append(_camera_support())
    findings.append(_gpu())
    return findings


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that the module should be in
        return False


def _version(module: str) -> str:
    names = metadata.packages_distributions().get(module.partition(".")[0], [])
    return ", ".join(f"{name} {metadata.version(name)}" for name in dict.fromkeys(names)) or "installed"


def _camera_support() -> Finding:
    import cv2

    registry = cv2.videoio_registry
    backends = {"V4L2": cv2.CAP_V4L2, "FFmpeg": cv2.CAP_FFMPEG, "GStreamer": cv2.CAP_GSTREAMER}
    there = [name for name, number in backends.items() if registry.hasBackend(number)]
    absent = [name for name in backends if name not in there]
    text = f"OpenCV reads cameras and videos with {', '.join(there) or 'nothing'}"
    return Finding("cameras", bool(there), text + (f" (not with {', '.join(absent)})" if absent else ""))


def _gpu() -> Finding:
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        listed = ""
    return Finding("gpu", None, listed.replace("\n", "; ") or "no NVIDIA GPU seen (nvidia-smi gives none)")
