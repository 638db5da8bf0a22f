"""TensorRT's plan of a resize on the device: built once for a size of frames, cached and loaded as the model's."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

from edgead.console import Console
from edgead.errors import DeviceError
from edgead.files import atomic_file
from edgead.home import cache_folder
from edgead.machine import Gpu
from edgead.runtime.engines.cuda import Cuda
from edgead.runtime.engines.device_resize import ResizeBuffers
from edgead.runtime.engines.resize_graph import FITTED, FRAMES
from edgead.runtime.engines.tensorrt_build import BuildSettings
from edgead.runtime.engines.tensorrt_cache import GraphFile, find_plan_of
from edgead.runtime.engines.tensorrt_logger import last_error
from edgead.runtime.engines.tensorrt_process import disk_error
from edgead.signatures.seal import private_folder

Plans = Callable[[ResizeBuffers, bytes], bytes]
"""Returns the plan of a resize; another one than the given one, which does not load."""


@dataclasses.dataclass(frozen=True)
class CachedResizes:
    """The cache of such plans, beside those of bundles.

    Attributes:
        trt: the module.
        gpu: the device.
        settings: of the bundle's build. A resize always runs on the GPU.
        console: says that a plan is built.
    """

    trt: Any
    gpu: Gpu
    settings: BuildSettings
    console: Console

    def __call__(self, buffers: ResizeBuffers, refused: bytes = b"") -> bytes:
        digest = hashlib.sha256(buffers.graph).hexdigest()
        model = cache_folder() / "tensorrt" / f"resize-{digest[:32]}.onnx"
        try:
            private_folder(model.parent)
            with atomic_file(model) as stream:
                stream.write(buffers.graph)
        except OSError as error:
            raise disk_error(model, error) from error
        (height, width, channels), (rows, columns, _) = buffers.frame, buffers.fitted
        what = f"resize of {width}×{height} to {columns}×{rows}"
        graph = GraphFile(model, digest, (height, width), channels, what)
        settings = dataclasses.replace(self.settings, dla=-1)
        return find_plan_of(graph, self.trt, self.gpu, settings).read(self.console, refused)


def load_resize(
    runtime: Any, logger: Any, cuda: Cuda, plans: Plans, buffers: ResizeBuffers, version: str
) -> Callable[[], None]:
    """Load a resize; return the function that queues one run.

    Raises:
        BundleError, ConfigError, DeviceError: it cannot be built, loaded or run here.
    """
    plan = plans(buffers, b"")
    engine = runtime.deserialize_cuda_engine(plan) or runtime.deserialize_cuda_engine(plans(buffers, plan))
    context = engine.create_execution_context() if engine else None
    if context is None:
        raise DeviceError(f"TensorRT {version} cannot load the resize on the GPU: {last_error(logger)}.")
    accepts = (
        context.set_input_shape(FRAMES, (1, *buffers.frame))
        and context.set_tensor_address(FRAMES, buffers.source)
        and context.set_tensor_address(FITTED, buffers.target)
    )
    if not accepts or tuple(context.get_tensor_shape(FITTED)) != (1, *buffers.fitted):
        raise DeviceError(f"TensorRT {version} does not accept the frames of the resize: {last_error(logger)}.")

    def run(keep: Any = engine) -> None:  # the engine must outlive its context
        if not context.execute_async_v3(cuda.handle):
            raise DeviceError(f"TensorRT failed to resize on the GPU: {last_error(logger)}.")

    return run
