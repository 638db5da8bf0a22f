"""Export a run in float32 and in INT8 and compare the two: size, what the gate found, time here.

python examples/int8.py RUN FOLDER
"""

import sys
import time
from pathlib import Path

import numpy as np

import edgead
from edgead.errors import GateError
from edgead.export import Calibration, PrecisionOptions, export

if len(sys.argv) < 3:
    sys.exit("Usage: " + __doc__.splitlines()[2])
run, folder = Path(sys.argv[1]), Path(sys.argv[2])
paths = [export(run, out=folder / "fp32.edgead").path]
try:
    int8 = PrecisionOptions("int8", Calibration(samples=64))
    paths.append(export(run, out=folder / "int8.edgead", precision=int8).path)
except GateError as error:  # no bundle is written if verdicts would change
    print("INT8 is not good enough for this model:", error)
for path in paths:
    with edgead.load(path, engine="onnxruntime") as inspector:
        frame = np.full((480, 640, 3), 128, np.uint8)
        start = time.perf_counter()
        for _ in range(20):
            inspector.inspect(frame)
        milliseconds = (time.perf_counter() - start) / 20 * 1000
        size = sum(file.stat().st_size for file in path.iterdir()) / 1e6
        gate = inspector.bundle.manifest.gate
        print(f"{path.name}: {size:.1f} MB, {milliseconds:.1f} ms a frame. {gate.describe() if gate else ''}")
