"""Facts about this machine: processor, cores, memory, GPU, and the versions of what is installed."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edgead.errors import DeviceError
from edgead.text import utc_now

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
PROCESSOR = Path("/proc/cpuinfo")
_MAJOR, _MINOR = 75, 76  # CUdevice_attribute


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
        cpu=processor(),
        cores=os.cpu_count(),
        usable_cores=usable_cores(),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        accelerator=describe_accelerator(),
        system=platform.platform(),
        load_before=round(load_average(), 2),
    )


def processor() -> str:
    """Return the processor's model; with several kinds of cores all models, separated by commas."""
    try:
        lines = PROCESSOR.read_text().splitlines()
        models = dict.fromkeys(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        return ", ".join(models) or Path("/proc/device-tree/model").read_text().strip("\0\n")
    except OSError:
        return platform.processor() or platform.machine()


def processor_flags() -> set[str]:
    """Return the processor's features by their Linux names; empty if unknown."""
    return {*PROCESSOR.read_text().split()} if PROCESSOR.exists() else set()


def overflows_int8() -> bool:
    """Return whether the processor adds products of 8 bits with and without sign in 16 bits: x86 without VNNI."""
    flags = processor_flags()
    return "sse2" in flags and not {"avx512_vnni", "avx_vnni"} & flags


def loading_processes(cores: int) -> int:
    """Return how many processes prepare the examples of a training that has so many cores; 0: its own does."""
    return 0 if cores <= 2 else min(8, cores - 1)


def usable_cores() -> int | None:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def physical_cores() -> int:
    """Return how many cores this process may use, without second hardware threads; 0 if the system does not tell.

    0 is ONNX Runtime's default: as many threads, but pinned to cores.
    """
    if not hasattr(os, "sched_getaffinity"):
        return 0
    files = [Path(f"/sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list") for n in os.sched_getaffinity(0)]
    try:
        return len({file.read_text() for file in files})
    except OSError:
        return 0


def resident_mib() -> float:
    """Return the memory of this process, MiB; 0 if the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def load_average() -> float:
    """Return the average number of running processes over the last minute; 0 if the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def versions(*more: str) -> dict[str, str]:
    """Return the versions of Python and of the installed packages that matter, and those of `more` packages."""
    found = {"python": platform.python_version()}
    for name in (*PACKAGES, *more):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Measurement:
    """When, with which command and on which machine something was measured: the head of a results file.

    Attributes:
        created: UTC in ISO 8601.
        command: without the folders of its arguments.
        versions: see `versions`.
    """

    created: str
    command: str
    machine: Machine
    versions: dict[str, str]


def describe_measurement(script: str, *packages: str) -> Measurement:
    """Describe the measurement that this process begins.

    Args:
        script: what follows ``python`` in the command: ``benchmarks/drift.py``.
        packages: more packages whose versions matter.
    """
    words = ["python", *script.split(), *(os.path.basename(word) or word for word in sys.argv[1:])]
    return Measurement(utc_now(), shlex.join(words), describe_machine(), versions(*packages))


@functools.cache
def _distributions_by_module() -> Mapping[str, list[str]]:
    """Read the file lists of all installed packages: up to seconds, so once in a process."""
    return metadata.packages_distributions()


def distributions(module: str) -> list[str]:
    """Return the names of the installed distributions with a module; several overwrite each other."""
    return list(dict.fromkeys(_distributions_by_module().get(module.partition(".")[0], [])))


def module_versions(module: str) -> list[str]:
    """Return ``NAME VERSION`` of each distribution of a module; none for a system's package without metadata."""
    return [f"{name} {metadata.version(name)}" for name in distributions(module)]


def describe_accelerator() -> str | None:
    """Return name and driver of each NVIDIA GPU, one per line, or None if nvidia-smi reports none."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


@dataclass(frozen=True)
class Gpu:
    """A GPU as its driver describes it: "Orin", "8.7", "12.6 (540.4.0)"."""

    name: str
    capability: str
    driver: str
    """The newest CUDA that the driver supports and, if the kernel reports it, the driver's version."""


def find_gpu() -> Gpu:
    """Describe the first GPU, without opening a context on it.

    Raises:
        DeviceError: no driver, or no GPU. Call it first: CUDA libraries crash without a driver.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise DeviceError(
            "No NVIDIA driver is installed here (libcuda.so.1 is missing). See:  edgead doctor"
        ) from error
    count, device, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(128)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        raise DeviceError("The NVIDIA driver finds no usable GPU. See:  nvidia-smi")
    major, minor, version = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if (
        driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetName(name, len(name), device)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
        or driver.cuDriverGetVersion(ctypes.byref(version))
    ):
        raise DeviceError("The NVIDIA driver cannot describe the GPU. See:  nvidia-smi")
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Gpu(name.value.decode(), f"{major.value}.{minor.value}", f"{cuda} ({_kernel_driver()})")


def _kernel_driver() -> str:
    for path in ("/sys/module/nvidia/version", "/etc/nv_tegra_release"):  # the second one on a Jetson up to JetPack 6
        try:
            return Path(path).read_text(encoding="utf-8").splitlines()[0].strip()
        except (OSError, IndexError):
            continue
    return "unknown"


def gpu_or_none() -> str:
    """Return the first GPU as text, or ``"none"``."""
    try:
        return str(find_gpu())
    except DeviceError:
        return "none"
