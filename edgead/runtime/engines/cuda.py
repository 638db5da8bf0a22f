"""The few CUDA runtime calls that the TensorRT engine needs, through ctypes. Why not pycuda: docs/adr/0007.

The runtime works on a device's primary context, the one that every other library in the process uses. Nothing here has
been run on a GPU by its authors; the machine it was written on has none.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.errors import DeviceError
from edgead.machine import find_gpu

_NAMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so")
_INTEGRATED = 18  # cudaDeviceAttr
_HOST_TO_DEVICE, _DEVICE_TO_HOST = 1, 2
_NON_BLOCKING, _THREAD_LOCAL, _MAPPED = 1, 1, 2


class Recording:
    """The result of `Cuda.capture`; `graph` is set when its block has ended."""

    graph: ctypes.c_void_p


def _load() -> ctypes.CDLL:
    """Return the newest CUDA runtime that works with the driver."""
    names = list(_NAMES)
    for package in ("nvidia.cuda_runtime", "nvidia.cu13"):  # where pip installs it
        try:
            found = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            continue
        for root in (found.submodule_search_locations or []) if found else []:
            names += [str(path) for path in sorted(Path(root).glob("lib/libcudart.so.*"))]
    refused = ""
    for name in names:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.cudaGetErrorString.restype = ctypes.c_char_p
        count = ctypes.c_int()
        code = library.cudaGetDeviceCount(ctypes.byref(count))
        if not code:
            return library
        refused = f"{name}: {library.cudaGetErrorString(code).decode()}"  # usually a newer CUDA than the driver's
    if refused:
        raise DeviceError(f"No installed CUDA runtime can use the GPU here ({refused}). See:  nvidia-smi")
    raise DeviceError(
        "The CUDA runtime (libcudart) is not installed.\nInstall it with:  pip install 'edgead[tensorrt]'"
    )


class Cuda:
    """One device, one stream and its allocations; `close` frees all of them. Not thread-safe.

    Raises:
        DeviceError: no driver, no GPU, no runtime, or a call failed.
    """

    def __init__(self, device: int = 0) -> None:
        find_gpu()
        self._library = _load()
        self._device = device
        self._call("cudaSetDevice", device)
        self.integrated = bool(self._attribute(_INTEGRATED))
        # The default stream would make TensorRT synchronise the whole device at every frame.
        self.stream = ctypes.c_void_p()
        self._call("cudaStreamCreateWithFlags", ctypes.byref(self.stream), _NON_BLOCKING)
        self.handle = int(self.stream.value or 0)
        self._device_memory: list[ctypes.c_void_p] = []
        self._host_memory: list[ctypes.c_void_p] = []
        self._graphs: list[ctypes.c_void_p] = []

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            text = self._library.cudaGetErrorString(code).decode()
            raise DeviceError(f"CUDA failed: {name}: {text} ({code}). See:  edgead doctor")

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self._call("cudaDeviceGetAttribute", ctypes.byref(value), number, self._device)
        return value.value

    def use_device(self) -> None:
        """Make the device current in the calling thread."""
        self._call("cudaSetDevice", self._device)

    def allocate(self, size: int) -> int:
        """Return the address of `size` bytes on the device."""
        pointer = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(size))
        self._device_memory.append(pointer)
        return int(pointer.value or 0)

    def allocate_host(self, shape: tuple[int, ...], dtype: Any) -> tuple[NDArray[Any], int]:
        """Return a pinned array and the address at which the device sees it (the same memory on a Jetson)."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        pointer, mapped = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cudaHostAlloc", ctypes.byref(pointer), ctypes.c_size_t(size), _MAPPED)
        self._host_memory.append(pointer)
        self._call("cudaHostGetDevicePointer", ctypes.byref(mapped), pointer, 0)
        buffer = (ctypes.c_uint8 * size).from_address(int(pointer.value or 0))
        return np.frombuffer(buffer, dtype).reshape(shape), int(mapped.value or 0)

    def upload(self, device: int, host: NDArray[Any]) -> None:
        """Copy to the device, in the order of the stream."""
        self._copy(device, host.ctypes.data, host.nbytes, _HOST_TO_DEVICE)

    def download(self, host: NDArray[Any], device: int) -> None:
        """Copy from the device, in the order of the stream."""
        self._copy(host.ctypes.data, device, host.nbytes, _DEVICE_TO_HOST)

    def _copy(self, target: int, source: int, size: int, kind: int) -> None:
        self._call(
            "cudaMemcpyAsync",
            ctypes.c_void_p(target),
            ctypes.c_void_p(source),
            ctypes.c_size_t(size),
            kind,
            self.stream,
        )

    def synchronize(self) -> None:
        """Wait until the stream is done."""
        self._call("cudaStreamSynchronize", self.stream)

    @contextmanager
    def capture(self) -> Iterator[Recording]:
        """Record the stream's work in the block, without running it, as a graph for `launch`.

        Raises:
            DeviceError: the block cannot be recorded. The stream stays usable.
        """
        recording = Recording()
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cudaStreamBeginCapture", self.stream, _THREAD_LOCAL)
        try:
            yield recording
        except BaseException:
            # The stream records until this call, even after the recording has failed.
            self._library.cudaStreamEndCapture(self.stream, ctypes.byref(graph))
            self._forget(graph)
            raise
        try:
            self._call("cudaStreamEndCapture", self.stream, ctypes.byref(graph))
            self._call("cudaGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
        finally:
            self._forget(graph)
        self._graphs.append(executable)
        recording.graph = executable

    def _forget(self, graph: ctypes.c_void_p) -> None:
        """Destroy a graph, if it exists, and clear CUDA's last error."""
        if graph.value:
            self._library.cudaGraphDestroy(graph)
        self._library.cudaGetLastError()

    def launch(self, graph: ctypes.c_void_p) -> None:
        """Run a recorded graph in the stream."""
        self._call("cudaGraphLaunch", graph, self.stream)

    def close(self) -> None:
        """Free everything. Errors are ignored: the process ends or has lost the device."""
        library = self._library
        for graph in self._graphs:
            library.cudaGraphExecDestroy(graph)
        for pointer in self._device_memory:
            library.cudaFree(pointer)
        for pointer in self._host_memory:
            library.cudaFreeHost(pointer)
        library.cudaStreamDestroy(self.stream)
        self._graphs, self._device_memory, self._host_memory = [], [], []
