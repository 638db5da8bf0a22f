"""TensorRT, through its tensor-name API (8.6 to 11).

Written against the bindings of these versions and tested without a GPU; it has not been run on one by its authors.
`edgead doctor --build BUNDLE` is what checks it on yours.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import Bundle
from edgead.errors import BundleError, ConfigError, DeviceError, MissingDependencyError, is_installed, require
from edgead.geometry import Geometry, Size
from edgead.machine import Gpu, find_gpu
from edgead.runtime.engines import EngineSpec, Opening, split_batch
from edgead.runtime.engines.cuda import Cuda
from edgead.runtime.engines.device_buffers import DeviceBuffers
from edgead.runtime.engines.device_frames import DeviceFrames, Frames
from edgead.runtime.engines.device_resize import DeviceResize, ResizeBuffers
from edgead.runtime.engines.tensorrt_build import BuildSettings
from edgead.runtime.engines.tensorrt_cache import find_plan
from edgead.runtime.engines.tensorrt_logger import last_error, make_logger, memory_error, open_runtime
from edgead.runtime.engines.tensorrt_resize import CachedResizes, Plans, load_resize


@dataclass(frozen=True)
class TensorRtSettings(BuildSettings):
    """Set as ``tensorrt:opt_level=5,cuda_graph=off``.

    Attributes:
        plan: a file that was built elsewhere, for instance by trtexec, used instead of building one. It is loaded
            unchecked: give only files that you trust.
        cuda_graph: record inference and download once and replay them.
        mapped: ``auto``, ``on`` or ``off``: let the GPU use the pinned host memory directly, without copies.
            ``auto``: if host and device share memory, as on a Jetson.
        sleep: while the GPU works, the processor sleeps instead of spinning. Leaves a core free, for some microseconds
            per frame.
    """

    plan: str = ""
    cuda_graph: bool = True
    mapped: str = "auto"
    sleep: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mapped not in ("auto", "on", "off"):
            raise ConfigError(f"tensorrt:mapped must be auto, on or off, not '{self.mapped}'.")

    def build(self) -> BuildSettings:
        """Return the settings that a plan depends on."""
        return BuildSettings(**{each.name: getattr(self, each.name) for each in dataclasses.fields(BuildSettings)})


def open_tensorrt(bundle: Bundle, opening: Opening) -> TensorRtEngine:
    """Open a bundle on an NVIDIA GPU; the first time on a device this builds a plan, which takes minutes.

    Raises:
        MissingDependencyError: TensorRT is not installed.
        ConfigError: a setting that this version or device does not have.
        BundleError: TensorRT cannot read the graph.
        DeviceError: no driver or GPU, or TensorRT fails.
    """
    settings: TensorRtSettings = opening.settings
    gpu, trt = find_tensorrt()
    resizes = CachedResizes(trt, gpu, settings.build(), opening.console)
    if settings.plan:
        if bundle.signer:
            raise ConfigError(
                f"tensorrt:plan={settings.plan} has no signature, and only signed bundles are loaded here.\n"
                "Leave it out: the engine is then built from the signed bundle."
            )
        return _start(_read_plan(Path(settings.plan)), bundle, settings, trt, resizes)
    batches = (1,) if opening.batch == 1 else (1, opening.batch)
    cached = find_plan(bundle, trt, gpu, settings.build(), batches)
    plan = cached.read(opening.console)
    try:
        opened = _start(plan, bundle, settings, trt, resizes)
    except _UnloadableError:  # complete on disk, but this TensorRT does not load it
        opening.console.say("The cached engine cannot be loaded. It is built again.")
        opened = _start(cached.read(opening.console, refused=plan), bundle, settings, trt, resizes)
    opened.build_command = cached.build_command()
    return opened


def find_tensorrt() -> tuple[Gpu, Any]:
    """Return the GPU and the module tensorrt; in this order, because TensorRT crashes without a driver.

    Raises:
        DeviceError: no driver or GPU.
        MissingDependencyError: TensorRT is not installed, or this Python cannot import it.
    """
    gpu = find_gpu()
    if platform.machine() == "aarch64" and not is_installed("tensorrt"):
        raise MissingDependencyError(
            "This Python cannot import TensorRT. On a Jetson it is a system package for the system's Python:\n"
            "sudo apt install python3-libnvinfer; python3 -m venv --system-site-packages DIR   (docs/tensorrt.md)"
        )
    return gpu, require("tensorrt", "tensorrt")


class _UnloadableError(DeviceError):
    """TensorRT cannot load a plan."""


def _read_plan(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"The engine file {path} cannot be read: {error.strerror}.") from error


def _start(plan: bytes, bundle: Bundle, settings: TensorRtSettings, trt: Any, resizes: Plans) -> TensorRtEngine:
    cuda, manifest = Cuda(sleeps=settings.sleep), bundle.manifest
    try:
        with cuda.used():
            return TensorRtEngine(plan, manifest.size, trt, cuda, settings, manifest.pixels.channels, resizes)
    except BaseException:
        cuda.close()
        raise


class TensorRtEngine:
    """An `edgead.runtime.engines.Engine` with input and output memory that is allocated once.

    The plan has one static profile for each number of frames it takes, usually 1 and the stream's batch. Each has its
    own context, buffers and CUDA graph. A batch between the two sizes is filled up with frames of an earlier batch.

    Args:
        plan: the serialised engine.
        size: (height, width) in pixels.
        trt: the module.
        cuda: the device; closed with the engine.
        settings: how it runs.
        channels: of a frame.
        resizes: the plans of resizes on the device; None for an engine that takes frames of the model's size alone.
    """

    on_device = True
    build_command = ""
    """The trtexec command that builds the same plan; empty for a plan that was built elsewhere."""

    def __init__(
        self,
        plan: bytes,
        size: tuple[int, int],
        trt: Any,
        cuda: Cuda,
        settings: TensorRtSettings,
        channels: int = 3,
        resizes: Plans | None = None,
    ) -> None:
        self.name = f"tensorrt-{trt.__version__}"
        self._cuda, self._resizes, self._resize = cuda, resizes, DeviceResize(cuda, self._open_resize)
        # Each of these must outlive the next one.
        self._logger = make_logger(trt)
        try:
            self._runtime = open_runtime(trt, self._logger)
        except TypeError as error:  # the only error that the bindings raise if TensorRT does not start
            raise DeviceError(
                f"TensorRT {trt.__version__} does not start: {last_error(self._logger, str(error))}."
            ) from error
        if settings.dla >= 0:
            self._runtime.DLA_core = settings.dla  # a plan fits any core; without this it runs on the first one
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise _not_loaded(trt, self._logger)
        _check_signature(trt, self._engine, (*size, channels))
        mapped = cuda.integrated if settings.mapped == "auto" else settings.mapped == "on"
        self._lanes: dict[int, _Lane] = {}
        for profile in range(self._engine.num_optimization_profiles):
            _, _, most = self._engine.get_tensor_profile_shape("frames", profile)
            context = self._engine.create_execution_context()
            if context is None:
                raise DeviceError(
                    f"TensorRT cannot create an execution context: {last_error(self._logger)}.\n"
                    "Is the device's memory full?"
                )
            if profile and not context.set_optimization_profile_async(profile, cuda.handle):
                raise DeviceError(f"TensorRT rejects the engine's profile {profile}: {last_error(self._logger)}.")
            buffers = DeviceBuffers(cuda, (most[0], *size, channels), mapped=mapped)
            self._lanes[most[0]] = _Lane(context, self._logger, buffers, cuda, settings.cuda_graph)

    @property
    def recorded(self) -> bool:
        """Whether every frame is one launch of a CUDA graph."""
        return all(lane.graph is not None for lane in self._lanes.values())

    def infer(self, frames: Frames) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        scores = np.empty(len(frames), np.float32)
        maps = np.empty(frames.shape[:3], np.float32)
        with self._cuda.used():
            for start, stop, size in split_batch(len(frames), list(self._lanes)):
                self._lanes[size].run(frames[start:stop], scores[start:stop], maps[start:stop])
        return scores, maps

    def fit(self, frames: DeviceFrames, size: Size, geometry: Geometry) -> DeviceFrames:
        """Fit frames on the device to the model, see `DeviceResize.fit`."""
        with self._cuda.used():
            return self._resize.fit(frames, size, geometry)

    def _open_resize(self, buffers: ResizeBuffers) -> Callable[[], None]:
        if self._resizes is None:
            raise DeviceError("This engine has no resize on the GPU. Pass frames of the model's size.")
        version = self.name.partition("-")[2]
        return load_resize(self._runtime, self._logger, self._cuda, self._resizes, buffers, version)

    def close(self) -> None:
        with self._cuda.used():
            self._lanes, self._resize = {}, DeviceResize(self._cuda, self._open_resize)
            self._engine = self._runtime = None
        self._cuda.close()


def _not_loaded(trt: Any, logger: Any) -> DeviceError:
    if error := memory_error(logger):  # the plan itself may be valid
        return DeviceError(
            f"TensorRT {trt.__version__} has too little memory to load the engine: {error}.\n"
            "Stop other programs that use the device's memory and try again."
        )
    return _UnloadableError(
        f"TensorRT {trt.__version__} cannot load the engine: {last_error(logger)}.\nWas it built on this device?"
    )


def _check_signature(trt: Any, engine: Any, frame: tuple[int, int, int]) -> None:
    """Refuse an engine that was not built from an edgead bundle of this size: TensorRT does not check addresses."""
    wanted = {
        "frames": (trt.uint8, (-1, *frame)),
        "scores": (trt.float32, (-1,)),
        "maps": (trt.float32, (-1, *frame[:2])),
    }
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    for name, (dtype, shape) in wanted.items():
        if name not in names:
            raise BundleError(
                f"The engine has no tensor '{name}'. Available: {', '.join(names)}. Build it from the bundle."
            )
        found = tuple(engine.get_tensor_shape(name))
        fits = len(found) == len(shape) and all(a == b or -1 in (a, b) for a, b in zip(found, shape))
        if engine.get_tensor_dtype(name) != dtype or not fits:
            raise BundleError(
                f"The engine's '{name}' is {engine.get_tensor_dtype(name)} {found}; the bundle's is {dtype} {shape}.\n"
                "Build it from this bundle."
            )


class _Lane:
    """Context, buffers and CUDA graph for one fixed number of frames.

    Args:
        context: TensorRT's, on its profile.
        logger: TensorRT's.
        buffers: of that number of frames.
        cuda: the device.
        record: try to record a CUDA graph.
    """

    def __init__(self, context: Any, logger: Any, buffers: DeviceBuffers, cuda: Cuda, record: bool) -> None:
        self._context, self._logger, self._buffers, self._cuda = context, logger, buffers, cuda
        shapes = buffers.shapes
        if not context.set_input_shape("frames", shapes["frames"]):
            raise DeviceError(f"The engine does not accept frames of shape {shapes['frames']}: {last_error(logger)}.")
        for name, sides in shapes.items():
            if tuple(context.get_tensor_shape(name)) != sides:
                raise BundleError(f"The engine's '{name}' is {tuple(context.get_tensor_shape(name))}, not {sides}.")
            if not context.set_tensor_address(name, buffers.device[name]):
                raise DeviceError(f"TensorRT rejects the address of '{name}': {last_error(logger)}.")
        self._compute()  # once before recording: TensorRT finishes its initialisation in the first run
        cuda.synchronize()
        self.graph = self._record() if record else None

    def _compute(self) -> None:
        if not self._context.execute_async_v3(self._cuda.handle):
            raise DeviceError(f"TensorRT failed to run the engine: {last_error(self._logger)}.")
        self._buffers.fetch()

    def _record(self) -> Any:
        """Return the CUDA graph of one run, or None where the engine cannot be recorded."""
        try:
            with self._cuda.capture() as captured:
                self._compute()
        except DeviceError:
            return None
        return captured.graph

    def run(self, frames: Frames, scores: NDArray[np.float32], maps: NDArray[np.float32]) -> None:
        """Infer on at most as many frames as the buffers hold; write scores and maps."""
        self._buffers.put(frames)
        if self.graph is None:
            self._compute()
        else:
            self._cuda.launch(self.graph)
        self._buffers.take(scores, maps)


SPEC = EngineSpec(
    open_tensorrt,
    "TensorRT on NVIDIA GPUs",
    "tensorrt",
    "tensorrt",
    TensorRtSettings,
    on_gpu=True,
    require_device=find_gpu,
)
