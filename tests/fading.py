"""Parts under a steady or a fading light, and a bundle that knows how its held-out parts looked."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from level_bundle import SIDE, make_level_bundle

from edgead.bundle import Bundle, read_bundle, write_manifest
from edgead.bundle.manifest import HeldOutRecord, StoredThreshold
from edgead.runtime.look import look_at
from edgead.runtime.sources.source import Captured, FrameSource

HELD_OUT = 40


def part(rng: np.random.Generator, light: float = 1.0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A grey part with noise; its score is its brightest pixel."""
    grey = 100 + rng.normal(0, 3) + rng.normal(0, 4, (SIDE, SIDE, 1))
    return np.repeat(np.clip(grey * light, 0, 255), 3, axis=2).astype(np.uint8)


def make_watched_bundle(folder: Path) -> Bundle:
    """Write the level bundle with a record of held-out parts."""
    made = make_level_bundle(folder)
    rng = np.random.default_rng(1)
    frames = [part(rng) for _ in range(HELD_OUT)]
    scores = [float(frame.max()) for frame in frames]
    order = np.argsort(scores)
    looks = [look_at(frames[number], (SIDE, SIDE)) for number in order]
    kept = tuple(sorted(scores))
    manifest = dataclasses.replace(
        made.manifest,
        threshold=StoredThreshold(140.0, HELD_OUT, 0.1, 0.1, scores=kept, map_maxima=kept),
        held_out=HeldOutRecord(*(tuple(values) for values in zip(*looks)), dark=False),
    )
    (folder / "manifest.json").unlink()
    write_manifest(folder, manifest)
    return read_bundle(folder)


class Fading(FrameSource):
    """A camera whose light is as at the training, and then fades by 15 % in 400 parts.

    Args:
        fades: it does.
        count: of parts.
        after: so many parts it fades.
        live: it is a camera that does not wait.
    """

    def __init__(self, fades: bool = True, count: int = 800, after: int = 400, live: bool = False) -> None:
        super().__init__("front")
        self.live, self._count, self._after = live, count, after if fades else count

    def read(self) -> Iterator[Captured]:
        rng = np.random.default_rng(2)
        for number in range(self._count):
            if self.live and self.stopped.wait(0.01):
                return
            light = 1 - 0.15 * min(max(0, number - self._after) / 400, 1)
            yield Captured(part(rng, light), "", self.name, number, time.monotonic())
