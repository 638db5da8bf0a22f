"""The fastest engine on this machine, measured once and remembered."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Hashable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import MODEL, Bundle
from edgead.errors import DeviceError, EdgeadError, MissingDependencyError, is_installed
from edgead.files import write_json
from edgead.runtime.engines import CPU_MODEL, Engine, open_engine
from edgead.runtime.golden import check_golden

CANDIDATES = {
    "onnxruntime": "onnxruntime",
    "onnxruntime-cuda": "onnxruntime",
    "openvino": "openvino",
    "openvino-bf16": "openvino",
    "tensorrt": "tensorrt",
}
"""Engine ↦ the module that must be there. bf16 is taken only where it still gives the golden outputs."""
K = TypeVar("K", bound=Hashable)
ROUNDS = 9
"""Timed inferences of each candidate, after one that is not timed; the median counts."""


def cache_folder() -> Path:
    """Return the folder of what this machine has found out: ``$XDG_CACHE_HOME/edgead`` or ``~/.cache/edgead``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgead"


def installed_engines() -> list[str]:
    """Return the engines whose package is installed."""
    return [name for name, module in CANDIDATES.items() if is_installed(module)]


def choose_engine(bundle: Bundle) -> str:
    """Return the engine that is fastest here among those that give a bundle's golden outputs.

    The choice is kept in ``engines.json`` of `cache_folder`, for this graph, machine and these versions; delete the
    file to measure again.

    Raises:
        MissingDependencyError: no engine is installed.
        DeviceError: none gives the golden outputs.
    """
    installed = installed_engines()
    if not installed:
        raise MissingDependencyError("No engine is installed.\nInstall one with:  pip install 'edgead[cpu]'")
    if len(installed) == 1:
        return installed[0]
    file, key = cache_folder() / "engines.json", _key(bundle, installed)
    remembered = _read(file)
    if key in remembered and remembered[key]["engine"] in installed:
        return str(remembered[key]["engine"])
    times = _time_candidates(bundle, installed)
    fastest = min(times, key=lambda name: times[name])
    with contextlib.suppress(OSError):  # a machine without a home measures at every start
        write_json(
            file, {**remembered, key: {"engine": fastest, "milliseconds": times, "bundle": bundle.manifest.name}}
        )
    return fastest


def _time_candidates(bundle: Bundle, names: list[str]) -> dict[str, float]:
    """Return the median milliseconds of each candidate that gives the golden outputs, measured in turn."""
    engines, reasons = open_good(bundle, names)
    if not engines:
        raise DeviceError("No engine can run this bundle here.\n" + "\n".join(reasons[:2]))
    try:
        return time_engines(engines, bundle.golden().frames)
    finally:
        for engine in engines.values():
            engine.close()


def open_good(bundle: Bundle, names: Sequence[str]) -> tuple[dict[str, Engine], list[str]]:
    """Open those of the engines that give a bundle's golden outputs here, and say of the others why they do not."""
    engines: dict[str, Engine] = {}
    reasons = []
    for name in names:
        try:
            engine = open_engine(name, bundle)
        except EdgeadError as error:
            reasons.append(f"{name}: {str(error).splitlines()[0]}")
            continue
        if check_golden(bundle, engine).good:  # also the inference that is not timed
            engines[name] = engine
        else:
            reasons.append(f"{name}: does not give the golden outputs")
            engine.close()
    return engines, reasons


def time_engines(engines: Mapping[K, Engine], frames: NDArray[np.uint8], rounds: int = ROUNDS) -> dict[K, float]:
    """Return the median milliseconds of each engine for one of the frames, measured in turn."""
    times: dict[K, list[float]] = {name: [] for name in engines}
    for number in range(rounds):
        frame = frames[number % len(frames)][None]
        for name, engine in engines.items():
            start = time.perf_counter()
            engine.infer(frame)
            times[name].append((time.perf_counter() - start) * 1e3)
    return {name: round(float(np.median(values)), 4) for name, values in times.items()}


def _key(bundle: Bundle, installed: list[str]) -> str:
    """Name all that the choice depends on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = []
    for module in sorted({CANDIDATES[name] for name in installed}):
        names = metadata.packages_distributions().get(module, [module])
        versions += [f"{name} {metadata.version(name)}" for name in sorted(set(names))]
    files = bundle.manifest.files
    facts = [files[MODEL], files.get(CPU_MODEL, ""), _processor(), str(cores), *versions]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:32]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    return " ".join(sorted(models)) or platform.machine()


def _read(file: Path) -> dict[str, dict[str, object]]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
