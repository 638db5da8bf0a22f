"""Step ort: the graphs on ONNX Runtime's CUDA provider."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import Options, attempt, milliseconds, report
from graphs import differences, frames_of, graphs_made

from edgead.geometry import STRETCH
from edgead.images import fit_frame
from edgead.runtime.engines.cuda import Cuda
from edgead.runtime.engines.device_frames import DeviceFrames
from edgead.runtime.engines.onnxruntime_cuda import PROVIDER, OnnxRuntimeCudaEngine, Target, load_libraries

EXACT = {"use_tf32": "0"}
RECORDED = {**EXACT, "enable_cuda_graph": "1"}


def ort(options: Options) -> None:
    """Run every graph in the variants that its precision has, then check batches and threads on the first graph."""
    import onnxruntime

    load_libraries()
    report(what="versions", onnxruntime=onnxruntime.__version__, providers=onnxruntime.get_available_providers())
    made = graphs_made()
    if not made:
        raise SystemExit("There are no graphs. Run the step graphs first.")
    failed: set[tuple[str, str]] = set()

    def tried(variant: str, settings: dict[str, str], *, only: Callable[[str, str], bool]) -> None:
        for name, precision, path in made:
            if only(name, precision):
                call = partial(GraphChecks(name, path, options).measure, precision, settings)
                if not attempt(f"{name} {precision}, {variant}", call):
                    failed.add((name, precision))

    # What matters most comes first: the step may be stopped by its limit.
    tried("CUDA graph", RECORDED, only=lambda name, precision: True)
    name, _, path = made[0]
    checks = GraphChecks(name, path, options)
    attempt("batches of every size", checks.batches)
    attempt("a frame on the GPU, resized there", checks.resized)
    attempt("inference in another thread", checks.other_thread)
    attempt("engines opened during inference", checks.opened_meanwhile)
    tried("no CUDA graph", EXACT, only=lambda name, precision: precision == "fp32" or (name, precision) in failed)
    nhwc = {**RECORDED, "prefer_nhwc": "1"}
    tried("CUDA graph, channels last", nhwc, only=lambda name, precision: precision in ("fp32", "fp16"))
    tried("CUDA graph, TF32", {**RECORDED, "use_tf32": "1"}, only=lambda name, precision: precision == "fp32")


class GraphChecks:
    """One method for each check of one graph; each returns what it found."""

    def __init__(self, name: str, path: Path, options: Options) -> None:
        self._name, self._path, self._options = name, path, options
        self._frames = frames_of(name)

    def _open(self, settings: dict[str, str] = RECORDED, batches: tuple[int, ...] = (1,)) -> OnnxRuntimeCudaEngine:
        provider, cuda = "CPUExecutionProvider" if self._options.cpu else PROVIDER, Cuda()
        settings = {} if self._options.cpu else {**settings, "user_compute_stream": str(cuda.handle)}
        target = Target(cuda, provider, settings, self._options.device)
        return OnnxRuntimeCudaEngine(self._path, self._frames.shape[1:], batches, target)

    def measure(self, precision: str, settings: dict[str, str]) -> dict[str, Any]:
        """Differences from the CPU, and latency."""
        with closing(self._open(settings)) as engine:
            frame = self._frames[:1]
            found = differences(self._name, precision, engine.infer)
            return {**found, "ms": milliseconds(lambda: engine.infer(frame), 30)}

    def batches(self) -> dict[str, Any]:
        """Batches of every size give what single frames give."""
        frames = self._frames
        with closing(self._open(batches=(1, 3))) as engine:
            alone = np.concatenate([engine.infer(frame[None])[0] for frame in frames])
            sizes = range(1, len(frames) + 1)
            difference = max(float(np.abs(engine.infer(frames[:n])[0] - alone[:n]).max()) for n in sizes)
        return {"ok": difference < 1e-3 * (1 + float(np.abs(alone).max())), "difference": difference}

    def resized(self) -> dict[str, Any]:
        """A whole frame in the GPU's memory is fitted there as on the host."""
        shape, size = (1080, 1920, 3), self._frames.shape[1:3]
        with closing(self._open(EXACT)) as engine:
            cuda = engine._cuda
            frame, _ = cuda.allocate_host(shape, np.uint8)
            frame[:] = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
            given = DeviceFrames(cuda.allocate(frame.nbytes), (1, *shape), cuda.handle, None)
            found, _ = cuda.allocate_host((*size, 3), np.uint8)
            cuda.upload(given.address, frame)

            def fit() -> None:
                cuda.download(found, engine.fit(given, size, STRETCH).address)
                cuda.synchronize()

            ms = milliseconds(fit, 30)
            levels = int(np.abs(found.astype(np.int16) - fit_frame(frame, size)).max())
        return {"ok": levels <= 1, "levels": levels, "ms": ms}

    def other_thread(self) -> dict[str, Any]:
        """ONNX Runtime keeps a CUDA graph for each thread: how long do the first frames of a new thread take?"""
        frames, engine = self._frames, self._open()
        here = milliseconds(lambda: engine.infer(frames[:1]), 20)
        times: list[Any] = []

        def work() -> None:
            try:
                for _ in range(5):
                    start = time.perf_counter()
                    engine.infer(frames[:1])
                    times.append(round((time.perf_counter() - start) * 1e3, 3))
            except Exception as error:
                times.append(str(error)[:300])

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        engine.close()
        ran = all(isinstance(each, float) for each in times)
        smooth = ran and (self._options.cpu or max(times) < 3 * here["p99"] + 1)  # a CPU may be busy with other work
        return {"ok": smooth, "this_thread_ms": here, "first_frames_of_the_other_ms": times}

    def opened_meanwhile(self) -> dict[str, Any]:
        """Engines without a CUDA graph are opened while another thread infers with one, as in a reload."""
        engine = self._open()
        errors: list[str] = []
        done = threading.Event()

        def work() -> None:
            try:
                for _ in range(5):
                    self._open(EXACT).close()
            except Exception as error:
                errors.append(f"opening: {error}"[:300])
            done.set()

        thread = threading.Thread(target=work)
        thread.start()
        count = 0
        while not done.is_set():
            try:
                engine.infer(self._frames[:1])
                count += 1
            except Exception as error:
                errors.append(f"inferring: {error}"[:300])
                break
        thread.join()
        engine.close()
        return {"ok": not errors, "frames": count, "errors": errors}
