"""Start a bundle in a process of its own: time to the first result, and memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from edgead.benchmark.figures import Start
from edgead.errors import DeviceError
from edgead.images import Frame

TIMEOUT = 1800.0
"""Seconds; TensorRT may build its engine at the first start."""
PROGRAM = """
import json, sys, time
import numpy as np
import edgead
frame = np.load(sys.argv[3])
before = time.monotonic()
with edgead.load(sys.argv[1], engine=sys.argv[2]) as inspector:
    loaded = time.monotonic()
    inspector.inspect(frame)
    first = time.monotonic()
    try:  # not ru_maxrss, which starts with the peak of the parent process
        lines = open("/proc/self/status").read().splitlines()
        peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        import resource
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
print(json.dumps([before, loaded, first, peak]))
"""


def measure_start(bundle: Path, engine: str, frame: Frame) -> Start:
    """Load a bundle in a new process and inspect one frame.

    Args:
        bundle: the folder.
        engine: see `edgead.load`.
        frame: at the camera's resolution.

    Raises:
        DeviceError: the process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "frame.npy")
        np.save(file, frame)
        command = [sys.executable, "-c", PROGRAM, str(bundle), engine, str(file)]
        began = time.monotonic()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
            before, loaded, first, peak = json.loads(done.stdout.splitlines()[-1])
        except (subprocess.SubprocessError, ValueError, IndexError) as error:
            said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
            raise DeviceError(f"{bundle} does not start in a separate process: {said[-1] if said else ''}") from error
    return Start(
        first_result_seconds=round(first - began, 3),
        load_seconds=round(loaded - before, 3),
        first_call_ms=round((first - loaded) * 1e3, 3),
        peak_rss_mib=round(peak, 1),
    )
