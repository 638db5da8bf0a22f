"""Step rtx: the graphs on edgead's TensorRT builder and engine, with tensorrt-rtx in place of TensorRT."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

from common import WORK, Options, attempt, milliseconds, report
from graphs import differences, frames_of, graphs_made

SHIM = '''"""tensorrt-rtx under the name of tensorrt."""
import sys, warnings
warnings.filterwarnings("ignore", category=DeprecationWarning)
import tensorrt_rtx_bindings as module

plain = module.ICudaEngine.create_execution_context


def eager(engine):
    # By default the first frames run on fall-back kernels, and a CUDA graph would record those.
    config = engine.create_runtime_config()
    config.dynamic_shapes_kernel_specialization_strategy = module.DynamicShapesKernelSpecializationStrategy.EAGER
    return plain(engine, config)


module.ICudaEngine.create_execution_context = eager
sys.modules[__name__] = module
'''


def write_shim() -> Path:
    """Write a module ``tensorrt`` that is tensorrt-rtx, and return its folder."""
    folder = WORK / "shim"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tensorrt.py").write_text(SHIM, encoding="utf-8")
    return folder


def rtx(options: Options) -> None:
    """Build and run every graph with edgead's TensorRT builder and engine, without a bundle around it."""
    from edgead.console import Console
    from edgead.machine import find_gpu
    from edgead.runtime.engines.cuda import Cuda
    from edgead.runtime.engines.tensorrt_build import BuildRequest, BuildSettings
    from edgead.runtime.engines.tensorrt_engine import TensorRtEngine, TensorRtSettings
    from edgead.runtime.engines.tensorrt_process import build_in_process

    trt = importlib.import_module("tensorrt")  # the shim
    capabilities = list(trt.ComputeCapability.__members__) if hasattr(trt, "ComputeCapability") else []
    gpu = None if options.cpu else dataclasses.asdict(find_gpu())
    report(what="versions", tensorrt_rtx=str(trt.__version__), builds_for=capabilities, gpu=gpu)
    folder = WORK / "plans"
    folder.mkdir(parents=True, exist_ok=True)

    def build(path: Path, size: tuple[int, int], plan: Path) -> dict[str, Any]:
        request = BuildRequest(str(path), size, (1,), str(plan), str(folder / "timing"), BuildSettings())
        return {"build": dataclasses.asdict(build_in_process(request, Console()))}

    def run(name: str, precision: str, plan: Path, cuda_graph: bool, mapped: str = "off") -> dict[str, Any]:
        frames = frames_of(name)
        size = (int(frames.shape[1]), int(frames.shape[2]))
        cuda = Cuda()
        try:
            settings = TensorRtSettings(cuda_graph=cuda_graph, mapped=mapped)
            engine = TensorRtEngine(plan.read_bytes(), size, trt, cuda, settings)
            found = differences(name, precision, engine.infer)
            times = milliseconds(lambda: engine.infer(frames[:1]), 50)
            return {"recorded": engine.recorded, **found, "ms": times}
        finally:
            cuda.close()

    def tried(name: str, precision: str, path: Path) -> None:
        frames, what, plan = frames_of(name), f"{name} {precision}", folder / f"{name}.{precision}.plan"
        size = (int(frames.shape[1]), int(frames.shape[2]))
        if attempt(f"{what}, built", lambda: build(path, size, plan)) and not options.cpu:
            attempt(f"{what}, CUDA graph", lambda: run(name, precision, plan, True))
            attempt(f"{what}, no CUDA graph", lambda: run(name, precision, plan, False))
            if precision == "fp16":
                attempt(f"{what}, CUDA graph, mapped memory", lambda: run(name, precision, plan, True, "on"))

    order = {"fp16": 0, "fp32": 1}  # INT8 last: its times say nothing about TensorRT
    for graph in sorted(graphs_made(), key=lambda each: order.get(each[1], 2)):
        tried(*graph)
