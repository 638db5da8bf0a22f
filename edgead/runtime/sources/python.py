"""Frames from Python: from an iterable or a function, or drawn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.errors import ConfigError
from edgead.images import COLOUR, Frame, PixelFormat
from edgead.runtime.sources.source import Captured, FrameSource, Source
from edgead.runtime.sources.uri import split_options


class IterableSource(FrameSource):
    """All frames of an iterable.

    Arrays that are made on the way, as by a generator, are copied: it may fill one array again and again, and a frame
    is looked at until its result is with the sinks. Those of a list, a tuple or an array are there already.

    Args:
        frames: arrays that `edgead.images.to_frame` takes, or `Captured`.
        name: its name in results.
        live: see `Source`.
    """

    def __init__(self, frames: Iterable[NDArray[Any] | Captured], name: str = "iterable", live: bool = False) -> None:
        super().__init__(name)
        self.frames, self.live = frames, live

    def read(self) -> Iterator[Captured]:
        are_there = isinstance(self.frames, list | tuple | np.ndarray)
        for frame_id, frame in enumerate(self.frames):
            if self.stopped.is_set():
                return
            if isinstance(frame, Captured):
                yield frame
                continue
            now = time.monotonic()
            image = frame if are_there or not isinstance(frame, np.ndarray) else frame.copy()
            yield Captured(image, "", self.name, frame_id, now)


class CallableSource(IterableSource):
    """Frames that a function returns, one per call, until it returns None. It is called without pauses.

    They are copied, as those of an iterable are.
    """

    def __init__(self, grab: Callable[[], NDArray[Any] | None], name: str = "callable", live: bool = True) -> None:
        super().__init__(_call(grab), name, live)


def _call(grab: Callable[[], NDArray[Any] | None]) -> Iterator[NDArray[Any]]:
    while (frame := grab()) is not None:  # iter(grab, None) would compare arrays with ==
        yield frame


class SyntheticSource(FrameSource):
    """Drawn frames for trials: a bright disc that moves over a grey, slightly noisy ground.

    Args:
        size: (height, width) in pixels.
        fps: frames per second; 0 for as fast as the reader takes them.
        frames: number of frames; 0 for no limit.
        seed: of the noise. The same seed draws the same frames.
    """

    colour_only = True

    def __init__(self, size: tuple[int, int] = (480, 640), fps: float = 0, frames: int = 0, seed: int = 0) -> None:
        super().__init__("synthetic")
        self.size, self.fps, self.frames, self.live = size, fps, frames, fps > 0
        height, width = size
        rng = np.random.default_rng(seed)
        self._grounds = rng.integers(96, 128, (8, height, width, 3), dtype=np.uint8)
        self._y, self._x = np.ogrid[:height, :width]

    def draw(self, frame_id: int) -> Frame:
        """Return frame number `frame_id`."""
        height, width = self.size
        frame: Frame = self._grounds[frame_id % len(self._grounds)].copy()
        centre, radius = width / 2 + width / 4 * np.sin(frame_id / 20), min(height, width) / 5
        frame[(self._y - height / 2) ** 2 + (self._x - centre) ** 2 < radius**2] = (200, 210, 220)
        return frame

    def read(self) -> Iterator[Captured]:
        start, frame_id = time.monotonic(), 0
        while not self.frames or frame_id < self.frames:
            frame = self.draw(frame_id)
            pause = start + frame_id / self.fps - time.monotonic() if self.fps else 0.0
            if self.stopped.wait(pause) if pause > 0 else self.stopped.is_set():
                return
            yield Captured(frame, "", self.name, frame_id, time.monotonic())
            frame_id += 1


@dataclass(frozen=True)
class SyntheticOptions:
    """Options of ``synthetic:``. 0 means no limit on rate or number of frames."""

    width: int = 640
    height: int = 480
    fps: float = 0.0
    frames: int = 0
    seed: int = 0


def open_synthetic(uri: str, pixels: PixelFormat = COLOUR) -> Source:
    """``synthetic:?width=640&height=480&fps=25&frames=1000&seed=0``."""
    name, options = split_options(uri, SyntheticOptions)
    if name:
        raise ConfigError(f"{uri}: synthetic: takes no name. Its options come behind a ?, as in synthetic:?fps=25.")
    if min(options.height, options.width) < 1:
        raise ConfigError(f"{uri}: width and height must be at least 1.")
    return SyntheticSource((options.height, options.width), options.fps, options.frames, options.seed)
