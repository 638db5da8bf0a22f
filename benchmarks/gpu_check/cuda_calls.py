"""Step cuda: the CUDA calls of `edgead.runtime.engines.cuda`, each in the situations in which edgead makes it.

A small kernel makes errors visible that copies alone would hide. With --cpu there is no kernel, and the CUDA libraries
are the tests' stand-in, tests/cuda_on_host.c.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from common import Options, attempt, milliseconds, report

from edgead.errors import DeviceError
from edgead.runtime.engines.cuda import Cuda

KERNEL = """
#include <cuda_runtime.h>
__global__ void add(float *values, float what, int count) {
    int place = blockIdx.x * blockDim.x + threadIdx.x;
    if (place < count) values[place] += what;
}
extern "C" int launch_add(float *values, float what, int count, cudaStream_t stream) {
    add<<<(count + 255) / 256, 256, 0, stream>>>(values, what, count);
    return (int)cudaGetLastError();
}
"""
KERNELS = 20
"""Kernels in a recorded graph."""
RECORDINGS = 100
ROUNDS, POOLED_ROUNDS = 30, 5
"""Of `CudaChecks.leaks`; the first ones fill the driver's own pools."""
LOST = 1 << 20
"""Bytes of GPU memory from which on it counts as lost."""


def cuda(options: Options) -> None:
    """Run every check of `CudaChecks`."""
    launch: Any = None
    if not options.cpu:
        try:
            launch = _compile_kernel()
        except (OSError, subprocess.CalledProcessError) as error:  # copies and graphs can be checked all the same
            report(False, what="compiling a kernel", error=str(error))
    checks = CudaChecks(launch, options.cpu)
    attempt("copies", checks.copies)
    attempt("CUDA graph", checks.graph)
    attempt("recorded in one thread, launched in another", checks.other_thread)
    attempt("recording beside a busy thread", checks.busy_neighbour)
    attempt("a recording that fails", checks.failed_recording)
    attempt("mapped memory", checks.mapped)
    attempt("leaks", checks.leaks)
    if not options.cpu:
        attempt("beside torch", checks.beside_torch)


@contextmanager
def _device() -> Iterator[Cuda]:
    cuda = Cuda()
    try:
        yield cuda
    finally:
        cuda.close()


