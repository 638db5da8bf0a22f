"""A stream that runs for months must not grow."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgead.bundle import read_bundle
from edgead.runtime.inspector import Inspector
from edgead.runtime.sources.python import IterableSource
from edgead.runtime.stream import Stream

STATUS = Path("/proc/self/statm")


class InstantEngine:
    """Gives the same outputs at once, so that a test sees many frames."""

    name = "instant"

    def infer(self, frames: Any) -> Any:
        return np.zeros(len(frames), np.float32), np.zeros(frames.shape[:3], np.float32)

    def close(self) -> None:
        """Nothing is kept open."""


@pytest.mark.skipif(not STATUS.exists(), reason="no /proc")
def test_thousands_of_frames_take_no_more_memory_than_hundreds(line_bundle: Path) -> None:
    inspector = Inspector(read_bundle(line_bundle), InstantEngine())
    frame = np.zeros((480, 640, 3), np.uint8)
    pages = []
    with Stream(inspector, [IterableSource(frame.copy() for _ in range(5000))]) as stream:
        for result in stream:
            if result.frame_id in (500, 4999):
                pages.append(int(STATUS.read_text().split()[1]))
    # Each frame is 0.9 MB and each fitted one 12 kB: a leak of either would be hundreds or tens of MB.
    assert (pages[1] - pages[0]) * 4096 < 10e6


def test_fitted_frames_are_written_into_few_arrays(line_bundle: Path) -> None:
    seen: set[int] = set()

    class Watches(InstantEngine):
        def infer(self, frames: Any) -> Any:
            seen.add(frames.__array_interface__["data"][0])
            return super().infer(frames)

    inspector = Inspector(dataclasses.replace(read_bundle(line_bundle)), Watches())
    seen.clear()
    frames = np.random.default_rng(0).integers(0, 256, (8, 96, 96, 3), dtype=np.uint8)
    with Stream(inspector, [IterableSource(frames[number % 8] for number in range(200))]) as stream:
        assert len(list(stream)) == 200
    assert len(seen) <= 5
