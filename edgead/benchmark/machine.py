"""The machine and the versions that figures were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "edgead",
    "numpy",
    "opencv-python",
    "opencv-python-headless",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
)


@dataclass(frozen=True)
class Machine:
    """A machine, and how busy it was.

    Attributes:
        cpu: model of the processor.
        cores, usable_cores: of the machine, and of those the ones that this process may use.
        memory_gib: GiB.
        accelerator: see `describe_accelerator`.
        system: operating system and version.
        load_before: average number of running processes over the last minute.
    """

    cpu: str
    cores: int | None
    usable_cores: int | None
    memory_gib: float
    accelerator: str | None
    system: str
    load_before: float


def describe_machine() -> Machine:
    """Describe this machine now."""
    return Machine(
        cpu=_cpu(),
        cores=os.cpu_count(),
        usable_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        accelerator=describe_accelerator(),
        system=platform.platform(),
        load_before=round(os.getloadavg()[0], 2),
    )


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that matter."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
        return Path("/proc/device-tree/model").read_text().strip("\0\n")
    except OSError:
        return platform.processor() or platform.machine()


def describe_accelerator() -> str | None:
    """Return name and driver of each NVIDIA GPU, one a line, or None where nvidia-smi finds none."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
