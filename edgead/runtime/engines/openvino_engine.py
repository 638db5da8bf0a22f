"""OpenVINO: usually the fastest engine on an x86 CPU."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import Bundle
from edgead.errors import BundleError, DeviceError, require
from edgead.runtime.engines import EngineSpec, Opening, cpu_model, first_line
from edgead.runtime.engines.onnx_nodes import describe_refusal

_making = threading.Lock()


@dataclass(frozen=True)
class OpenVinoSettings:
    """Settings, written ``openvino:hint=throughput``.

    Attributes:
        hint: ``latency``: all cores work on one frame or batch. ``throughput``: each frame of a batch is a separate
            request on its share of the cores, for several sources with ``--batch``; a single frame then takes longer.
    """

    hint: Literal["latency", "throughput"] = "latency"


def open_exact(bundle: Bundle, opening: Opening) -> OpenVinoEngine:
    """Open a bundle with float32 arithmetic, which agrees with the reference outputs."""
    return _open(bundle, "f32", "openvino-cpu", opening.settings.hint, opening.batch)


def open_bf16(bundle: Bundle, opening: Opening) -> OpenVinoEngine:
    """Open a bundle with bfloat16 arithmetic if the CPU has it: faster with AMX, but less exact."""
    return _open(bundle, "bf16", "openvino-cpu-bf16", opening.settings.hint, opening.batch)


def _open(bundle: Bundle, arithmetic: str, name: str, hint: str, batch: int) -> OpenVinoEngine:
    graph = cpu_model(bundle)
    return OpenVinoEngine(bundle.folder / graph, arithmetic, name, hint, batch, content=bundle.content(graph))


@cache
def _first_core() -> tuple[Any, int]:
    """Make the only Core; also return the number of the process that has made it.

    It is never released. OpenVINO's CPU plugin installs a signal handler stack in the thread that loads it and unmaps
    that stack with the last Core, in any thread. The next signal, Ctrl-C or the end of a child, would then cause a
    segmentation fault (seen with 2026.4).
    """
    openvino = require("openvino", "cpu")
    # Its Python binding makes a table of types at the first inference, and gives the interpreter's lock away meanwhile.
    # A second thread's first inference then takes that lock and waits for the table: the process stands still for ever.
    openvino.Type.u8.to_dtype()
    return openvino.Core(), os.getpid()


def the_core() -> Any:
    """Return the only Core of this process.

    Raises:
        DeviceError: the process was forked from one that had used OpenVINO. Its threads are not in the copy, so that a
            call may wait for them for ever.
    """
    with _making:  # two threads that load a bundle at once would make one each
        core, process = _first_core()
    if process != os.getpid():
        raise DeviceError(
            "OpenVINO was used before this process was forked, and may hang in the copy.\n"
            "Start processes with multiprocessing's 'spawn', or use the engine onnxruntime."
        )
    return core


class OpenVinoEngine:
    """An `edgead.runtime.engines.Engine`.

    Args:
        model: the graph.
        arithmetic: ``"f32"`` or ``"bf16"``. OpenVINO's default is bf16 if the CPU has it, which changes scores by
            far more than the bundle's tolerance.
        name: of the engine.
        hint: see `OpenVinoSettings`.
        batch: frames that one inference may take. With 1 the graph is compiled for exactly one frame, which is faster
            (docs/adr/0063); a call with several then infers them one after the other. With ``throughput`` it is the
            number of requests of one frame each.
        content: of `model`, if it is already read and checked.
    """

    def __init__(
        self,
        model: Path,
        arithmetic: str,
        name: str,
        hint: str = "latency",
        batch: int = 1,
        content: bytes | None = None,
    ) -> None:
        self.name, self.exact = name, arithmetic == "f32"
        openvino = require("openvino", "cpu")
        settings = {"PERFORMANCE_HINT": hint.upper(), "INFERENCE_PRECISION_HINT": arithmetic}
        core = the_core()
        self._singly = batch == 1 or hint == "throughput"
        try:
            graph = core.read_model(content or str(model))
            if self._singly:
                graph.reshape([1, *graph.input(0).partial_shape[1:]])
            self._compiled = core.compile_model(graph, "CPU", settings)
        except Exception as error:  # OpenVINO raises RuntimeError for everything
            version = openvino.__version__.partition("-")[0]
            raise BundleError(describe_refusal("OpenVINO", version, model, str(error))) from error
        count = batch if hint == "throughput" else 1
        self._requests = [self._compiled.create_infer_request() for _ in range(count)]
        self._scores, self._maps = (self._compiled.output(name) for name in ("scores", "maps"))

    def infer(self, frames: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        try:
            if len(frames) == 1 or not self._singly:
                outputs = self._requests[0].infer({"frames": frames}, share_inputs=True, share_outputs=True)
                # The next frame overwrites the request's buffers.
                return outputs[self._scores].copy(), outputs[self._maps].copy()
            return self._infer_each(frames)
        except Exception as error:  # as above
            self._wait_for_all()
            raise DeviceError(f"OpenVINO failed: {first_line(error)}") from error

    def _infer_each(self, frames: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run every frame as a separate request, as many at once as there are requests."""
        scores, maps = np.empty(len(frames), np.float32), np.empty(frames.shape[:3], np.float32)
        for start in range(0, len(frames), len(self._requests)):
            running = list(enumerate(self._requests[: len(frames) - start], start))
            for index, request in running:
                request.start_async({"frames": frames[index : index + 1]}, share_inputs=True)
            for index, request in running:
                request.wait()
                scores[index] = request.get_tensor(self._scores).data[0]
                maps[index] = request.get_tensor(self._maps).data[0]
        return scores, maps

    def _wait_for_all(self) -> None:
        """Wait after a failed request: the others still read the frames and would be busy at the next call."""
        for request in self._requests:
            with contextlib.suppress(Exception):
                request.wait()

    def close(self) -> None:
        self._requests, self._compiled = [], None


SPEC = EngineSpec(open_exact, "the faster engine on many x86 CPUs", "openvino", "cpu", OpenVinoSettings)
BF16_SPEC = EngineSpec(open_bf16, "OpenVINO in bfloat16, less exact", "openvino", "cpu", OpenVinoSettings, exact=False)
