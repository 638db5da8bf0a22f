"""Runs a graph on the tiles of canvases. The rest of the runtime sees an engine that takes whole canvases."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import Bundle, Outputs
from edgead.bundle.manifest import Manifest
from edgead.geometry.tiling import Tiling, at_once
from edgead.runtime.engines import Engine
from edgead.runtime.engines.checked import CheckedEngine, check


class TiledEngine:
    """An engine for canvases whose maps are stitched and whose score is that of the highest tile.

    The tiles of all canvases of a call are one batch of the graph, or several of equal size where they are more than
    `edgead.geometry.tiling.AT_ONCE`. Beside the graph's own memory it takes one batch of tiles, and the maps that it
    returns.

    Args:
        engine: of the graph.
        tiling: of its canvases.
    """

    def __init__(self, engine: Engine, tiling: Tiling) -> None:
        self.engine, self.tiling, self.name = engine, tiling, engine.name
        self.exact: bool = getattr(engine, "exact", True)

    def infer(self, frames: NDArray[np.uint8]) -> Outputs:
        """Return scores ``[N]`` and maps ``[N, H, W]`` of canvases ``[N, H, W, C] uint8``."""
        tiling, total = self.tiling, len(frames) * self.tiling.count
        most = at_once(total)
        batch = np.empty((most, *tiling.size, frames.shape[3]), np.uint8)
        scores, maps = np.empty(total, np.float32), np.zeros(frames.shape[:3], np.float32)
        for first in range(0, total, most):
            numbers = range(first, min(total, first + most))
            for place, number in enumerate(numbers):
                batch[place] = tiling.tile(frames[number // tiling.count], number % tiling.count)
            found, found_maps = self.engine.infer(batch[: len(numbers)])
            scores[first : numbers.stop] = found
            for number, found_map in zip(numbers, found_maps):
                tiling.add(maps[number // tiling.count], number % tiling.count, found_map)
        return tiling.score(scores), maps

    def close(self) -> None:
        """Release the graph's engine."""
        self.engine.close()


def with_tiles(engine: Engine, tiling: Tiling) -> Engine:
    """Return an engine for canvases; the engine itself where a canvas is one tile."""
    return engine if tiling.count == 1 else TiledEngine(engine, tiling)


def check_canvases(engine: Engine, bundle: Bundle) -> CheckedEngine:
    """Return an engine of a bundle's graph as a `CheckedEngine` for the bundle's canvases."""
    checked, manifest = check(engine, bundle), bundle.manifest
    if manifest.geometry.count == 1:
        return checked
    tiled = TiledEngine(checked, Tiling(manifest.geometry, manifest.size))
    return CheckedEngine(tiled, (*manifest.canvas, manifest.pixels.channels))


def batch_for(manifest: Manifest, frames: int) -> int:
    """Return the batch that an engine of the graph is opened for: tiles of so many frames that go into one call."""
    return frames if manifest.geometry.count == 1 else at_once(frames * manifest.geometry.count)
