"""OpenVINO: usually the fastest engine on an x86 CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import Bundle
from edgead.errors import BundleError, DeviceError, require
from edgead.runtime.engines import NoSettings, Opening, first_line, read_settings
from edgead.runtime.engines.onnx_nodes import describe_refusal


def open_exact(bundle: Bundle, opening: Opening) -> OpenVinoEngine:
    """Open a bundle with arithmetic in float32, which gives the golden outputs."""
    read_settings(NoSettings, "openvino", opening.settings)
    return OpenVinoEngine(bundle, "f32", "openvino-cpu")


def open_bf16(bundle: Bundle, opening: Opening) -> OpenVinoEngine:
    """Open a bundle with arithmetic in bfloat16 where the CPU has it: faster with AMX, and less exact."""
    read_settings(NoSettings, "openvino-bf16", opening.settings)
    return OpenVinoEngine(bundle, "bf16", "openvino-cpu-bf16")


class OpenVinoEngine:
    """An `edgead.runtime.engines.Engine`.

    Args:
        bundle: what it runs.
        arithmetic: ``"f32"`` or ``"bf16"``. OpenVINO by itself takes bf16 wherever the CPU has it, which changes scores
            by far more than the bundle's tolerance.
        name: of the engine.
    """

    def __init__(self, bundle: Bundle, arithmetic: str, name: str) -> None:
        self.name = name
        openvino: Any = require("openvino", "cpu")
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": arithmetic}
        try:
            core = openvino.Core()
            model = core.read_model(str(bundle.model))
            self._compiled = core.compile_model(model, "CPU", settings)
        except Exception as error:  # OpenVINO raises RuntimeError for everything
            version = openvino.__version__.partition("-")[0]
            raise BundleError(describe_refusal("OpenVINO", version, bundle.model, str(error))) from error
        self._request = self._compiled.create_infer_request()
        self._scores, self._maps = (self._compiled.output(name) for name in ("scores", "maps"))

    def infer(self, frames: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        try:
            outputs = self._request.infer({"frames": frames}, share_inputs=True, share_outputs=True)
        except Exception as error:  # as above
            raise DeviceError(f"OpenVINO failed: {first_line(error)}") from error
        # The request's own buffers are written again by the next frame.
        return outputs[self._scores].copy(), outputs[self._maps].copy()

    def close(self) -> None:
        self._request = self._compiled = None
