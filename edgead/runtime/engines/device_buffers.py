"""The memory of one fixed number of frames, for engines on a GPU: pinned on the host, and on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.runtime.engines.cuda import Cuda
from edgead.runtime.engines.device_frames import DeviceFrames, Frames

OUTPUTS = ("scores", "maps")
TYPES = {"frames": np.uint8, "scores": np.float32, "maps": np.float32}


class DeviceBuffers:
    """Allocated once, so that every address is fixed.

    Args:
        cuda: the device; frees the memory.
        shape: (frames, height, width, channels).
        mapped: the GPU uses the host's memory directly, without copies.

    Attributes:
        shapes: of the tensors, by name.
        device: their addresses on the device, by name.
    """

    def __init__(self, cuda: Cuda, shape: tuple[int, int, int, int], *, mapped: bool = False) -> None:
        self._cuda, self._mapped = cuda, mapped
        self.shapes: dict[str, tuple[int, ...]] = {"frames": shape, "scores": shape[:1], "maps": shape[:3]}
        self._host: dict[str, NDArray[Any]] = {}
        self.device: dict[str, int] = {}
        for name, sides in self.shapes.items():
            self._host[name], address = cuda.allocate_host(sides, TYPES[name])
            self.device[name] = address if mapped else cuda.allocate(self._host[name].nbytes)
        self.put(np.zeros(shape, np.uint8))

    def put(self, frames: Frames) -> None:
        """Bring at most as many frames as the buffers hold to their place on the device.

        Raises:
            DataError: frames on the GPU that this device cannot read.
        """
        if isinstance(frames, DeviceFrames):
            self._cuda.refuse_foreign(frames.address)
            self._cuda.follow(frames.stream)
            self._cuda.move(self.device["frames"], frames.address, frames.nbytes)
            return
        np.copyto(self._host["frames"][: len(frames)], frames)
        if not self._mapped:
            self._cuda.upload(self.device["frames"], self._host["frames"])

    def fetch(self) -> None:
        """Queue the copies of the outputs to the host."""
        if not self._mapped:
            for name in OUTPUTS:
                self._cuda.download(self._host[name], self.device[name])

    def take(self, scores: NDArray[np.float32], maps: NDArray[np.float32]) -> None:
        """Wait for the device; write scores ``[N]`` and maps ``[N, H, W]`` of the first N frames."""
        self._cuda.synchronize()
        np.copyto(scores, self._host["scores"][: len(scores)])
        np.copyto(maps, self._host["maps"][: len(maps)])
