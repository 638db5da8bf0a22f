"""What the line loads: an engine that fails when it is told to, and a video that plays again and again.

Both look at the control page, a file that `Control` writes and the line maps into memory.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import Bundle
from edgead.images import COLOUR, PixelFormat
from edgead.runtime.engines import EngineSpec, Opening
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine, open_cpu
from edgead.runtime.sources.live import LiveSource
from edgead.runtime.sources.pyav import PyAvCapture
from edgead.runtime.sources.video import OPTIONS

VARIABLE = "SOAK_CONTROL"
ENTRY_POINTS = """[edgead.engines]
soak = plugins:SPEC
[edgead.sources]
loop = plugins:open_loop
"""
RAISES, SLOW = 1, 2
"""Of the engine."""
SILENT, REPEATS = 1, 2
"""Of the video."""
SLOWNESS = 0.05
"""Seconds that a slow engine takes more."""


class Control:
    """The control page.

    Args:
        path: of its file.
        create: make the file; otherwise it is there.
    """

    def __init__(self, path: Path, create: bool = False) -> None:
        if create:
            path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    def set_clock(self, seconds: float) -> None:
        """Let the line's wall clock be off; `clock.c` reads it."""
        self._page[:8] = struct.pack("<q", int(seconds * 1e9))

    @property
    def engine(self) -> int:
        """0, `RAISES` or `SLOW`."""
        return self._page[8]

    @engine.setter
    def engine(self, value: int) -> None:
        self._page[8] = value

    @property
    def video(self) -> int:
        """0, `SILENT` or `REPEATS`."""
        return self._page[9]

    @video.setter
    def video(self, value: int) -> None:
        self._page[9] = value


class FailingEngine:
    """ONNX Runtime on the CPU, and its failures."""

    def __init__(self, engine: OnnxRuntimeEngine, control: Control) -> None:
        self._engine, self._control = engine, control
        self.name = engine.name

    def infer(self, frames: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if self._control.engine == RAISES:
            raise RuntimeError("the device is gone")
        if self._control.engine == SLOW:
            time.sleep(SLOWNESS)
        return self._engine.infer(frames)

    def close(self) -> None:
        self._engine.close()


def _open_engine(bundle: Bundle, opening: Opening) -> FailingEngine:
    return FailingEngine(open_cpu(bundle, opening), Control(Path(os.environ[VARIABLE])))


SPEC = EngineSpec(_open_engine, "fails when it is told to", module="onnxruntime", extra="cpu")


class LoopCapture:
    """A video file that is opened again at its end, with one picture every 1 / `fps` seconds."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._period = path, 1 / fps
        self._control = Control(Path(os.environ[VARIABLE]))
        self._picture: NDArray[Any] | None = None
        self.flaw, self.stamp = "", None
        self._next = time.monotonic()
        self._video = self._open()

    def _open(self) -> PyAvCapture:
        return PyAvCapture(str(self._path), OPTIONS)

    def isOpened(self) -> bool:  # noqa: N802
        return self._video.isOpened()

    def read(self) -> tuple[bool, NDArray[Any] | None]:
        while self._control.video == SILENT:
            time.sleep(0.02)
        self._next = max(self._next + self._period, time.monotonic() - self._period)
        time.sleep(max(0.0, self._next - time.monotonic()))
        if self._control.video == REPEATS and self._picture is not None:
            return True, self._picture
        there, picture = self._video.read()
        if not there:
            self._video.release()
            self._video = self._open()
            there, picture = self._video.read()
        self.flaw, self._picture = self._video.flaw, picture
        return there, picture

    def release(self) -> None:
        self._video.release()


def open_loop(uri: str, pixels: PixelFormat = COLOUR) -> LiveSource:
    """``loop:FPS:FILE``."""
    _, fps, path = uri.split(":", 2)
    return LiveSource("loop", lambda: LoopCapture(Path(path), float(fps)))
