"""ONNX Runtime on an NVIDIA GPU with fixed buffers and CUDA graphs.

The CUDA provider has not been run by its authors; binding and batches are tested on the CPU provider.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import MODEL, Bundle
from edgead.errors import DeviceError, EdgeadError, require
from edgead.machine import find_gpu
from edgead.runtime.engines import EngineSpec, Opening, first_line, split_batch
from edgead.runtime.engines.onnxruntime_engine import open_session

PROVIDER = "CUDAExecutionProvider"


@dataclass(frozen=True)
class CudaSettings:
    """Settings, written ``onnxruntime-cuda:cuda_graph=off``.

    Attributes:
        cuda_graph: record each batch size once and replay it. Impossible if nodes of the graph do not run on the GPU;
            then frames run without.
        tf32: let float32 convolutions round to TF32. Faster, but further from the reference outputs than a float32
            bundle allows.
    """

    cuda_graph: bool = True
    tf32: bool = False


def require_cuda() -> None:
    """Refuse a machine on which this engine cannot run.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        DeviceError: it is the CPU package, or there is no GPU.
    """
    if PROVIDER not in require("onnxruntime", "gpu").get_available_providers():
        raise DeviceError(
            "The installed onnxruntime is the CPU package.\n"
            "For an NVIDIA GPU:  pip uninstall onnxruntime; pip install 'edgead[gpu]'"
        )
    find_gpu()  # without a driver ONNX Runtime warns and uses the CPU


def open_cuda(bundle: Bundle, opening: Opening) -> OnnxRuntimeCudaEngine:
    """Open a bundle on an NVIDIA GPU.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        DeviceError: it is the CPU package, or there is no GPU.
    """
    settings: CudaSettings = opening.settings
    require_cuda()
    batches = (1,) if opening.batch == 1 else (1, opening.batch)
    size, channels = bundle.manifest.size, bundle.manifest.pixels.channels
    options, content = {"use_tf32": str(int(settings.tf32))}, bundle.content(MODEL)
    if settings.cuda_graph:
        try:
            recorded = {**options, "enable_cuda_graph": "1"}
            return OnnxRuntimeCudaEngine(bundle.model, size, batches, "cuda", PROVIDER, recorded, channels, content)
        except EdgeadError:  # a graph that cannot be recorded fails in the session's creation or first run
            opening.console.say("ONNX Runtime cannot record this graph as a CUDA graph; continuing without one.")
    return OnnxRuntimeCudaEngine(bundle.model, size, batches, "cuda", PROVIDER, options, channels, content)


class OnnxRuntimeCudaEngine:
    """An `edgead.runtime.engines.Engine` with inputs and outputs bound to fixed addresses.

    Args:
        model: the graph.
        size: (height, width) in pixels.
        batches: batch sizes with their own buffers; a batch between two of them is filled up.
        device: ``"cuda"``, or ``"cpu"`` to test the binding.
        provider, provider_options: of ONNX Runtime.
        channels: of a frame.
        content: of `model`, if it is already read and checked.
    """

    def __init__(
        self,
        model: Path,
        size: tuple[int, int],
        batches: tuple[int, ...],
        device: str,
        provider: str,
        provider_options: dict[str, str],
        channels: int = 3,
        content: bytes | None = None,
    ) -> None:
        self.name, self.exact = f"onnxruntime-{device}", provider_options.get("use_tf32") != "1"
        session = open_session(model, provider, provider_options, content=content)
        self._buffers = {count: _DeviceBuffers(session, (count, *size, channels), device) for count in batches}

    def infer(self, frames: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        scores = np.empty(len(frames), np.float32)
        maps = np.empty(frames.shape[:3], np.float32)
        for start, stop, size in split_batch(len(frames), list(self._buffers)):
            self._buffers[size].run(frames[start:stop], scores[start:stop], maps[start:stop])
        return scores, maps

    def close(self) -> None:
        self._buffers = {}


class _DeviceBuffers:
    """Buffers, binding and CUDA graph for one fixed number of frames."""

    def __init__(self, session: Any, shape: tuple[int, int, int, int], device: str) -> None:
        ort = require("onnxruntime", "gpu")
        self._session, count = session, shape[0]
        self._frames = np.zeros(shape, np.uint8)
        self._options = ort.RunOptions()
        self._options.add_run_config_entry("gpu_graph_id", str(count))
        self._binding = session.io_binding()
        tensors: dict[str, tuple[tuple[int, ...], Any]] = {
            "frames": (self._frames.shape, np.uint8),
            "scores": ((count,), np.float32),
            "maps": (shape[:3], np.float32),
        }
        self._values = {
            name: ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, device, 0)
            for name, (shape, dtype) in tensors.items()
        }
        self._values["frames"].update_inplace(self._frames)
        self._binding.bind_ortvalue_input("frames", self._values["frames"])
        for name in ("scores", "maps"):
            self._binding.bind_ortvalue_output(name, self._values[name])
        self._run()  # records the CUDA graph, so that a failure shows before the first frame

    def _run(self) -> None:
        try:
            self._session.run_with_iobinding(self._binding, self._options)
        except Exception as error:  # ONNX Runtime's errors have no common base but this
            raise DeviceError(f"ONNX Runtime failed: {first_line(error)}") from error

    def run(self, frames: NDArray[np.uint8], scores: NDArray[np.float32], maps: NDArray[np.float32]) -> None:
        """Infer on at most as many frames as the buffers hold; write scores and maps."""
        count = len(frames)
        np.copyto(self._frames[:count], frames)
        self._values["frames"].update_inplace(self._frames)
        self._run()
        np.copyto(scores, self._values["scores"].numpy()[:count])
        np.copyto(maps, self._values["maps"].numpy()[:count])


SPEC = EngineSpec(
    open_cuda,
    "ONNX Runtime on NVIDIA GPUs",
    "onnxruntime",
    "gpu",
    CudaSettings,
    on_gpu=True,
    require_device=require_cuda,
)
