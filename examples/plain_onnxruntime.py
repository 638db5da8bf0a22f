"""Run a bundle's graph without edgead: it is ordinary ONNX.

python examples/plain_onnxruntime.py BUNDLE IMAGE
"""

import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime 1.32 sends telemetry otherwise
import onnxruntime

if len(sys.argv) < 3:
    sys.exit("Usage: " + __doc__.splitlines()[2])
bundle = Path(sys.argv[1])
manifest = json.loads((bundle / "manifest.json").read_text())
if "geometry" in manifest:
    sys.exit("This bundle aligns, crops, letterboxes or cuts frames (docs/geometry.md); this example only stretches.")
session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
size = (manifest["input"]["width"], manifest["input"]["height"])
image = cv2.imread(sys.argv[2])
if image is None:
    sys.exit(f"UNKNOWN: {sys.argv[2]} cannot be read.")
frame = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
scores, maps = session.run(["scores", "maps"], {"frames": np.ascontiguousarray(frame[None])})
if not (np.isfinite(scores).all() and np.isfinite(maps).all()):  # NaN is not above the threshold either
    verdict = "UNKNOWN"
else:
    verdict = "FAIL" if scores[0] > manifest["threshold"]["value"] else "PASS"
print(verdict, scores[0])
