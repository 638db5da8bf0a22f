"""TensorRT, through its tensor-name API (8.6 to 11).

Written against the bindings of these versions and tested without a GPU; it has not been run on one by its authors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import Bundle
from edgead.errors import DeviceError, require
from edgead.runtime.engines.cuda import Cuda, find_gpu
from edgead.runtime.engines.tensorrt_build import cached_plan, plan_path


def open_tensorrt(bundle: Bundle) -> TensorRtEngine:
    """Open a bundle on an NVIDIA GPU; the first time on a device this builds a plan, which takes minutes.

    Raises:
        MissingDependencyError: TensorRT is not installed.
        DeviceError: no driver or GPU, or TensorRT fails.
    """
    find_gpu()  # before anything of TensorRT, which crashes without a driver
    trt: Any = require("tensorrt", "tensorrt")
    cuda = Cuda()
    try:
        logger = trt.Logger(trt.Logger.ERROR)
        path = plan_path(bundle, trt, cuda.gpu, cuda.capability, cuda.driver)
        plan = cached_plan(bundle, trt, logger, path)
        return TensorRtEngine(plan, bundle.manifest.size, trt, logger, cuda)
    except BaseException:
        cuda.close()
        raise


class TensorRtEngine:
    """An `edgead.runtime.engines.Engine`: one frame at a time, from and into memory that is allocated once.

    Upload, inference and download are recorded as one CUDA graph where the engine allows it. On a Jetson, where host
    and device share memory, the pinned arrays are used in place and nothing is copied.

    Args:
        plan: the serialised engine.
        size: (height, width) in pixels.
        trt, logger: the module and its logger.
        cuda: the device; closed with the engine.
    """

    def __init__(self, plan: bytes, size: tuple[int, int], trt: Any, logger: Any, cuda: Cuda) -> None:
        self.name = f"tensorrt-{trt.__version__}"
        self._cuda = cuda
        # Each of these must outlive the next one.
        self._logger, self._runtime = logger, trt.Runtime(logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise DeviceError(f"TensorRT {trt.__version__} cannot load the plan that was built here.")
        self._context = self._engine.create_execution_context()
        shapes = {"frames": (1, *size, 3), "scores": (1,), "maps": (1, *size)}
        types = {"frames": np.uint8, "scores": np.float32, "maps": np.float32}
        self._context.set_input_shape("frames", shapes["frames"])
        self._host: dict[str, NDArray[Any]] = {}
        self._device: dict[str, int] = {}
        for name, shape in shapes.items():
            self._host[name], mapped = cuda.allocate_host(shape, types[name])
            self._device[name] = mapped if cuda.integrated else cuda.allocate(self._host[name].nbytes)
            if not self._context.set_tensor_address(name, self._device[name]):
                raise DeviceError(f"TensorRT does not take an address for '{name}'; is the graph an edgead bundle's?")
        self._enqueue()  # once before recording: TensorRT finishes its initialisation in the first run
        cuda.synchronize()
        self._graph = self._record()

    def _enqueue(self) -> None:
        if not self._cuda.integrated:
            self._cuda.upload(self._device["frames"], self._host["frames"])
        if not self._context.execute_async_v3(int(self._cuda.stream.value or 0)):
            raise DeviceError("TensorRT failed to run the engine.")
        if not self._cuda.integrated:
            for name in ("scores", "maps"):
                self._cuda.download(self._host[name], self._device[name])

    def _record(self) -> Any:
        """Return the CUDA graph of one frame, or None where the engine cannot be recorded."""
        try:
            self._cuda.begin_capture()
            self._enqueue()
            return self._cuda.end_capture()
        except DeviceError:
            return None

    def infer(self, frames: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        self._cuda.use_device()
        scores = np.empty(len(frames), np.float32)
        maps = np.empty(frames.shape[:3], np.float32)
        for index, frame in enumerate(frames):
            np.copyto(self._host["frames"][0], frame)
            if self._graph is None:
                self._enqueue()
            else:
                self._cuda.launch(self._graph)
            self._cuda.synchronize()
            scores[index], maps[index] = self._host["scores"][0], self._host["maps"][0]
        return scores, maps

    def close(self) -> None:
        self._context = self._engine = self._runtime = None
        self._host = {}
        self._cuda.close()
