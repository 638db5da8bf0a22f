"""What runs a bundle's graph. An engine is a file here and a line in `ENGINES`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import Bundle
from edgead.errors import ConfigError

ENGINES = {
    "onnxruntime": "edgead.runtime.engines.onnxruntime_engine:open_cpu",
    "onnxruntime-cuda": "edgead.runtime.engines.onnxruntime_engine:open_cuda",
    "openvino": "edgead.runtime.engines.openvino_engine:open_exact",
    "openvino-bf16": "edgead.runtime.engines.openvino_engine:open_bf16",
    "tensorrt": "edgead.runtime.engines.tensorrt_engine:open_tensorrt",
}
CPU_MODEL = "model.cpu.onnx"
"""What an INT8 bundle may hold beside its graph: the form that ONNX Runtime's CPU engine likes."""


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


def open_engine(name: str, bundle: Bundle) -> Engine:
    """Open a bundle's graph on the engine `name`; for ``"auto"`` on the fastest one that gives the golden outputs.

    Raises:
        ConfigError: no such engine.
        MissingDependencyError: its package is not installed.
        BundleError: it cannot read the graph.
        DeviceError: this machine cannot run it.
    """
    if name == "auto":
        from edgead.runtime.engines.auto import choose_engine  # it opens engines itself

        name = choose_engine(bundle)
    if name not in ENGINES:
        raise ConfigError(f"There is no engine '{name}'. There is: auto, {', '.join(ENGINES)}.")
    module, _, attribute = ENGINES[name].partition(":")
    engine: Engine = getattr(importlib.import_module(module), attribute)(bundle)
    return engine


def cpu_model(bundle: Bundle) -> Path:
    """Return the graph for ONNX Runtime's CPU engine."""
    return bundle.path / CPU_MODEL if CPU_MODEL in bundle.manifest.files else bundle.model


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or its kind where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
