"""The parts of pycuda that examples/pycuda_camera.py uses, on the CUDA on the host.

Arrays are in the context that is current, as pycuda's.
"""

from __future__ import annotations

import ctypes
import sys
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

_cuda = ctypes.CDLL("libcudart.so.12")
for _name, _types in {
    "cudaMalloc": [ctypes.c_void_p, ctypes.c_size_t],
    "cudaMemcpyAsync": [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p],
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


def install() -> None:
    """Put them under pycuda's names. The primary context is the standard one here, so autoprimaryctx does nothing."""
    modules = {name: ModuleType(f"pycuda.{name}") for name in ("gpuarray", "autoprimaryctx")}
    modules["gpuarray"].__dict__.update(to_gpu=to_gpu)
    package = ModuleType("pycuda")
    package.__path__ = []
    package.__dict__.update(modules)
    sys.modules["pycuda"] = package
    sys.modules.update({f"pycuda.{name}": module for name, module in modules.items()})
