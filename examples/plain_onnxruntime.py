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

bundle = Path(sys.argv[1])
manifest = json.loads((bundle / "manifest.json").read_text())
if "geometry" in manifest:
    sys.exit("This bundle aligns, crops, letterboxes or cuts frames (docs/geometry.md); this example only stretches.")
session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
size = (manifest["input"]["width"], manifest["input"]["height"])
frame = cv2.resize(cv2.imread(sys.argv[2]), size, interpolation=cv2.INTER_AREA)
scores, maps = session.run(["scores", "maps"], {"frames": np.ascontiguousarray(frame[None])})
print("FAIL" if scores[0] > manifest["threshold"]["value"] else "PASS", scores[0])
