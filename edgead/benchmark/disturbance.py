"""Was the machine quiet? The state before and after, what other processes took, and when a figure is `unstable`.

Everything is read from /proc and /sys; what a system does not have is left out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgead.benchmark.figures import MachineState, Stability
from edgead.machine import load_average, usable_cores

MOST_OTHERS = 0.10
"""Share of the processors' time that other processes may take."""
MOST_STEAL = 0.02
"""Share that the hypervisor may take."""
MOST_DRIFT = 0.10
"""Change of the median from the first half of the calls to the second."""
SHORTEST = 1.0
"""Seconds of processor time, busy or idle, below which the system's ticks are too coarse to tell who took it."""
SENSORS = 16
"""Most temperature sensors in a report."""


def describe_state() -> MachineState:
    """Describe load, clocks, temperatures and power mode now."""
    cpus = Path("/sys/devices/system/cpu")
    governors = {text for text in _texts(cpus, "cpu[0-9]*/cpufreq/scaling_governor").values() if text}
    clocks = [number / 1e3 for number in _numbers(cpus, "cpu[0-9]*/cpufreq/scaling_cur_freq").values()]
    devices = {
        path.parent.name: number / 1e6 for path, number in _numbers(Path("/sys/class/devfreq"), "*/cur_freq").items()
    }
    return MachineState(
        load=round(load_average(), 2),
        governor=", ".join(sorted(governors)) or None,
        clocks_mhz=(min(clocks), max(clocks)) if clocks else None,
        temperatures=_temperatures() or None,
        power_mode=_power_mode(),
        accelerator_clocks_mhz=devices or None,
    )


def _texts(folder: Path, pattern: str) -> dict[Path, str]:
    found = {}
    for path in sorted(folder.glob(pattern)):
        try:
            found[path] = path.read_text().strip()
        except OSError:  # a sensor that is switched off
            continue
    return found


def _numbers(folder: Path, pattern: str) -> dict[Path, float]:
    return {path: float(text) for path, text in _texts(folder, pattern).items() if text.lstrip("-").isdigit()}


def _temperatures() -> dict[str, float]:
    folder = Path("/sys/class/thermal")
    kinds = {path.parent: text for path, text in _texts(folder, "thermal_zone*/type").items()}
    found = {
        f"{kinds.get(path.parent, '?')} ({path.parent.name})": number / 1e3
        for path, number in _numbers(folder, "thermal_zone*/temp").items()
    }
    return dict(list(found.items())[:SENSORS])


def _power_mode() -> str | None:
    """Return the power mode of a Jetson, from the first lines of ``nvpmodel -q``."""
    if not shutil.which("nvpmodel"):
        return None
    try:
        said = subprocess.run(
            ["nvpmodel", "-q"], capture_output=True, text=True, errors="replace", timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return " ".join(said.split()) or None


@dataclass(frozen=True)
class ProcessorTimes:
    """Seconds of all processors since the start of the system: busy, stolen, in all; and of this process."""

    busy: float
    stolen: float
    all: float
    own: float


def processor_times() -> ProcessorTimes | None:
    """Read the processors' times; None if the system does not tell."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
        ticks = [int(field) / os.sysconf("SC_CLK_TCK") for field in fields]
    except (OSError, ValueError, IndexError):
        return None
    if len(ticks) < 8:
        return None
    idle, stolen = ticks[3] + ticks[4], ticks[7]
    return ProcessorTimes(sum(ticks) - idle - stolen, stolen, sum(ticks), time.process_time())


def judge(times: Sequence[float], before: ProcessorTimes | None, after: ProcessorTimes | None) -> Stability:
    """Tell whether latencies count.

    They do not if other processes took more than `MOST_OTHERS` of the processors' time while they were measured, if
    the hypervisor took more than `MOST_STEAL`, or if their median changed by more than `MOST_DRIFT` from the first half
    to the second.

    Args:
        times: latencies, in the order in which they were measured.
        before, after: readings at the beginning and the end.
    """
    half = len(times) // 2
    drift = float(np.median(times[half:]) / np.median(times[:half]) - 1) if half else 0.0
    others = steal = None
    if before and after and after.all - before.all > SHORTEST:
        cores = (usable_cores() or 1) / (os.cpu_count() or 1)
        passed = (after.all - before.all) * cores  # a process on two of eight processors is disturbed on those two
        others = max(0.0, (after.busy - before.busy) - (after.own - before.own)) / passed
        steal = (after.stolen - before.stolen) / passed
    reasons = []
    if others is not None and others > MOST_OTHERS:
        reasons.append(f"other processes took {others:.0%} of the processors' time")
    if steal is not None and steal > MOST_STEAL:
        reasons.append(f"the hypervisor took {steal:.0%} of the processors' time")
    if abs(drift) > MOST_DRIFT:
        reasons.append(f"the median changed by {drift:+.0%} from the first half to the second")
    return Stability(
        round(drift, 4),
        None if others is None else round(others, 4),
        None if steal is None else round(steal, 4),
        "; ".join(reasons),
    )
