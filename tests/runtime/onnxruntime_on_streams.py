"""`OnnxRuntimeCudaEngine` on the CUDA on the host, with ONNX Runtime's CPU provider in the place of its CUDA provider.

Run as a program: ``python onnxruntime_on_streams.py BUNDLE`` prints what was found as JSON. A session works in the
stream that it was given. It records as ONNX Runtime does (cuda_graph.cc): for each thread, and so that most CUDA calls
of other threads break the recording.
"""

from __future__ import annotations

import ctypes
import json
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
from host_kernel import HostKernel

from edgead.bundle import read_bundle
from edgead.console import Console
from edgead.errors import DeviceError
from edgead.runtime.engines import Opening, onnxruntime_cuda
from edgead.runtime.engines.cuda import Cuda
from edgead.runtime.engines.onnxruntime_cuda import CudaSettings, OnnxRuntimeCudaEngine, open_cuda
from edgead.runtime.engines.onnxruntime_engine import CPU, OnnxRuntimeEngine, open_session

sessions: list[StreamSession] = []
refuses_recording = False


class StreamSession:
    """A session whose work is one kernel."""

    def __init__(self, session: Any, options: dict[str, str]) -> None:
        self.session, self.stream = session, int(options["user_compute_stream"])
        self.records = options.get("enable_cuda_graph") == "1"
        self.graphs: dict[tuple[int, str], ctypes.c_void_p] = {}
        self.kernels: list[HostKernel] = []
        self.cuda = ctypes.CDLL("libcudart.so.12")
        sessions.append(self)

    def io_binding(self) -> Any:
        binding = self.session.io_binding()
        real = {"bind_input": binding.bind_input, "bind_output": binding.bind_output}
        for name, bind in real.items():
            setattr(binding, name, lambda tensor, device, *rest, bind=bind: bind(tensor, "cpu", *rest))
        return binding

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        kernel = HostKernel(lambda: self.session.run_with_iobinding(binding))
        self.kernels.append(kernel)  # a graph may replay it
        if not self.records:
            if not kernel.allocate() or not kernel.launch(self.stream):
                raise RuntimeError("CUDA failure 900: operation not permitted when stream is capturing")
            return
        if refuses_recording:
            raise RuntimeError("This session cannot use the graph capture feature as requested")
        key = threading.get_ident(), options.get_run_config_entry("gpu_graph_id")
        if key not in self.graphs:
            self.graphs[key] = self.record(kernel)
        self.check(self.cuda.cudaGraphLaunch(self.graphs[key], ctypes.c_void_p(self.stream)))

    def record(self, kernel: HostKernel) -> ctypes.c_void_p:
        stream, graph, executable = ctypes.c_void_p(self.stream), ctypes.c_void_p(), ctypes.c_void_p()
        self.check(self.cuda.cudaStreamBeginCapture(stream, 0))  # global
        self.check(not kernel.launch(self.stream))
        self.check(self.cuda.cudaStreamEndCapture(stream, ctypes.byref(graph)))
        self.check(self.cuda.cudaGraphInstantiateWithFlags(ctypes.byref(executable), graph, ctypes.c_ulonglong(0)))
        return executable

    def check(self, code: int) -> None:
        if code:
            raise RuntimeError(f"CUDA failure {code}")


def open_stream_session(model: Path, provider: str, options: dict[str, str], content: bytes | None = None) -> Any:
    return StreamSession(open_session(model, CPU, {}, content=content), options)


class Said(Console):
    """Keeps the messages."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def say(self, text: str) -> None:
        self.texts.append(text)


def main(path: str) -> None:
    onnxruntime_cuda.require_cuda = lambda: None
    onnxruntime_cuda.open_session = open_stream_session  # type: ignore[assignment]
    bundle, library = read_bundle(path), ctypes.CDLL("libcudart.so.12")
    frames = np.random.default_rng(0).integers(0, 256, (7, *bundle.manifest.size, 3), dtype=np.uint8)
    plain = OnnxRuntimeEngine(bundle.model)
    said = Said()

    def start(batch: int = 3, **settings: Any) -> OnnxRuntimeCudaEngine:
        return open_cuda(bundle, Opening(batch, CudaSettings(**settings), said))

    def difference(engine: OnnxRuntimeCudaEngine) -> float:
        worst = 0.0
        for count in (1, 2, 3, 4, 7):
            outputs = engine.infer(frames[:count])
            engine.infer(frames[::-1][:count])  # must not write into what was returned
            for array, expected in zip(outputs, plain.infer(frames[:count])):
                assert array.shape == expected.shape
                worst = max(worst, float(np.abs(array - expected).max()))
        return worst

    found: dict[str, Any] = {}
    for name, settings in (("plain", {}), ("graph", {"cuda_graph": True}), ("sleep", {"sleep": True})):
        engine = start(**settings)
        found[name] = {"worst": difference(engine), "recorded": engine.recorded}
        engine.close()
        found[name]["left"] = library.edgead_test_allocated()

    first = start(cuda_graph=True)
    threads = [threading.Thread(target=first.infer, args=(frames[:2],)) for _ in range(3)]
    for thread in threads:
        thread.start()
        thread.join()
    found["recordings"] = len(sessions[-1].graphs)
    second = start(cuda_graph=True)
    found["second"] = {"recorded": second.recorded, "worst": difference(second), "said": said.texts[:]}
    first.close()
    second.close()
    third = start(cuda_graph=True)
    found["third"] = third.recorded
    third.close()
    found["meanwhile"] = infer_while_others_open(start, frames)

    global refuses_recording
    refuses_recording = True
    said.texts.clear()
    engine = start(cuda_graph=True)
    found["refused"] = {"recorded": engine.recorded, "worst": difference(engine), "said": said.texts[:]}
    engine.close()
    found["left"] = library.edgead_test_allocated()
    print(json.dumps(found))


def infer_while_others_open(start: Any, frames: Any) -> list[str]:
    """As when a bundle is reloaded or a shadow opens; returns the errors."""
    errors: list[str] = []
    done = threading.Event()
    running = start(cuda_graph=True)

    def infer() -> None:
        try:
            while not done.is_set():
                running.infer(frames[:2])
        except DeviceError as error:
            errors.append(str(error))

    thread = threading.Thread(target=infer)
    thread.start()
    for _ in range(10):
        try:
            start(cuda_graph=True).close()
            Cuda().close()
        except DeviceError as error:
            errors.append(str(error))
    done.set()
    thread.join()
    running.close()
    return errors


if __name__ == "__main__":
    main(sys.argv[1])
