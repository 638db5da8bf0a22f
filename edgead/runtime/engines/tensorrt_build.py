"""From an ONNX graph to a TensorRT plan, for TensorRT 8.6, 10 and 11.

Run as a program, it builds one plan and reports on standard output, one JSON object per line:
`edgead.runtime.engines.tensorrt_process` reads them. Why a separate process: docs/adr/0014.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from edgead.errors import BundleError, ConfigError, DeviceError, EdgeadError
from edgead.runtime.engines.onnx_nodes import Node, read_nodes
from edgead.runtime.engines.onnx_types import float_types
from edgead.runtime.engines.tensorrt_logger import last_error, make_logger
from edgead.runtime.engines.tensorrt_types import find_unused, is_strong, network_flags, set_precision
from edgead.signatures.seal import read_sealed, write_sealed

REPORTED = 2
"""Parser errors in an error message."""


class BuildEvent(TypedDict, total=False):
    """One message of a build, a JSON object on one line of the building process's output.

    * ``strong``, ``precision``: once, the kind of network and the allowed types of a weakly typed one;
    * ``phase``, ``step``, ``steps``: the progress;
    * ``unused``: the allowed types that no layer of the plan has, where TensorRT tells;
    * ``unkept``: why the timing cache could not be written;
    * ``done``: at the end, the bytes of the plan;
    * ``error``, ``text``, ``number``: or the class, the text and, of an OSError, the number of an error.
    """

    strong: bool
    precision: list[str]
    phase: str
    step: int
    steps: int
    unused: list[str]
    unkept: str
    done: int
    error: str
    text: str
    number: int | None


Report = Callable[[BuildEvent], None]


@dataclass(frozen=True)
class BuildSettings:
    """Settings of a build, written ``tensorrt:opt_level=5,dla=0``.

    Attributes:
        typing: ``strong`` (the graph's types are the plan's), ``weak`` (flags allow what the graph's types ask for)
            or ``auto``: strong from TensorRT 10.12 on.
        opt_level: 0 (builds fast) to 5 (searches longest).
        workspace: MiB of scratch memory. The default suits a Jetson with 4 GB.
        dla: number of the deep learning accelerator to build for and run on, for a Jetson that has one; -1 for the GPU.
        tf32: let float32 convolutions round to TF32 on the GPU. Faster, and further from the golden outputs than a
            float32 bundle allows.
    """

    typing: str = "auto"
    opt_level: int = 3
    workspace: int = 1024
    dla: int = -1
    tf32: bool = False

    def __post_init__(self) -> None:
        if self.typing not in ("auto", "strong", "weak"):
            raise ConfigError(f"tensorrt:typing must be auto, strong or weak, not '{self.typing}'.")
        if not 0 <= self.opt_level <= 5:
            raise ConfigError(f"tensorrt:opt_level must be 0 to 5, not {self.opt_level}.")
        if self.workspace <= 0:
            raise ConfigError(f"tensorrt:workspace must be a positive number of MiB, not {self.workspace}.")
        if self.dla < -1:
            raise ConfigError(f"tensorrt:dla must be the number of a core, or -1 for the GPU, not {self.dla}.")


@dataclass(frozen=True)
class BuildRequest:
    """One plan to build.

    Attributes:
        model: the ONNX file.
        size: of a frame, (height, width) in pixels.
        batches: batch sizes of the plan, each with its own static profile.
        plan: the file to write.
        timing_cache: file with timings of earlier builds on this device; read if it exists, and written.
        settings: see `BuildSettings`.
        channels: of a frame.
        sha256: of the ONNX file, if known: another file is refused.
    """

    model: str
    size: tuple[int, int]
    batches: tuple[int, ...]
    plan: str
    timing_cache: str
    settings: BuildSettings
    channels: int = 3
    sha256: str = ""

    def shapes(self) -> list[tuple[int, int, int, int]]:
        """Return the shape of ``frames`` in each profile."""
        return [(batch, *self.size, self.channels) for batch in self.batches]


def build_plan(request: BuildRequest, trt: Any, report: Report = lambda event: None) -> Any:
    """Build a plan in this process.

    Args:
        request: what to build; `BuildRequest.plan` is not written here.
        trt: the module.
        report: called with each event; from TensorRT 10.0 on with the progress, from TensorRT's threads.

    Returns:
        TensorRT's memory with the plan in it.

    Raises:
        BundleError: the parser rejects the graph.
        ConfigError: a setting that this version or device does not have.
        DeviceError: the builder fails.
    """
    logger = make_logger(trt)
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # the only error that the bindings raise without a usable GPU
        raise DeviceError(f"TensorRT {trt.__version__} cannot build here: {last_error(logger, str(error))}.") from error
    strong = is_strong(trt, request.settings.typing)
    network = builder.create_network(network_flags(trt, strong))
    parser = trt.OnnxParser(network, logger)  # must outlive the network, which uses its weights
    content = Path(request.model).read_bytes()
    if request.sha256 not in ("", hashlib.sha256(content).hexdigest()):
        raise BundleError(f"{request.model} is damaged: it has changed since it was checked.")
    dla = request.settings.dla
    if dla >= 0 and hasattr(trt, "OnnxParserFlag") and hasattr(trt.OnnxParserFlag, "ADJUST_FOR_DLA"):  # since 10.16
        parser.set_flag(trt.OnnxParserFlag.ADJUST_FOR_DLA)
    if not parser.parse(content):
        raise BundleError(_explain(trt, parser, Path(request.model)))
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.settings.workspace << 20)
    config.builder_optimization_level = request.settings.opt_level
    if not request.settings.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    allowed = [] if strong else set_precision(trt, network, config, float_types(Path(request.model)))
    report({"strong": strong, "precision": allowed})
    if allowed:
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the plan then tells the types of its layers
    if dla >= 0:
        _use_dla(trt, builder, config, dla)
    for shape in request.shapes():
        profile = builder.create_optimization_profile()
        profile.set_shape("frames", shape, shape, shape)
        if config.add_optimization_profile(profile) < 0:
            raise DeviceError(
                f"TensorRT {trt.__version__} does not accept frames of shape {shape}: {last_error(logger)}."
            )
    _read_timing_cache(config, Path(request.timing_cache))
    if hasattr(trt, "IProgressMonitor"):  # since 9.0
        monitor = _make_monitor(trt, report)  # the configuration does not keep it alive
        config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise DeviceError(f"TensorRT {trt.__version__} could not build {request.model}: {last_error(logger)}.")
    try:
        _write_timing_cache(config, Path(request.timing_cache))
    except (OSError, ConfigError) as error:
        report({"unkept": getattr(error, "strerror", None) or str(error)})
    if allowed and (unused := find_unused(trt, logger, plan, allowed)):
        report({"unused": unused})
    return plan


def _use_dla(trt: Any, builder: Any, config: Any, core: int) -> None:
    if core >= builder.num_DLA_cores:
        raise ConfigError(
            f"dla={core} does not exist: TensorRT {trt.__version__} finds {builder.num_DLA_cores} DLA cores here.\n"
            "Leave out dla=, or see docs/tensorrt.md for the boards and versions that have one."
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)  # the accelerator knows few operators


def _explain(trt: Any, parser: Any, model: Path) -> str:
    """Return what the parser rejects: operator, node, part of the method, and the parser's own text."""
    nodes = read_nodes(model)
    lines = []
    for index in range(parser.num_errors):
        problem = parser.get_error(index)
        words = " ".join(str(problem.desc()).split())
        if hasattr(problem, "node_name") and problem.node_operator():  # since 10.0
            lines.append(f"{Node(problem.node_name(), problem.node_operator(), '').describe()}: {words}")
        elif 0 <= problem.node() < len(nodes):
            lines.append(f"{nodes[problem.node()].describe()}: {words}")
        else:
            lines.append(words)
    text = "\n".join(line[:300] for line in lines[:REPORTED]) or "no reason given"
    more = f" (and {len(lines) - REPORTED} more)" if len(lines) > REPORTED else ""
    return f"TensorRT {trt.__version__} cannot read {model}: {text}{more}"


def _read_timing_cache(config: Any, path: Path) -> None:
    """Use this user's timings of earlier builds. A cache that TensorRT rejects is replaced by an empty one."""
    cache = config.create_timing_cache(read_sealed(path))
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _write_timing_cache(config: Any, path: Path) -> None:
    cache = config.get_timing_cache()
    if cache is not None:
        write_sealed(path, bytes(memoryview(cache.serialize())))


def _make_monitor(trt: Any, report: Report) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Reports the progress of a build. TensorRT calls it from several threads."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
            self.steps[phase_name] = num_steps
            report({"phase": phase_name, "step": 0, "steps": num_steps})

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            report({"phase": phase_name, "step": step + 1, "steps": self.steps.get(phase_name, 0)})
            return True

    return Monitor()


def main() -> None:
    """Build the plan of the request in the first argument; report on standard output."""
    given = json.loads(sys.argv[1])
    request = BuildRequest(
        **{**given, "size": tuple(given["size"]), "batches": tuple(given["batches"])}
        | {"settings": BuildSettings(**given["settings"])}
    )
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # output of libraries must not mix with the events
    lock = threading.Lock()
    threading.Thread(target=_end_with_the_parent, daemon=True).start()

    def report(event: BuildEvent) -> None:
        with lock:
            events.write(json.dumps(event) + "\n")

    try:
        trt = importlib.import_module("tensorrt")
        plan = memoryview(build_plan(request, trt, report))
        with open(request.plan, "wb") as stream:
            stream.write(plan)
            stream.flush()
            os.fsync(stream.fileno())
        report({"done": len(plan)})
    except EdgeadError as error:
        report({"error": type(error).__name__, "text": str(error)})
    except OSError as error:
        report({"error": "OSError", "number": error.errno, "text": error.strerror or str(error)})
    except MemoryError:
        report({"error": "DeviceError", "text": "Out of memory while the engine was built. Try workspace=256."})
    except Exception as error:  # any error must reach the parent process
        text = " ".join(f"{type(error).__name__}: {error}".split())
        report({"error": "DeviceError", "text": f"TensorRT's builder failed: {text[:300].rstrip('.')}."})


def _end_with_the_parent() -> None:
    """End when the parent has ended for any reason: its end of the pipe is then closed."""
    os.read(0, 1)  # nothing is ever sent
    os._exit(1)


def as_json(request: BuildRequest) -> str:
    """Return the argument of `main`."""
    return json.dumps(dataclasses.asdict(request))


if __name__ == "__main__":
    main()
