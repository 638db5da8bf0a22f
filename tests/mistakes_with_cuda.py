"""Makes each mistake with the CUDA on the host and prints the error code that it answers, as JSON.

The codes are those of NVIDIA's header: 1 invalid value, 2 memory, 400 invalid handle, 401 illegal state, 900 not
permitted while recording, 901 the recording is invalid, 905 depends on unrecorded work, 907 waits for a recorded event,
908 ended in another thread.
"""

from __future__ import annotations

import ctypes
import json
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from edgead.runtime.engines.cuda import Cuda

GLOBAL, LOCAL, RELAXED = 0, 1, 2
SIZE = 64


class Device:
    """A stream, memory of each kind, and the calls with the types that the product declares."""

    def __init__(self) -> None:
        self.cuda = Cuda()
        self.call = self.cuda._library
        self.stream = self.cuda.handle
        self.pinned, _ = self.cuda.allocate_host((SIZE,), np.uint8)
        self.pageable = np.zeros(SIZE, np.uint8)
        self.memory = self.cuda.allocate(SIZE)

    def copy(self, host: Any, kind: int = 1, stream: int | None = None, size: int = SIZE) -> int:
        return int(self.call.cudaMemcpyAsync(self.memory, host.ctypes.data, size, kind, stream or self.stream))

    def begin(self, mode: int) -> None:
        assert not self.call.cudaStreamBeginCapture(self.stream, mode)

    def end(self) -> int:
        return int(self.call.cudaStreamEndCapture(self.stream, ctypes.byref(ctypes.c_void_p())))

    def allocate(self) -> int:
        return int(self.call.cudaMalloc(ctypes.byref(ctypes.c_void_p()), SIZE))

    def event(self) -> ctypes.c_void_p:
        event = ctypes.c_void_p()
        assert not self.call.cudaEventCreateWithFlags(ctypes.byref(event), 2)
        return event


def elsewhere(work: Callable[[], int]) -> int:
    """Call in another thread."""
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(work()))
    thread.start()
    thread.join()
    return codes[0]


def copies() -> dict[str, Any]:
    device = Device()
    cut = device.memory & 0xFFFFFFFF
    host, size = device.pinned.ctypes.data, SIZE
    call = device.call.cudaMemcpyAsync
    return {
        "good": device.copy(device.pinned),
        "address cut to 32 bits": call(cut, host, size, 1, device.stream),
        "beyond the end": device.copy(device.pinned, size=SIZE + 1),
        "of an unknown kind": device.copy(device.pinned, kind=5),
        "host for device": device.call.cudaMemcpyAsync(device.pageable.ctypes.data, host, size, 1, device.stream),
        "stream cut to 32 bits": device.copy(device.pinned, stream=device.stream & 0xFFFFFFFF),
        "event for stream": device.copy(device.pinned, stream=int(device.event().value or 0)),
        "host memory freed as device memory": device.call.cudaFree(host),
    }


def waiting() -> dict[str, Any]:
    """A stream works when it is waited for, also through an event; the wrong stream's end says nothing."""
    device, other = Device(), Device()
    seen = {}
    device.pinned[:] = 7
    assert not device.copy(device.pinned)
    out, _ = device.cuda.allocate_host((SIZE,), np.uint8)
    out[:] = 0
    device.cuda.download(out, device.memory)
    other.cuda.synchronize()
    seen["after another stream"] = int(out[0])
    other.cuda.follow(device.stream)
    other.cuda.synchronize()
    seen["after a stream that follows"] = int(out[0])
    sleeper = Cuda(sleeps=True)
    target, _ = sleeper.allocate_host((SIZE,), np.uint8)
    target[:] = 0
    sleeper.download(target, device.memory)
    seen["not waited for"] = int(target[0])
    sleeper.synchronize()
    seen["waited for asleep"] = int(target[0])
    return seen


def recording(mode: int) -> dict[str, Any]:
    def broken_by(act: Callable[[Device], int]) -> tuple[int, int]:
        device = Device()
        device.begin(mode)
        return act(device), device.end()

    event, outer = Device().event(), Device()
    outer.call.cudaEventRecord(event, outer.stream)
    return {
        "pinned": broken_by(lambda device: device.copy(device.pinned)),
        "pageable": broken_by(lambda device: device.copy(device.pageable)),
        "allocation": broken_by(Device.allocate),
        "allocation elsewhere": broken_by(lambda device: elsewhere(device.allocate)),
        "wait for the stream": broken_by(lambda device: device.call.cudaStreamSynchronize(device.stream)),
        "unrecorded event": broken_by(lambda device: device.call.cudaStreamWaitEvent(device.stream, event, 0)),
        "begun twice": broken_by(lambda device: device.call.cudaStreamBeginCapture(device.stream, mode)),
        "ended elsewhere": broken_by(lambda device: elsewhere(device.end)),
    }


def ends() -> dict[str, Any]:
    device = Device()
    event = device.event()
    device.begin(LOCAL)
    device.call.cudaEventRecord(event, device.stream)
    waits = device.call.cudaEventSynchronize(event)
    device.end()
    return {
        "waits for a recorded event": waits,
        "ended without a beginning": device.end(),
        "default stream": device.call.cudaStreamBeginCapture(1, LOCAL),
        "launched without a graph": device.call.cudaGraphLaunch(device.stream, device.stream),
        "stream destroyed twice": [device.call.cudaStreamDestroy(device.stream) for _ in range(2)],
    }


if __name__ == "__main__":
    modes = {"global": GLOBAL, "local": LOCAL, "relaxed": RELAXED}
    found = {"copies": copies(), "waiting": waiting(), "ends": ends()}
    print(json.dumps({**found, **{name: recording(mode) for name, mode in modes.items()}}))
