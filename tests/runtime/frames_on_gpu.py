"""Frames that are on the GPU already, on the CUDA on the host. Run as a program: prints what was found as JSON.

``python frames_on_gpu.py BUNDLE`` runs the TensorRT engine over arrays of every protocol; ``python frames_on_gpu.py
BUNDLE IMAGES`` runs examples/pycuda_camera.py.
"""

from __future__ import annotations

import ctypes
import json
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from host_kernel import HostKernel
from level_bundle import make_level_bundle
from pycuda_on_host import GPUArray, _cuda, install, to_gpu
from tensorrt_by_onnxruntime import Model, fake_trt, plans_of_resizes

from edgead.bundle import read_bundle
from edgead.errors import DataError
from edgead.runtime.engines.checked import check
from edgead.runtime.engines.cuda import Cuda
from edgead.runtime.engines.device_frames import _Tensor
from edgead.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgead.runtime.engines.tensorrt_engine import TensorRtEngine, TensorRtSettings
from edgead.runtime.inspector import Inspector


class Interface:
    """An array with these facts."""

    def __init__(self, **facts: Any) -> None:
        self.__cuda_array_interface__ = facts


class Packed:
    """An array that exports itself by DLPack alone, as NVIDIA's decoders do."""

    def __init__(self, array: GPUArray, bits: int = 8) -> None:
        sides = (ctypes.c_int64 * len(array.shape))(*array.shape)
        # The data begins before the frames: the offset must be added.
        values = (array.gpudata - 16, (2, 0), len(array.shape), 1, bits, 1, sides, None, 16)
        self.array, self.tensor, self.streams = array, _Tensor(*values), []

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)

    def __dlpack__(self, stream: int | None = None) -> Any:
        self.streams.append(stream)
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return new(ctypes.addressof(self.tensor), b"dltensor", None)


def facts_of(array: GPUArray, **changes: Any) -> Interface:
    return Interface(**{**array.__cuda_array_interface__, **changes})


def main(path: str) -> None:
    bundle = read_bundle(path)
    size = bundle.manifest.size
    frames = np.random.default_rng(0).integers(0, 256, (5, *size, 3), dtype=np.uint8)
    plain = OnnxRuntimeEngine(bundle.model)

    def start(**settings: Any) -> Any:
        runs = Model(str(bundle.model), size, (1, 4))
        given = (b"plan", size, fake_trt(runs), Cuda(), TensorRtSettings(**settings))
        return check(TensorRtEngine(*given, resizes=plans_of_resizes), bundle)

    def difference(engine: Any, given: Any, count: int = 5) -> float:
        pairs = zip(engine.infer(given), plain.infer(frames[:count]))
        return max(float(np.abs(array - expected).max()) for array, expected in pairs)

    found: dict[str, Any] = {}
    on_gpu = to_gpu(frames)
    for name, settings in (("graph", {}), ("mapped", {"mapped": "on"}), ("no graph", {"cuda_graph": False})):
        engine = start(**settings)
        packed = Packed(on_gpu)
        found[name] = [difference(engine, each) for each in (on_gpu, frames, packed, to_gpu(frames))]
        found[f"{name}, one"] = difference(engine, to_gpu(frames[:1]), 1)
        assert packed.streams == [1]
        engine.close()
    engine = start()
    found["stream"] = written_late(engine, frames, plain)
    other = to_gpu(frames)
    inspector = Inspector(bundle, engine)
    found["results"] = [
        [result.score, result.verdict.value, result.frame_id] for result in inspector.inspect_on_gpu(other, frame_id=7)
    ]
    found["on the host"] = [inspector.inspect(frame).score for frame in frames]
    found["whole"] = whole_frames()
    found["refused"] = refusals(engine, frames, on_gpu, check(plain, bundle))
    found["contexts"] = contexts(engine, frames)
    engine.close()
    print(json.dumps(found))


def whole_frames() -> dict[str, Any]:
    """Frames of other sizes, written late by a stream that is named: as many as a batch holds, fewer and more."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = make_level_bundle(Path(folder) / "level.edgead")
        runs = Model(str(bundle.model), bundle.manifest.size, (1, 4))
        given = (b"plan", bundle.manifest.size, fake_trt(runs), Cuda(), TensorRtSettings())
        inspector = Inspector(bundle, TensorRtEngine(*given, resizes=plans_of_resizes))
    cuda, found, wanted = Cuda(), [], []
    for count, sides in ((4, (100, 140)), (1, (100, 140)), (6, (100, 140)), (2, (256, 256)), (2, inspector.size)):
        frames = np.random.default_rng(count).integers(0, 256, (count, *sides, 3), dtype=np.uint8)
        array = GPUArray(frames.shape, np.uint8)
        kernel = HostKernel(lambda to=array, of=frames: ctypes.memmove(to.gpudata, of.ctypes.data, of.nbytes) and None)
        assert kernel.launch(cuda.handle)
        results = inspector.inspect_on_gpu(facts_of(array, stream=cuda.handle))
        found += [[result.score, *result.frame_size] for result in results]
        wanted += [[inspector.inspect(frame).score, *sides] for frame in frames]
    inspector.close()
    return {"found": found, "on the host": wanted}


def written_late(engine: Any, frames: Any, plain: Any) -> float:
    """The frames are written by a stream that no one has waited for, and is named."""
    cuda = Cuda()
    array = GPUArray(frames.shape, np.uint8)
    kernel = HostKernel(lambda: ctypes.memmove(array.gpudata, frames.ctypes.data, frames.nbytes) and None)
    assert kernel.launch(cuda.handle)
    scores, _ = engine.infer(facts_of(array, stream=cuda.handle))
    return float(np.abs(scores - plain.infer(frames)[0]).max())


def refusals(engine: Any, frames: Any, on_gpu: GPUArray, on_cpu: Any) -> dict[str, str]:
    height, width = frames.shape[1:3]
    swapped = (frames[0].nbytes, 3, height * 3, 1)
    given = {
        "another engine": (on_cpu, on_gpu),
        "a type": (engine, facts_of(on_gpu, typestr="<f4")),
        "a packed type": (engine, Packed(on_gpu, bits=16)),
        "strides": (engine, facts_of(on_gpu, strides=swapped)),
        "a size": (engine, facts_of(on_gpu, shape=(1, height, width - 1, 3))),
        "host memory": (engine, facts_of(on_gpu, data=(frames.ctypes.data, False))),
    }
    refused = {}
    for name, (tried, array) in given.items():
        try:
            tried.infer(array)
        except DataError as error:
            refused[name] = str(error)
    return refused


def contexts(engine: Any, frames: Any) -> dict[str, Any]:
    """As in a program with pycuda.autoinit: its arrays are refused, its context stays current in its thread."""
    _cuda.edgead_test_use_another_context()
    foreign, kept = to_gpu(frames), []
    try:
        engine.infer(foreign)
        words = "taken"
    except DataError as error:
        words = str(error)
    kept.append(_cuda.edgead_test_is_in_another_context())
    engine.infer(frames)
    kept.append(_cuda.edgead_test_is_in_another_context())
    Cuda().close()
    kept.append(_cuda.edgead_test_is_in_another_context())
    return {"words": words, "kept": kept}


def camera(bundle: str, images: str) -> None:
    install()
    sys.argv = ["pycuda_camera.py", bundle, images]
    runpy.run_path(str(Path(__file__).parents[2] / "examples" / "pycuda_camera.py"), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1]) if len(sys.argv) == 2 else camera(*sys.argv[1:])
