"""ONNX Runtime on the CPU: the engine that runs everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgead.errors import BundleError, DeviceError, require


class OnnxRuntimeEngine:
    """An `edgead.runtime.engines.Engine`."""

    name = "onnxruntime-cpu"

    def __init__(self, model: Path) -> None:
        ort = require("onnxruntime", "cpu")
        options = ort.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no common base but this
            raise BundleError(f"ONNX Runtime cannot read {model}: {_first_line(error)}") from error

    def infer(self, frames: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        try:
            scores, maps = self._session.run(("scores", "maps"), {"frames": frames})
        except Exception as error:  # as above
            raise DeviceError(f"ONNX Runtime failed: {_first_line(error)}") from error
        return scores, maps

    def close(self) -> None:
        self._session = None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
