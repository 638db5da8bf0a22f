"""A kernel for the CUDA on the host: a Python function that a stream calls when its turn comes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

CALLED = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class HostKernel:
    """Launch `work` in streams; recorded, it is replayed."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._cuda = ctypes.CDLL("libcudart.so.12")
        self._cuda.cudaLaunchHostFunc.argtypes = [ctypes.c_void_p, CALLED, ctypes.c_void_p]
        self._cuda.cudaMalloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self._cuda.cudaFree.argtypes = [ctypes.c_void_p]
        self._called = CALLED(lambda _: work())

    def launch(self, stream: int) -> bool:
        """Return whether the stream takes it."""
        return not self._cuda.cudaLaunchHostFunc(stream, self._called, None)

    def allocate(self) -> bool:
        """Allocate memory on the device, which no recording permits, and free it. Return whether that was permitted."""
        pointer = ctypes.c_void_p()
        return not self._cuda.cudaMalloc(ctypes.byref(pointer), 16) and not self._cuda.cudaFree(pointer)
