"""`TensorRtEngine` with our own CUDA calls on a CUDA on the host, and ONNX Runtime in the place of TensorRT's kernels.

Run as a program: ``python tensorrt_by_onnxruntime.py BUNDLE`` prints what was found as JSON. ONNX Runtime reads and
writes at the addresses that the engine gave, so that wrong buffers, sizes or orders give wrong outputs.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
from host_kernel import HostKernel

from edgead.bundle import read_bundle
from edgead.errors import BundleError, DeviceError
from edgead.runtime.engines.cuda import Cuda
from edgead.runtime.engines.device_resize import ResizeBuffers
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgead.runtime.engines.resize_graph import FITTED, FRAMES
from edgead.runtime.engines.tensorrt_engine import TensorRtEngine, TensorRtSettings

TYPES = {"frames": np.uint8, "scores": np.float32, "maps": np.float32}


class Context:
    """An execution context: its one kernel works in the stream. As TensorRT's, it allocates in its first run."""

    def __init__(self, engine: Model) -> None:
        self.engine, self.addresses, self.shapes, self.runs = engine, {}, {}, 0
        self.kernel = HostKernel(self.work)

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        return bool(stream) and profile < len(self.engine.batches)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes = {"frames": shape, "scores": shape[:1], "maps": shape[:3]}
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def array(self, name: str) -> Any:
        size = int(np.prod(self.shapes[name])) * np.dtype(TYPES[name]).itemsize
        data = (ctypes.c_uint8 * size).from_address(self.addresses[name])
        return np.frombuffer(data, TYPES[name]).reshape(self.shapes[name])

    def execute_async_v3(self, stream: int) -> bool:
        self.runs += 1
        if self.engine.fails:
            self.engine.logger.log(1, "Error Code 1: Cuda Runtime (an illegal memory access was encountered)")
            return False
        if self.runs == 2 and self.engine.refuses_recording:
            return False
        if self.runs == 1 and not self.kernel.allocate():
            return False
        return self.kernel.launch(stream)

    def work(self) -> None:
        scores, maps = self.engine.session.run(("scores", "maps"), {"frames": self.array("frames")})
        self.array("scores")[:], self.array("maps")[:] = scores, maps


class Model:
    """An engine with a static profile for each batch."""

    def __init__(self, graph: str | bytes, size: tuple[int, int], batches: tuple[int, ...], **faults: Any) -> None:
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self.size, self.batches = size, batches
        self.fails, self.refuses_recording = faults.get("fails", False), faults.get("refuses_recording", False)
        self.num_io_tensors, self.num_optimization_profiles = 3, len(batches)
        self.kinds = faults.get("kinds") or {"frames": "uint8", "scores": "float32", "maps": "float32"}
        self.core: int | None = None  # of the DLA, as the runtime had it when this was loaded
        self.logger: Any = None

    def get_tensor_name(self, index: int) -> str:
        return list(TYPES)[index]

    def get_tensor_dtype(self, name: str) -> str:
        return self.kinds[name]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return {"frames": (-1, *self.size, 3), "scores": (-1,), "maps": (-1, *self.size)}[name]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(self.batches[profile], *self.size, 3)] * 3

    def create_execution_context(self) -> Context:
        return Context(self)


class Resize:
    """The engine of a resize, and its execution context."""

    def __init__(self, graph: bytes) -> None:
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self.shape, self.addresses, self.kernel = (), {}, HostKernel(self.work)

    def create_execution_context(self) -> Resize:
        return self

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return name == FRAMES

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self.shape[0], *self.session.get_outputs()[0].shape[1:])

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def array(self, name: str, shape: tuple[int, ...]) -> Any:
        return np.frombuffer((ctypes.c_uint8 * int(np.prod(shape))).from_address(self.addresses[name]), np.uint8)

    def execute_async_v3(self, stream: int) -> bool:
        return self.kernel.launch(stream)

    def work(self) -> None:
        frame = self.array(FRAMES, self.shape).reshape(self.shape)
        [fitted] = self.session.run([FITTED], {FRAMES: frame})
        self.array(FITTED, fitted.shape)[:] = fitted.ravel()


RESIZE, STALE = b"resize", b"a plan of another TensorRT"


def plans_of_resizes(buffers: ResizeBuffers, refused: bytes = b"") -> bytes:
    """The plan of a resize; the first one does not load, as after an update of TensorRT."""
    return RESIZE + buffers.graph if refused else STALE


def fake_trt(engine: Model | None) -> Any:
    class ILogger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1)

    class Runtime:
        DLA_core = None

        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> Model | Resize | None:
            if plan.startswith(RESIZE) or plan == STALE:
                return None if plan == STALE else Resize(plan[len(RESIZE) :])
            if not registered:
                self.logger.log(ILogger.Severity.ERROR, "could not find plugin InstanceNormalization_TRT version 1")
                return None
            if engine is None:
                self.logger.log(ILogger.Severity.ERROR, "Error Code 1: Serialization\n(another version)")
            else:
                engine.core, engine.logger = self.DLA_core, self.logger
            return engine

    def starts_not(logger: Any) -> None:
        logger.log(ILogger.Severity.INTERNAL_ERROR, "CUDA initialization failure with error: 2")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    registered: list[str] = []

    def init_libnvinfer_plugins(logger: Any, namespace: str) -> bool:
        registered.append(namespace)
        return True

    names = {"uint8": "uint8", "float32": "float32", "__version__": "0.0"}
    return SimpleNamespace(
        ILogger=ILogger,
        Runtime=Runtime,
        starts_not=starts_not,
        init_libnvinfer_plugins=init_libnvinfer_plugins,
        **names,
    )


