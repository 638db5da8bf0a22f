"""Decide on frames that a pycuda program has on the GPU: they are resized there and never come back.

python examples/pycuda_camera.py BUNDLE SOURCE [ENGINE]

SOURCE: 0, rtsp://…, a folder of images. ENGINE: tensorrt (default) or onnxruntime-cuda.
Needs pip install 'edgead[pycuda]', and nvcc of the CUDA toolkit for the kernel.
"""

import sys

import numpy as np
import pycuda.autoprimaryctx  # noqa: F401  not autoinit: the engine uses the GPU's primary context
from pycuda import gpuarray
from pycuda.compiler import SourceModule

import edgead
from edgead.runtime.sources import open_source

SHRINK = """
// Each pixel is the mean of the area that it covers, as in training. One thread for each pixel.
extern "C" __global__ void shrink(const unsigned char *from, int rows, int columns, unsigned char *to, int h, int w) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= w || y >= h) return;
    float top = y * (float)rows / h, bottom = (y + 1) * (float)rows / h;
    float left = x * (float)columns / w, right = (x + 1) * (float)columns / w;
    float sum[3] = {0, 0, 0}, area = 0;
    for (int r = (int)top; r < rows && r < bottom; r++)
        for (int c = (int)left; c < columns && c < right; c++) {
            float share = (fminf(r + 1, bottom) - fmaxf(r, top)) * (fminf(c + 1, right) - fmaxf(c, left));
            for (int k = 0; k < 3; k++) sum[k] += share * from[(r * columns + c) * 3 + k];
            area += share;
        }
    for (int k = 0; k < 3; k++) to[(y * w + x) * 3 + k] = (unsigned char)(sum[k] / area + 0.5f);
}
"""

engine = sys.argv[3] if len(sys.argv) > 3 else "tensorrt"
with edgead.load(sys.argv[1], engine=engine) as inspector, open_source(sys.argv[2]) as frames:
    shrink = SourceModule(SHRINK, no_extern_c=True).get_function("shrink")
    height, width = inspector.size
    fitted = gpuarray.empty((1, height, width, 3), np.uint8)
    grid = (-(-width // 16), -(-height // 16))
    for captured in frames:
        frame = gpuarray.to_gpu(np.ascontiguousarray(captured.image))
        rows, columns = (np.int32(side) for side in frame.shape[:2])
        shrink(frame, rows, columns, fitted, np.int32(height), np.int32(width), block=(16, 16, 1), grid=grid)
        [result] = inspector.inspect_on_gpu(fitted, source_id=captured.source_id, frame_id=captured.frame_id)
        print(captured.path, result.verdict.value, f"{result.score:.4f}")
