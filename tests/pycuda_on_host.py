"""The parts of pycuda that examples/pycuda_camera.py uses, on the CUDA on the host: kernels are compiled by gcc.

Arrays are in the context that is current, as pycuda's. A kernel works when its stream, the default one, is waited for.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

AS_C = """
#include <math.h>
typedef struct { int x, y, z; } dim;
static dim threadIdx, blockIdx, blockDim;
#define __global__
"""
CALL = """
void run(void **a, int bx, int by, int gx, int gy) {
    blockDim = (dim){bx, by, 1};
    for (blockIdx.y = 0; blockIdx.y < gy; blockIdx.y++) for (blockIdx.x = 0; blockIdx.x < gx; blockIdx.x++)
        for (threadIdx.y = 0; threadIdx.y < by; threadIdx.y++) for (threadIdx.x = 0; threadIdx.x < bx; threadIdx.x++)
            NAME(a[0], *(int *)a[1], *(int *)a[2], a[3], *(int *)a[4], *(int *)a[5]);
}
"""
_cuda = ctypes.CDLL("libcudart.so.12")
for _name, _types in {
    "cudaMalloc": [ctypes.c_void_p, ctypes.c_size_t],
    "cudaMemcpyAsync": [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p],
    "cudaLaunchHostFunc": [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p],
}.items():
    getattr(_cuda, _name).argtypes = _types


class GPUArray:
    """An array on the device; it exports itself as pycuda's does, without its stream."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype, pointer = shape, np.dtype(dtype), ctypes.c_void_p()
        self.nbytes = int(np.prod(shape)) * self.dtype.itemsize
        assert not _cuda.cudaMalloc(ctypes.byref(pointer), self.nbytes)
        self.gpudata = int(pointer.value or 0)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        facts = {"shape": self.shape, "strides": None, "typestr": self.dtype.str, "version": 3}
        return {**facts, "data": (self.gpudata, False), "stream": None}


def to_gpu(array: NDArray[Any]) -> GPUArray:
    made = GPUArray(array.shape, array.dtype)
    assert not _cuda.cudaMemcpyAsync(made.gpudata, array.ctypes.data, array.nbytes, 1, None)
    return made


class SourceModule:
    """A kernel of the example's signature."""

    def __init__(self, source: str, no_extern_c: bool = False) -> None:
        assert no_extern_c
        self.source, self.kept = source.replace('extern "C"', ""), []

    def get_function(self, name: str) -> Any:
        folder = Path(tempfile.mkdtemp())
        (folder / "k.c").write_text(AS_C + self.source + CALL.replace("NAME", name))
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", folder / "k.so", folder / "k.c", "-lm"], check=True)
        run = ctypes.CDLL(str(folder / "k.so")).run

        def launch(*arguments: Any, block: tuple[int, int, int], grid: tuple[int, int]) -> None:
            values = [each if isinstance(each, GPUArray) else ctypes.c_int(int(each)) for each in arguments]
            addresses = [each.gpudata if isinstance(each, GPUArray) else ctypes.addressof(each) for each in values]
            given = (ctypes.c_void_p * len(values))(*addresses)

            def work(_: object) -> None:
                run(given, *block[:2], *grid)

            called = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(work)
            self.kept.append((called, values))
            assert not _cuda.cudaLaunchHostFunc(None, called, None)

        return launch


def install() -> None:
    """Put them under pycuda's names. The primary context is the standard one here, so autoprimaryctx does nothing."""
    modules = {name: ModuleType(f"pycuda.{name}") for name in ("gpuarray", "compiler", "autoprimaryctx")}
    modules["gpuarray"].__dict__.update(to_gpu=to_gpu, empty=GPUArray, GPUArray=GPUArray)
    modules["compiler"].__dict__.update(SourceModule=SourceModule)
    package = ModuleType("pycuda")
    package.__path__ = []
    package.__dict__.update(modules)
    sys.modules["pycuda"] = package
    sys.modules.update({f"pycuda.{name}": module for name, module in modules.items()})
