"""What runs a bundle's graph. An engine is a file here and a line in `ENGINES`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgead.errors import ConfigError

ENGINES = {
    "onnxruntime": "edgead.runtime.engines.onnxruntime_engine:OnnxRuntimeEngine",
}


class Engine(Protocol):
    """Runs one graph on one device. Not to be called by two threads at once."""

    name: str
    """The engine's name with its device, for instance ``"onnxruntime-cpu"``."""

    def infer(self, frames: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run the graph.

        Args:
            frames: ``[N, H, W, 3] uint8 BGR``, C-contiguous, of the graph's size.

        Returns:
            scores ``[N]`` and maps ``[N, H, W]``, both float32, new arrays owned by the caller.

        Raises:
            DeviceError: the device failed.
        """

    def close(self) -> None:
        """Release the device; the engine cannot be used afterwards."""


def open_engine(name: str, model: Path) -> Engine:
    """Open a graph on the engine `name`, or on the first of `ENGINES` for ``"auto"``.

    Raises:
        ConfigError: no such engine.
        MissingDependencyError: its package is not installed.
        BundleError: it cannot read the graph.
    """
    chosen = next(iter(ENGINES)) if name == "auto" else name
    if chosen not in ENGINES:
        raise ConfigError(f"There is no engine '{name}'. There is: auto, {', '.join(ENGINES)}.")
    module, _, attribute = ENGINES[chosen].partition(":")
    engine: Engine = getattr(importlib.import_module(module), attribute)(model)
    return engine