class CudaChecks:
    """One method for each check; each returns what it found.

    Args:
        launch: the kernel, or None where there is none.
        on_host: the CUDA libraries are the stand-in.
    """

    def __init__(self, launch: Any, on_host: bool) -> None:
        self._launch, self._on_host = launch, on_host
        self._added = 0.0 if launch is None else 1.0  # what a kernel adds of what it is asked to add

    def _add(self, cuda: Cuda, address: int, what: float, count: int) -> None:
        if self._launch is not None and (code := self._launch(address, what, count, cuda.stream)):
            raise DeviceError(f"launching the kernel failed with error {code}")

    def copies(self) -> dict[str, Any]:
        """Upload, kernel, download."""
        with _device() as cuda:
            host, _ = cuda.allocate_host((3, 1 << 20), np.float32)
            back, _ = cuda.allocate_host((3, 1 << 20), np.float32)
            device = cuda.allocate(host.nbytes)
            host[:] = np.random.default_rng(0).random(host.shape)
            cuda.upload(device, host)
            self._add(cuda, device, 1.5, host.size)
            cuda.download(back, device)
            cuda.synchronize()
            good = bool(np.array_equal(back, host + np.float32(1.5 * self._added)))
            return {"ok": good, "integrated": cuda.integrated}

    def graph(self) -> dict[str, Any]:
        """Upload, kernels and download as one graph: recording runs nothing, every launch takes the new input."""
        with _device() as cuda:
            host, _ = cuda.allocate_host((1 << 16,), np.float32)
            back, _ = cuda.allocate_host((1 << 16,), np.float32)
            device = cuda.allocate(host.nbytes)
            back[:] = 0  # pinned memory is not cleared

            def enqueue() -> None:
                cuda.upload(device, host)
                for _ in range(KERNELS):
                    self._add(cuda, device, 1.0, host.size)
                cuda.download(back, device)

            def replay() -> None:
                cuda.launch(recording.graph)
                cuda.synchronize()

            def plain() -> None:
                enqueue()
                cuda.synchronize()

            with cuda.capture() as recording:
                enqueue()
            untouched = not back.any()
            errors = []
            for value in range(5):
                host[:] = value
                replay()
                errors.append(float(np.abs(back - (value + KERNELS * self._added)).max()))
            times = {"graph_ms": milliseconds(replay, 200), "plain_ms": milliseconds(plain, 200)}
            return {"ok": untouched and not any(errors), "recording_ran_nothing": untouched, "errors": errors, **times}

    def other_thread(self) -> dict[str, Any]:
        """A graph is recorded in one thread and launched in another, as when `edgead run` reloads a bundle."""
        seen: list[Any] = []
        with _device() as cuda:
            host, _ = cuda.allocate_host((1024,), np.float32)
            back, _ = cuda.allocate_host((1024,), np.float32)
            device = cuda.allocate(host.nbytes)
            with cuda.capture() as recording:
                cuda.upload(device, host)
                self._add(cuda, device, 2.0, host.size)
                cuda.download(back, device)
            host[:] = 5

            def work() -> None:
                try:
                    cuda.use_device()
                    cuda.launch(recording.graph)
                    cuda.synchronize()
                    seen.append(float(back[0]))
                except Exception as error:
                    seen.append(str(error))

            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        return {"ok": seen == [5 + 2 * self._added], "seen": seen}

    def busy_neighbour(self) -> dict[str, Any]:
        """One thread records while another one allocates and copies; thread-local recording must not be disturbed."""
        stop = threading.Event()
        errors: list[str] = []

        def work() -> None:
            try:
                with _device() as other:
                    host, _ = other.allocate_host((1 << 16,), np.float32)
                    device = other.allocate(host.nbytes)
                    while not stop.is_set():
                        other.upload(device, host)
                        other.synchronize()
                        other.allocate(1 << 16)
            except Exception as error:
                errors.append(str(error))

        thread = threading.Thread(target=work)
        if not self._on_host:  # the stand-in knows one recording in the whole process
            thread.start()
        recordings = 0
        try:
            with _device() as cuda:
                host, _ = cuda.allocate_host((1024,), np.float32)
                device = cuda.allocate(host.nbytes)
                while recordings < RECORDINGS:
                    with cuda.capture() as recording:
                        cuda.upload(device, host)
                        self._add(cuda, device, 1.0, host.size)
                    cuda.launch(recording.graph)
                    cuda.synchronize()
                    recordings += 1
        except Exception as error:
            errors.append(str(error))
        stop.set()
        if thread.is_alive():
            thread.join()
        return {"ok": recordings == RECORDINGS and not errors, "recordings": recordings, "errors": errors[:3]}

    def failed_recording(self) -> dict[str, Any]:
        """A call that cannot be recorded is an error, and the stream works afterwards."""
        message = ""
        with _device() as cuda:
            host, _ = cuda.allocate_host((1024,), np.float32)
            device = cuda.allocate(host.nbytes)
            try:
                with cuda.capture():
                    cuda.upload(device, host)
                    cuda.synchronize()  # not permitted while the stream records
            except DeviceError as error:
                message = str(error)
            host[:] = 3
            cuda.upload(device, host)
            cuda.synchronize()
            host[:] = 0
            cuda.download(host, device)
            cuda.synchronize()
            usable = bool((host == 3).all())
        return {"ok": bool(message) and usable, "message": message, "usable": usable}

    def mapped(self) -> dict[str, Any]:
        """The host reads what the device has written into mapped memory."""
        with _device() as cuda:
            host, address = cuda.allocate_host((4096,), np.float32)
            host[:] = 1
            self._add(cuda, address, 2.0, host.size)
            cuda.synchronize()
            good = bool((host == 1 + 2 * self._added).all())
            return {"ok": good, "same_address": address == host.ctypes.data}

    def leaks(self) -> dict[str, Any]:
        """Devices are opened, used and closed; all their memory is free again."""
        free = []
        for number in range(ROUNDS):
            with _device() as cuda:
                host, _ = cuda.allocate_host((1 << 20,), np.float32)
                device = cuda.allocate(64 << 20)
                with cuda.capture() as recording:
                    cuda.upload(device, host)
                cuda.launch(recording.graph)
                cuda.synchronize()
            if not self._on_host and number in (POOLED_ROUNDS - 1, ROUNDS - 1):
                left, total = ctypes.c_size_t(), ctypes.c_size_t()
                cuda._library.cudaMemGetInfo(ctypes.byref(left), ctypes.byref(total))
                free.append(left.value)
        lost = free[0] - free[1] if free else 0
        return {"ok": lost < LOST, "bytes_lost": lost}

    def beside_torch(self) -> dict[str, Any]:
        """A stream of edgead uses memory of torch: both work in the primary context of the device."""
        import torch

        tensor = torch.arange(4096, dtype=torch.float32, device="cuda")
        torch.cuda.synchronize()
        with _device() as cuda:
            host, _ = cuda.allocate_host((4096,), np.float32)
            self._add(cuda, tensor.data_ptr(), 1.0, tensor.numel())
            cuda.download(host, tensor.data_ptr())
            cuda.synchronize()
            good = bool(np.array_equal(host, np.arange(4096, dtype=np.float32) + np.float32(self._added)))
        return {"ok": good and bool(tensor.sum().item() > 0)}


def _compile_kernel() -> Any:
    folder = Path(tempfile.mkdtemp())
    (folder / "add.cu").write_text(KERNEL, encoding="utf-8")
    command = ["nvcc", "-arch=native", "-shared", "-Xcompiler", "-fPIC", "--cudart", "shared", "-o", "add.so", "add.cu"]
    subprocess.run(command, cwd=folder, check=True, stdout=sys.stderr)
    launch = ctypes.CDLL(str(folder / "add.so")).launch_add
    launch.argtypes = [ctypes.c_void_p, ctypes.c_float, ctypes.c_int, ctypes.c_void_p]
    return launch
