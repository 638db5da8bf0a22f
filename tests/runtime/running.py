"""What tests of the runtime run: processes that end with their test, a camera without a clock, a full disk."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import listener
import numpy as np

from edgead.runtime.sources import Captured, FrameSource

_started: list[subprocess.Popen[str]] = []


def start_process(command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """Start a process with pipes for its output. It is killed with its test, also one that failed half-way."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    _started.append(process)
    return process


def end_processes() -> None:
    """Kill what is left of them."""
    while _started:
        process = _started.pop()
        process.kill()
        process.communicate()


class Camera(FrameSource):
    """A live source that gives noise as fast as asked, so that tests need no clock.

    Args:
        frames: how many; 0 for no end.
        pause: seconds between two.
        name: of the source.
    """

    live = True

    def __init__(self, frames: int = 0, pause: float = 0.001, name: str = "camera") -> None:
        super().__init__(name)
        self.frames, self.pause = frames, pause
        self.given = 0

    def read(self) -> Iterator[Captured]:
        noise = np.random.default_rng(0).integers(0, 256, (8, 48, 64, 3), dtype=np.uint8)
        while not self.stopped.wait(self.pause) and (not self.frames or self.given < self.frames):
            yield Captured(noise[self.given % 8], "", self.name, self.given, time.monotonic())
            self.given += 1


class Listener(listener.Listener):
    """Keeps the messages, and what the clock shows."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[str] = []

    @contextmanager
    def clock(self, label: str) -> Iterator[Callable[[str], None]]:
        yield self.shown.append
