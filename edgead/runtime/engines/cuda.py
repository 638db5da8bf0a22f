"""The CUDA calls that the GPU engines need, through ctypes. Why not pycuda: docs/adr/0007.

The runtime works on a device's primary context, the one that every other library in the process uses. Nothing here has
been run on a GPU by its authors; the machine it was written on has none.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.errors import DataError, DeviceError
from edgead.machine import find_gpu

_NAMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so")
_INTEGRATED = 18  # cudaDeviceAttr
_HOST_TO_DEVICE, _DEVICE_TO_HOST, _BY_ADDRESS = 1, 2, 4  # cudaMemcpyKind
_NON_BLOCKING, _THREAD_LOCAL, _MAPPED = 1, 1, 2
_SLEEPS, _UNTIMED = 1, 2  # flags of an event
_CONTEXT, _MEMORY_TYPE, _ORDINAL = 1, 2, 9  # CUpointer_attribute
_ON_DEVICE = 2  # CUmemorytype; the type of managed memory is where it lies

_OUT = POINTER(c_void_p)
_RUNTIME: Mapping[str, Sequence[Any]] = {
    "cudaGetErrorString": [c_int],
    "cudaGetLastError": [],
    "cudaGetDeviceCount": [POINTER(c_int)],
    "cudaSetDevice": [c_int],
    "cudaDeviceGetAttribute": [POINTER(c_int), c_int, c_int],
    "cudaStreamCreateWithFlags": [_OUT, c_uint],
    "cudaStreamSynchronize": [c_void_p],
    "cudaStreamWaitEvent": [c_void_p, c_void_p, c_uint],
    "cudaStreamDestroy": [c_void_p],
    "cudaEventCreateWithFlags": [_OUT, c_uint],
    "cudaEventRecord": [c_void_p, c_void_p],
    "cudaEventSynchronize": [c_void_p],
    "cudaEventDestroy": [c_void_p],
    "cudaMalloc": [_OUT, c_size_t],
    "cudaFree": [c_void_p],
    "cudaHostAlloc": [_OUT, c_size_t, c_uint],
    "cudaHostGetDevicePointer": [_OUT, c_void_p, c_uint],
    "cudaFreeHost": [c_void_p],
    "cudaMemcpyAsync": [c_void_p, c_void_p, c_size_t, c_int, c_void_p],
    "cudaStreamBeginCapture": [c_void_p, c_int],
    "cudaStreamEndCapture": [c_void_p, _OUT],
    "cudaGraphInstantiateWithFlags": [_OUT, c_void_p, c_ulonglong],
    "cudaGraphDestroy": [c_void_p],
    "cudaGraphExecDestroy": [c_void_p],
    "cudaGraphLaunch": [c_void_p, c_void_p],
}
"""Call ↦ the types of its arguments, as in NVIDIA's header. Without them ctypes cuts an address to 32 bits."""
_DRIVER: Mapping[str, Sequence[Any]] = {
    "cuCtxGetCurrent": [_OUT],
    "cuCtxSetCurrent": [c_void_p],
    "cuPointerGetAttribute": [c_void_p, c_int, c_void_p],
}


class Recording:
    """The result of `Cuda.capture`; `graph` is set when its block has ended."""

    graph: c_void_p


def _declare(library: ctypes.CDLL, calls: Mapping[str, Sequence[Any]]) -> None:
    """Tell ctypes the types of a library's calls."""
    for name, types in calls.items():
        getattr(library, name).argtypes = types


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
        _declare(library, _RUNTIME)
        library.cudaGetErrorString.restype = c_char_p
        code = library.cudaGetDeviceCount(ctypes.byref(c_int()))
        if not code:
            return library
        refused = f"{name}: {library.cudaGetErrorString(code).decode()}"  # usually a newer CUDA than the driver's
    if refused:
        raise DeviceError(f"No installed CUDA runtime can use the GPU here ({refused}). See:  nvidia-smi")
    raise DeviceError(
        "The CUDA runtime (libcudart) is not installed.\n"
        "Install it with:  pip install 'edgead[tensorrt]'   (or 'edgead[gpu]')"
    )


