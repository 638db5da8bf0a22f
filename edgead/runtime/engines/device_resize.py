"""Fits frames that are on a GPU to the model's canvas there, as `edgead.images.fit_frame` does on the host.

The resize is a small graph (`resize_graph`) that the engine runs before the model's. It is made for one size of frames,
compared with `fit_frame` on a frame of noise, and kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgead.errors import DeviceError, EdgeadError
from edgead.geometry import Geometry, Size
from edgead.images import fit_frame
from edgead.runtime.engines.cuda import Cuda
from edgead.runtime.engines.device_frames import DeviceFrames
from edgead.runtime.engines.resize_graph import resize_graph

MOST_LEVELS = 2
"""Grey levels by which a resize on the device may differ from the one on the host; 1 where it rounds otherwise."""


@dataclass(frozen=True)
class ResizeBuffers:
    """Where the graph of a resize reads one frame, and where it writes it fitted.

    Attributes:
        graph: the ONNX file's bytes.
        frame, fitted: shapes ``(H, W, C)``.
        source, target: their addresses on the device.
    """

    graph: bytes
    frame: tuple[int, int, int]
    fitted: tuple[int, int, int]
    source: int
    target: int


class OpenResize(Protocol):
    """Opens the graph of a resize on an engine."""

    def __call__(self, buffers: ResizeBuffers) -> Callable[[], None]:
        """Return a function that queues one run in the engine's stream.

        Raises:
            BundleError, ConfigError, DeviceError: the engine cannot run it here.
        """
        ...


class DeviceResize:
    """Resizes of an engine, one for each size of frames that it was given. Not thread-safe.

    A size that failed is not tried again: a try takes memory that only `Cuda.close` frees, and with TensorRT minutes.

    Args:
        cuda: the engine's device, which frees the memory.
        start: opens a graph on the engine.
    """

    def __init__(self, cuda: Cuda, start: OpenResize) -> None:
        self._cuda, self._start = cuda, start
        self._kept: dict[tuple[tuple[int, ...], Size, Geometry], _OneSize | EdgeadError] = {}

    def fit(self, frames: DeviceFrames, size: Size, geometry: Geometry) -> DeviceFrames:
        """Fit frames to a canvas; the returned ones are valid until the next call.

        Args:
            frames: ``[N, H, W, C]``.
            size: (height, width) of the canvas.
            geometry: crop and fit.

        Raises:
            DataError: frames that this device cannot read.
            BundleError, ConfigError, DeviceError: the engine cannot resize, or does it wrongly.
        """
        key = (frames.shape[1:], size, geometry)
        if key not in self._kept:
            try:
                self._kept[key] = _OneSize(self._cuda, self._start, frames.shape[1:], size, geometry)
            except EdgeadError as error:
                self._kept[key] = error
        found = self._kept[key]
        if isinstance(found, EdgeadError):
            raise found.with_traceback(None)  # else it grows with each call
        return found.fit(frames)


class _OneSize:
    """The resize of frames of one shape."""

    def __init__(self, cuda: Cuda, start: OpenResize, frame: tuple[int, ...], size: Size, geometry: Geometry) -> None:
        self._cuda, self._frame, self._fitted = cuda, (frame[0], frame[1], frame[2]), (*size, frame[2])
        self._frame_bytes, self._fitted_bytes = int(np.prod(frame)), int(np.prod(self._fitted))
        self._source, self._target = cuda.allocate(self._frame_bytes), cuda.allocate(self._fitted_bytes)
        self._room, self._all = 0, 0
        graph = resize_graph(self._frame[:2], size, geometry, frame[2])
        self._run = start(ResizeBuffers(graph, self._frame, self._fitted, self._source, self._target))
        self._check(geometry)

    def fit(self, frames: DeviceFrames) -> DeviceFrames:
        self._cuda.refuse_foreign(frames.address)
        self._cuda.follow(frames.stream)
        if len(frames) > self._room:
            self._room, self._all = len(frames), self._cuda.allocate(len(frames) * self._fitted_bytes)
        for index in range(len(frames)):
            self._cuda.move(self._source, frames.address + index * self._frame_bytes, self._frame_bytes)
            self._run()
            self._cuda.move(self._all + index * self._fitted_bytes, self._target, self._fitted_bytes)
        return DeviceFrames(self._all, (len(frames), *self._fitted), self._cuda.handle, self)

    def _check(self, geometry: Geometry) -> None:
        """Compare with the host. The first run is here too, in which a library finishes its initialisation."""
        cuda = self._cuda
        given, _ = cuda.allocate_host(self._frame, np.uint8)
        found, _ = cuda.allocate_host(self._fitted, np.uint8)
        given[:] = np.random.default_rng(0).integers(0, 256, self._frame, dtype=np.uint8)
        cuda.upload(self._source, given)
        self._run()
        cuda.download(found, self._target)
        cuda.synchronize()
        wanted = fit_frame(given, self._fitted[:2], geometry=geometry)
        off = int(np.abs(found.astype(np.int16) - wanted).max())
        if off > MOST_LEVELS:
            raise DeviceError(
                f"The resize on the GPU differs by {off} grey levels from the one on the host; {MOST_LEVELS} are "
                f"allowed.\nPass frames of the model's size ({self._fitted[1]}×{self._fitted[0]}), or frames in host "
                "memory."
            )
