"""ONNX Runtime: on the CPU the engine that runs everywhere; on NVIDIA GPUs through its CUDA provider."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import Bundle
from edgead.errors import BundleError, DeviceError, require
from edgead.runtime.engines import cpu_model, first_line


def open_cpu(bundle: Bundle) -> OnnxRuntimeEngine:
    """Open a bundle on the CPU."""
    return OnnxRuntimeEngine(cpu_model(bundle))


def open_cuda(bundle: Bundle) -> OnnxRuntimeEngine:
    """Open a bundle on an NVIDIA GPU.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        DeviceError: it is the CPU package, or there is no GPU.
    """
    ort = require("onnxruntime", "gpu")
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise DeviceError(
            "The installed onnxruntime is the package for CPUs.\n"
            "For an NVIDIA GPU:  pip uninstall onnxruntime; pip install 'edgead[gpu]'"
        )
    from edgead.runtime.engines.cuda import find_gpu

    find_gpu()  # ONNX Runtime without a driver warns and goes on with the CPU
    return OnnxRuntimeEngine(bundle.model, "CUDAExecutionProvider", "onnxruntime-cuda")


class OnnxRuntimeEngine:
    """An `edgead.runtime.engines.Engine`.

    Args:
        model: the graph.
        provider: ONNX Runtime's name of the device.
        name: of the engine.
    """

    def __init__(self, model: Path, provider: str = "CPUExecutionProvider", name: str = "onnxruntime-cpu") -> None:
        self.name = name
        ort = require("onnxruntime", "cpu")
        options = ort.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session: Any = ort.InferenceSession(str(model), options, providers=[provider])
        except Exception as error:  # ONNX Runtime's errors have no common base but this
            raise BundleError(f"ONNX Runtime cannot read {model}: {first_line(error)}") from error
        if provider not in self._session.get_providers():
            raise DeviceError(f"ONNX Runtime could not use {provider} here. See:  edgead doctor")

    def infer(self, frames: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        try:
            scores, maps = self._session.run(("scores", "maps"), {"frames": frames})
        except Exception as error:  # as above
            raise DeviceError(f"ONNX Runtime failed: {first_line(error)}") from error
        return scores, maps

    def close(self) -> None:
        self._session = None
