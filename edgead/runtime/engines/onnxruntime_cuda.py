"""ONNX Runtime on an NVIDIA GPU with fixed buffers, and CUDA graphs where they are asked for.

The CUDA provider has not been run by its authors; buffers, batches and threads are tested on the CPU provider.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import MODEL, Bundle
from edgead.errors import DeviceError, EdgeadError, require
from edgead.geometry import Geometry, Size
from edgead.machine import find_gpu
from edgead.runtime.engines import EngineSpec, Opening, first_line, split_batch
from edgead.runtime.engines.cuda import Cuda
from edgead.runtime.engines.device_buffers import OUTPUTS, TYPES, DeviceBuffers
from edgead.runtime.engines.device_frames import DeviceFrames, Frames
from edgead.runtime.engines.device_resize import DeviceResize, ResizeBuffers
from edgead.runtime.engines.onnxruntime_engine import ProviderError, open_session
from edgead.runtime.engines.resize_graph import FITTED, FRAMES

PROVIDER = "CUDAExecutionProvider"


@dataclass(frozen=True)
class CudaSettings:
    """Settings, written ``onnxruntime-cuda:cuda_graph=on``.

    Attributes:
        cuda_graph: record each batch size once and replay it. Impossible if nodes of the graph do not run on the GPU,
            or while another such engine is open in the process; frames then run without.
        sleep: while the GPU works, the processor sleeps instead of spinning. Leaves a core free, for some microseconds
            per frame.
        tf32: let float32 convolutions round to TF32. Faster, but further from the reference outputs than a float32
            bundle allows.
    """

    cuda_graph: bool = False
    sleep: bool = False
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


@cache
def load_libraries() -> None:
    """Load the CUDA and cuDNN libraries that pip installed; the system's loader does not look where they are."""
    preload = getattr(require("onnxruntime", "gpu"), "preload_dlls", None)  # since 1.21
    if preload:
        with contextlib.redirect_stdout(sys.stderr):  # it prints what is missing; standard output may be JSON
            preload()


def open_cuda(bundle: Bundle, opening: Opening) -> OnnxRuntimeCudaEngine:
    """Open a bundle on an NVIDIA GPU.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        DeviceError: it is the CPU package, there is no GPU, or CUDA cannot be used here.
    """
    settings: CudaSettings = opening.settings
    require_cuda()
    load_libraries()
    batches = (1,) if opening.batch == 1 else (1, opening.batch)
    manifest, content = bundle.manifest, bundle.content(MODEL)

    def start(record: bool) -> OnnxRuntimeCudaEngine:
        cuda = Cuda(sleeps=settings.sleep)
        options = {"use_tf32": str(int(settings.tf32)), "user_compute_stream": str(cuda.handle)}
        options |= {"enable_cuda_graph": "1"} if record else {}
        target = Target(cuda, PROVIDER, options)
        return OnnxRuntimeCudaEngine(bundle.model, (*manifest.size, manifest.pixels.channels), batches, target, content)

    if not settings.cuda_graph:
        return start(record=False)
    try:
        return start(record=True)
    except ProviderError:
        raise
    except EdgeadError as error:
        plain = start(record=False)
        reason = first_line(error).rstrip(".")
        opening.console.say(f"No CUDA graph is recorded: {reason}. Continuing without one.")
        return plain


@dataclass(frozen=True)
class Target:
    """Where a session runs.

    Attributes:
        cuda: the device; closed with the engine.
        provider, options: of ONNX Runtime. ``enable_cuda_graph`` makes it record.
        device: ``"cuda"``, or ``"cpu"`` to test the buffers.
    """

    cuda: Cuda
    provider: str
    options: dict[str, str]
    device: str = "cuda"

    @property
    def records(self) -> bool:
        """Whether ONNX Runtime replays a CUDA graph."""
        return self.options.get("enable_cuda_graph") == "1"