def refusal(call: Any) -> str:
    try:
        call()
    except (BundleError, DeviceError) as error:
        return f"{type(error).__name__}: {error}"
    return "taken"


def main(path: str) -> None:
    bundle = read_bundle(path)
    size, model = bundle.manifest.size, str(bundle.model)
    frames = np.random.default_rng(0).integers(0, 256, (9, *size, 3), dtype=np.uint8)
    plain = OnnxRuntimeEngine(bundle.model)
    found: dict[str, Any] = {}
    for label, settings, batches in (
        ("copied", TensorRtSettings(mapped="off"), (1, 4)),
        ("mapped", TensorRtSettings(mapped="on"), (1, 4)),
        ("no graph", TensorRtSettings(cuda_graph=False), (1, 4)),
        ("one", TensorRtSettings(), (1,)),
        ("on a DLA", TensorRtSettings(dla=1), (1,)),
        ("not recordable", TensorRtSettings(), (1, 4)),
        ("sleeping", TensorRtSettings(sleep=True), (1, 4)),
    ):
        cuda = Cuda(sleeps=settings.sleep)
        runs = Model(model, size, batches, refuses_recording=label == "not recordable")
        engine = TensorRtEngine(b"plan", size, fake_trt(runs), cuda, settings)
        worst = 0.0
        for count in (1, 3, 4, 5, 9):
            outputs = engine.infer(frames[:count])
            engine.infer(frames[::-1][:count])  # must not write into what was returned
            for array, expected in zip(outputs, plain.infer(frames[:count])):
                assert array.shape == expected.shape
                worst = max(worst, float(np.abs(array - expected).max()))
        recorded, allocated = engine.recorded, cuda._library.edgead_test_allocated()
        engine.close()
        found[label] = {
            "worst": worst,
            "recorded": recorded,
            "core": runs.core,
            "allocated": allocated,
            "left": cuda._library.edgead_test_allocated(),
        }
    found["unloadable"] = refusal(lambda: TensorRtEngine(b"", size, fake_trt(None), Cuda(), TensorRtSettings()))
    other = Model(model, (size[0], size[1] + 1), (1,))
    found["other size"] = refusal(lambda: TensorRtEngine(b"", size, fake_trt(other), Cuda(), TensorRtSettings()))
    half = Model(model, size, (1,), kinds={**dict.fromkeys(TYPES, "float32"), "frames": "float32"})
    found["other type"] = refusal(lambda: TensorRtEngine(b"", size, fake_trt(half), Cuda(), TensorRtSettings()))
    failing = Model(model, size, (1,), fails=True)
    found["failing"] = refusal(lambda: TensorRtEngine(b"", size, fake_trt(failing), Cuda(), TensorRtSettings()))
    dead = fake_trt(failing)
    dead.Runtime = dead.starts_not
    found["dead"] = refusal(lambda: TensorRtEngine(b"", size, dead, Cuda(), TensorRtSettings()))
    found["cuda"] = try_cuda()
    print(json.dumps(found))


def try_cuda() -> dict[str, Any]:
    """Recording on the host's CUDA: what was recorded is replayed, and a broken recording leaves the stream usable."""
    cuda = Cuda()
    source, _ = cuda.allocate_host((3, 5), np.float32)
    target, _ = cuda.allocate_host((3, 5), np.float32)
    device = cuda.allocate(source.nbytes)
    with cuda.capture() as recording:
        cuda.upload(device, source)
        cuda.download(target, device)
    source[:], target[:] = np.arange(15).reshape(3, 5), 0
    untouched = not target.any()
    cuda.launch(recording.graph)
    cuda.synchronize()
    replayed = bool((target == source).all())

    def break_it() -> None:
        with cuda.capture():
            cuda._library.edgead_test_break_the_recording()

    def raise_in_it() -> None:
        with cuda.capture():
            raise DeviceError("in the block")

    broken, raised = refusal(break_it), refusal(raise_in_it)
    source[:] = 7
    cuda.upload(device, source)
    cuda.download(target, device)
    cuda.synchronize()
    usable = bool((target == 7).all())
    memory = refusal(lambda: cuda.allocate(1 << 50))
    cuda.close()
    found = {"untouched": untouched, "replayed": replayed, "broken": broken, "raised": raised, "usable": usable}
    return {**found, "memory": memory, "integrated": cuda.integrated, "asked": "EDGEAD_TEST_INTEGRATED" in os.environ}


if __name__ == "__main__":
    main(sys.argv[1])
