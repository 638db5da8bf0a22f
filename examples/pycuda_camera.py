"""Decide on frames that a pycuda program has on the GPU: they are resized there and never come back.

python examples/pycuda_camera.py BUNDLE SOURCE [ENGINE]

SOURCE: 0, rtsp://…, a folder of images. ENGINE: tensorrt (default) or onnxruntime-cuda.
Needs pip install 'edgead[pycuda]'.
"""

import sys

if len(sys.argv) < 3:
    sys.exit("Usage: " + __doc__.splitlines()[2])

import numpy as np
import pycuda.autoprimaryctx  # noqa: F401  not autoinit: the engine uses the GPU's primary context
from pycuda import gpuarray

import edgead
from edgead.runtime.sources import open_source

engine = sys.argv[3] if len(sys.argv) > 3 else "tensorrt"
with edgead.load(sys.argv[1], engine=engine) as inspector, open_source(sys.argv[2]) as frames:
    for captured in frames:
        if captured.image is None or captured.error:  # damaged, or not to be trusted
            print(captured.path, edgead.Verdict.UNKNOWN, captured.error)
            continue
        # In your program a kernel or a decoder has written the frame there; here it is copied there.
        frame = gpuarray.to_gpu(np.ascontiguousarray(captured.image)[None])  # [1, H, W, 3] uint8 BGR
        [result] = inspector.inspect_on_gpu(frame, source_id=captured.source_id, frame_id=captured.frame_id)
        print(captured.path, result.verdict.value, f"{result.score:.4f}")