class OnnxRuntimeCudaEngine:
    """An `edgead.runtime.engines.Engine` with inputs and outputs at fixed addresses, all on one stream.

    ONNX Runtime keeps the recording of a CUDA graph in the thread that made it, and most CUDA calls of other threads
    break a recording. An engine with a graph therefore opens and infers in a thread of its own, and only while no other
    engine of this class is open in the process.

    Args:
        model: the graph.
        frame: (height, width, channels).
        batches: batch sizes with their own buffers; a batch between two of them is filled up.
        target: where it runs.
        content: of `model`, if it is already read and checked.

    Attributes:
        recorded: every frame is one launch of a CUDA graph.
        on_device: it takes frames that are in the GPU's memory.

    Raises:
        BundleError: ONNX Runtime cannot read the graph.
        DeviceError: CUDA cannot be used here, or a CUDA graph cannot be recorded now.
    """

    _open: ClassVar[set[int]] = set()
    _opening: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self,
        model: Path,
        frame: tuple[int, int, int],
        batches: tuple[int, ...],
        target: Target,
        content: bytes | None = None,
    ) -> None:
        self.name, self.exact = f"onnxruntime-{target.device}", target.options.get("use_tf32") != "1"
        self.recorded, self._cuda, self._target = target.records, target.cuda, target
        self._resize = DeviceResize(self._cuda, self._open_resize)
        self.on_device = not self.recorded  # frames of a thread's own stream must be waited for in that thread
        self._lanes: dict[int, _Lane] = {}
        self._thread = ThreadPoolExecutor(1, "cuda graph") if self.recorded else None
        try:
            with self._opening:
                if self.recorded and self._open:
                    raise DeviceError("Another engine on this GPU is open in the process.")
                self._run(self._start, model, frame, batches, target, content)
                self._open.add(id(self))
        except BaseException:
            self.close()
            raise

    def _run(self, work: Any, *arguments: Any) -> None:
        """Call a function in the thread that uses the GPU."""
        if self._thread:
            self._thread.submit(work, *arguments).result()
        else:
            work(*arguments)

    def _start(
        self,
        model: Path,
        frame: tuple[int, int, int],
        batches: tuple[int, ...],
        target: Target,
        content: bytes | None,
    ) -> None:
        with self._cuda.used():
            session = open_session(model, target.provider, target.options, content=content)
            for count in batches:
                self._lanes[count] = _Lane(
                    session, DeviceBuffers(self._cuda, (count, *frame)), self._cuda, target.device
                )

    def infer(self, frames: Frames) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        scores = np.empty(len(frames), np.float32)
        maps = np.empty(frames.shape[:3], np.float32)
        self._run(self._infer, frames, scores, maps)
        return scores, maps

    def _infer(self, frames: Frames, scores: NDArray[np.float32], maps: NDArray[np.float32]) -> None:
        with self._cuda.used():
            for start, stop, size in split_batch(len(frames), list(self._lanes)):
                self._lanes[size].run(frames[start:stop], scores[start:stop], maps[start:stop])

    def fit(self, frames: DeviceFrames, size: Size, geometry: Geometry) -> DeviceFrames:
        """Fit frames on the device to the model, see `DeviceResize.fit`. Only where `on_device` is true."""
        with self._cuda.used():
            return self._resize.fit(frames, size, geometry)

    def _open_resize(self, buffers: ResizeBuffers) -> Callable[[], None]:
        target = self._target
        session = open_session(Path("the resize"), target.provider, target.options, content=buffers.graph)
        binding = session.io_binding()
        binding.bind_input(FRAMES, target.device, 0, np.uint8, [1, *buffers.frame], buffers.source)
        binding.bind_output(FITTED, target.device, 0, np.uint8, [1, *buffers.fitted], buffers.target)
        return partial(_run_bound, session, binding, _unsynchronised())

    def close(self) -> None:
        self._resize = DeviceResize(self._cuda, self._open_resize)
        self._run(self._lanes.clear)  # the session ends where its CUDA graphs are
        if self._thread:
            self._thread.shutdown()
        self._cuda.close()
        self._open.discard(id(self))


class _Lane:
    """Buffers, binding and CUDA graph for one fixed number of frames."""

    def __init__(self, session: Any, buffers: DeviceBuffers, cuda: Cuda, device: str) -> None:
        self._session, self._buffers = session, buffers
        self._options = _unsynchronised()
        self._options.add_run_config_entry("gpu_graph_id", str(buffers.shapes["scores"][0]))
        self._binding = session.io_binding()
        for name, shape in buffers.shapes.items():
            bind = self._binding.bind_output if name in OUTPUTS else self._binding.bind_input
            bind(name, device, 0, TYPES[name], list(shape), buffers.device[name])
        self._compute()  # records the CUDA graph, so that a failure shows before the first frame
        cuda.synchronize()

    def _compute(self) -> None:
        _run_bound(self._session, self._binding, self._options)

    def run(self, frames: Frames, scores: NDArray[np.float32], maps: NDArray[np.float32]) -> None:
        """Infer on at most as many frames as the buffers hold; write scores and maps."""
        self._buffers.put(frames)
        self._compute()
        self._buffers.fetch()
        self._buffers.take(scores, maps)


def _unsynchronised() -> Any:
    """Return options of a run. Everything is on one stream, so only the outputs must be waited for."""
    options = require("onnxruntime", "gpu").RunOptions()
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    return options


def _run_bound(session: Any, binding: Any, options: Any) -> None:
    try:
        session.run_with_iobinding(binding, options)
    except Exception as error:  # ONNX Runtime's errors have no common base but this
        raise DeviceError(f"ONNX Runtime failed: {first_line(error)}") from error


SPEC = EngineSpec(
    open_cuda,
    "ONNX Runtime on NVIDIA GPUs",
    "onnxruntime",
    "gpu",
    CudaSettings,
    on_gpu=True,
    require_device=require_cuda,
)