class Cuda:
    """One device, one stream and its allocations; `close` frees all of them. Not thread-safe.

    Args:
        device: number of the GPU.
        sleeps: `synchronize` lets the processor sleep. Otherwise a core spins, which ends some microseconds earlier.

    Raises:
        DeviceError: no driver, no GPU, no runtime, or a call failed.
    """

    def __init__(self, device: int = 0, *, sleeps: bool = False) -> None:
        find_gpu()
        self._library = _load()
        self._driver = ctypes.CDLL("libcuda.so.1")
        _declare(self._driver, _DRIVER)
        self._device = device
        self._device_memory: list[c_void_p] = []
        self._host_memory: list[c_void_p] = []
        self._graphs: list[c_void_p] = []
        self._events: list[c_void_p] = []
        self.stream = c_void_p()
        with self.used():
            self.integrated = bool(self._attribute(_INTEGRATED))
            # The default stream would make TensorRT synchronise the whole device at every frame.
            self._call("cudaStreamCreateWithFlags", ctypes.byref(self.stream), _NON_BLOCKING)
            self._arrived = self._event(_UNTIMED)
            self._done = self._event(_UNTIMED | _SLEEPS) if sleeps else None
        self.handle = int(self.stream.value or 0)

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            text = self._library.cudaGetErrorString(code).decode()
            raise DeviceError(f"CUDA failed: {name}: {text} ({code}). See:  edgead doctor")

    def _attribute(self, number: int) -> int:
        value = c_int()
        self._call("cudaDeviceGetAttribute", ctypes.byref(value), number, self._device)
        return value.value

    def _event(self, flags: int) -> c_void_p:
        event = c_void_p()
        self._call("cudaEventCreateWithFlags", ctypes.byref(event), flags)
        self._events.append(event)
        return event

    def use_device(self) -> None:
        """Make the device's primary context current in the calling thread."""
        self._call("cudaSetDevice", self._device)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Use the device in the block, and give the calling thread its context back."""
        before = self._current_context()
        self.use_device()
        try:
            yield
        finally:
            if before not in (None, self._current_context()):
                self._driver.cuCtxSetCurrent(before)

    def _current_context(self) -> int | None:
        context = c_void_p()
        self._driver.cuCtxGetCurrent(ctypes.byref(context))
        return context.value

    def allocate(self, size: int) -> int:
        """Return the address of `size` bytes on the device."""
        pointer = c_void_p()
        self._call("cudaMalloc", ctypes.byref(pointer), size)
        self._device_memory.append(pointer)
        return int(pointer.value or 0)

    def allocate_host(self, shape: tuple[int, ...], dtype: Any) -> tuple[NDArray[Any], int]:
        """Return a pinned array and the address at which the device sees it (the same memory on a Jetson)."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        pointer, mapped = c_void_p(), c_void_p()
        self._call("cudaHostAlloc", ctypes.byref(pointer), size, _MAPPED)
        self._host_memory.append(pointer)
        self._call("cudaHostGetDevicePointer", ctypes.byref(mapped), pointer, 0)
        buffer = (ctypes.c_uint8 * size).from_address(int(pointer.value or 0))
        return np.frombuffer(buffer, dtype).reshape(shape), int(mapped.value or 0)

    def upload(self, device: int, host: NDArray[Any]) -> None:
        """Copy a pinned array to the device, in the order of the stream."""
        self._copy(device, host.ctypes.data, host.nbytes, _HOST_TO_DEVICE)

    def download(self, host: NDArray[Any], device: int) -> None:
        """Copy from the device to a pinned array, in the order of the stream."""
        self._copy(host.ctypes.data, device, host.nbytes, _DEVICE_TO_HOST)

    def move(self, target: int, source: int, size: int) -> None:
        """Copy `size` bytes between two addresses of the device, in the order of the stream."""
        self._copy(target, source, size, _BY_ADDRESS)

    def _copy(self, target: int, source: int, size: int, kind: int) -> None:
        self._call("cudaMemcpyAsync", target, source, size, kind, self.stream)

    def refuse_foreign(self, address: int) -> None:
        """Refuse memory that this stream cannot read.

        Raises:
            DataError: it is not on this device, or it belongs to another context than the primary one.
        """
        kind, device, owner = c_uint(), c_int(), c_void_p()

        def ask(attribute: int, value: Any) -> bool:
            return not self._driver.cuPointerGetAttribute(ctypes.byref(value), attribute, address)

        if not ask(_MEMORY_TYPE, kind) or kind.value != _ON_DEVICE:
            raise DataError("The frames are not in the GPU's memory. Pass frames in host memory as NumPy arrays.")
        if ask(_ORDINAL, device) and device.value != self._device:
            raise DataError(f"The frames are on GPU {device.value}; this engine runs on GPU {self._device}.")
        # Memory of a pool belongs to no context; every context of the device may read it.
        if ask(_CONTEXT, owner) and owner.value and owner.value != self._current_context():
            raise DataError(
                "The frames belong to another CUDA context than the engine, which uses the GPU's primary one.\n"
                "With pycuda, replace  import pycuda.autoinit  by  import pycuda.autoprimaryctx"
            )

    def follow(self, stream: int) -> None:
        """Let this stream wait for what another stream has been given so far; 1 is the default stream."""
        self._call("cudaEventRecord", self._arrived, stream)
        self._call("cudaStreamWaitEvent", self.stream, self._arrived, 0)

    def synchronize(self) -> None:
        """Wait until the stream is done."""
        if self._done is None:
            self._call("cudaStreamSynchronize", self.stream)
        else:
            self._call("cudaEventRecord", self._done, self.stream)
            self._call("cudaEventSynchronize", self._done)

    @contextmanager
    def capture(self) -> Iterator[Recording]:
        """Record the stream's work in the block, without running it, as a graph for `launch`.

        Raises:
            DeviceError: the block cannot be recorded. The stream stays usable.
        """
        recording = Recording()
        graph, executable = c_void_p(), c_void_p()
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
            self._call("cudaGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
        finally:
            self._forget(graph)
        self._graphs.append(executable)
        recording.graph = executable

    def _forget(self, graph: c_void_p) -> None:
        """Destroy a graph, if it exists, and clear CUDA's last error."""
        if graph.value:
            self._library.cudaGraphDestroy(graph)
        self._library.cudaGetLastError()

    def launch(self, graph: c_void_p) -> None:
        """Run a recorded graph in the stream."""
        self._call("cudaGraphLaunch", graph, self.stream)

    def close(self) -> None:
        """Free everything. Errors are ignored: the process ends or has lost the device."""
        library, before = self._library, self._current_context()
        library.cudaSetDevice(self._device)  # the closing thread may never have used it
        for graph in self._graphs:
            library.cudaGraphExecDestroy(graph)
        for pointer in self._device_memory:
            library.cudaFree(pointer)
        for pointer in self._host_memory:
            library.cudaFreeHost(pointer)
        for event in self._events:
            library.cudaEventDestroy(event)
        library.cudaStreamDestroy(self.stream)
        if before not in (None, self._current_context()):
            self._driver.cuCtxSetCurrent(before)
        self._graphs, self._device_memory, self._host_memory, self._events = [], [], [], []
