"""Selects the fastest engine on this machine: measured once, then cached."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Hashable, Mapping, MutableMapping
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import MODEL, Bundle
from edgead.console import Console
from edgead.errors import DeviceError, EdgeadError, MissingDependencyError, first_line
from edgead.files import write_json
from edgead.home import cache_folder
from edgead.machine import gpu_or_none, module_versions, processor, usable_cores
from edgead.runtime.engines import CPU_MODEL, Engine, EngineSpec, Opening
from edgead.runtime.engines.checked import CheckedEngine
from edgead.runtime.engines.opening import find_spec, installed_engines, open_agreeing, open_validated
from edgead.schema import load_json

K = TypeVar("K", bound=Hashable)
ROUNDS = 5
"""Timed inferences of each candidate, after those on the golden frames. Their median is compared."""
REST = 0.03
"""Seconds between two engines' turns. ONNX Runtime's threads spin for up to 20 ms after an inference and would slow
down the next engine."""


def open_fastest(bundle: Bundle, *, batch: int = 1, console: Console | None = None) -> CheckedEngine:
    """Open the fastest engine on this machine among those that agree with the bundle's reference outputs.

    The choice is cached in ``engines.json`` of `cache_folder`, per graph, machine and package versions. The chosen
    engine is validated on the golden frames whenever it is opened. If that fails, all engines are measured again.

    Raises:
        MissingDependencyError: no engine is installed.
        DeviceError: no engine agrees with the reference outputs; with the reason for each.
    """
    console = console or Console()
    installed = installed_engines()
    if not installed:
        raise MissingDependencyError("No engine is installed.\nInstall one with:  pip install 'edgead[cpu]'")
    file, key = cache_folder() / "engines.json", _key(bundle, installed, batch)
    remembered = _read(file)
    chosen = remembered.get(key, {}).get("engine")
    if chosen in installed:
        try:
            return open_validated(str(chosen), bundle, batch=batch, console=console)
        except EdgeadError as error:
            console.say(f"The cached choice, engine {chosen}, cannot be used: {first_line(error)} Measuring again.")
    engines, reasons = open_agreeing(bundle, installed, batch, console)
    times = time_engines(engines, bundle.golden().frames, ROUNDS if len(engines) > 1 else 1, reasons)
    fastest = min(times, key=lambda name: times[name], default="")
    for name, engine in engines.items():
        if name != fastest:
            engine.close()
    if not times:
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise DeviceError(f"No engine can run this bundle here.\n{why}")
    note = {"engine": fastest, "milliseconds": times, "left_out": reasons, "bundle": bundle.manifest.name}
    with contextlib.suppress(OSError):  # without a home folder, every start measures
        write_json(file, {**remembered, key: note})
    return engines[fastest]


def time_engines(
    engines: Mapping[K, Engine],
    frames: NDArray[np.uint8],
    rounds: int = ROUNDS,
    reasons: MutableMapping[K, str] | None = None,
) -> dict[K, float]:
    """Return the median milliseconds of each engine for one of the frames, measured in turn (see `take_turn`).

    An engine that raises is left out; its error goes into `reasons`.
    """
    times: dict[K, list[float]] = {name: [] for name in engines}
    for number in range(rounds):
        frame = frames[number % len(frames)][None]
        for name in list(times):
            try:
                if len(engines) > 1:
                    take_turn(engines[name], frame)
                start = time.perf_counter()
                engines[name].infer(frame)
            except EdgeadError as error:
                del times[name]
                if reasons is not None:
                    reasons[name] = first_line(error)
            else:
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: round(float(np.median(values)), 4) for name, values in times.items()}


def take_turn(engine: Engine, frame: NDArray[np.uint8]) -> None:
    """Prepare an engine for timing after another one: rest, then one inference that reloads its weights into caches.

    Args:
        engine: the next engine.
        frame: ``[1, h, w, 3] uint8``.
    """
    time.sleep(REST)
    engine.infer(frame)


def _key(bundle: Bundle, installed: list[str], batch: int) -> str:
    """Return a hash of everything that the choice depends on."""
    modules = sorted({find_spec(name).module for name in installed} - {""})
    versions = [version for module in modules for version in sorted(module_versions(module))]
    files = bundle.manifest.files
    facts = [
        files[MODEL],
        files.get(CPU_MODEL, ""),
        processor(),
        gpu_or_none(),
        str(usable_cores()),
        str(batch),
        *versions,
    ]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:32]


def _read(file: Path) -> dict[str, dict[str, object]]:
    try:
        found = load_json(file)
    except (OSError, ValueError):
        return {}
    entries = found.items() if isinstance(found, dict) else ()
    return {key: entry for key, entry in entries if isinstance(entry, dict)}


def _open(bundle: Bundle, opening: Opening) -> CheckedEngine:
    return open_fastest(bundle, batch=opening.batch, console=opening.console)


SPEC = EngineSpec(_open, "the fastest of the installed engines", chooses=True)
