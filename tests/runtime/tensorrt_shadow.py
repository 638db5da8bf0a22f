"""Run edgead's builder and engine over the real bindings of one TensorRT version, without its libraries.

The bindings tell every class, method, argument and enum of their version; a shadow stands for each object and knows no
more than its class does. What our code asks for and the version has not ends in an AttributeError or TypeError, as it
would on a device. Run as a program: ``python tensorrt_shadow.py MODEL FOLDER`` prints what was touched as JSON, and
which attribute accesses of our modules did not run: what does not run is not compared with the bindings.
"""

from __future__ import annotations

import dis
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import CodeType, FrameType, SimpleNamespace
from typing import Any

import numpy as np

touched: set[str] = set()
did: set[str] = set()
"""Methods that were called and attributes that were set, with what."""
SIZE = (16, 24)
LAYERS = (("QUANTIZE", "q"), ("CAST", "single"), ("CONVOLUTION", "half"), ("SHUFFLE", ""), ("CONVOLUTION", "single"))
"""The network's layers: type, and the tensor of the graph that each makes."""
SHAPES = {"frames": (-1, *SIZE, 3), "scores": (-1,), "maps": (-1, *SIZE), "fitted": (-1, *SIZE, 3)}


class Accesses:
    """Records which attribute accesses of some source files run, by function, line and attribute.

    It works on instructions, so that the names of variables do not matter. Code outside functions is left out.
    """

    def __init__(self, files: list[Path]) -> None:
        self.ran: set[tuple[str, int, str]] = set()
        self._files = {str(file): file.stem for file in files}
        self._tables: dict[CodeType, dict[int, tuple[str, int, str]]] = {}

    def __enter__(self) -> Accesses:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def not_run(self) -> list[str]:
        """Return ``module.function:line attribute`` for each access that did not run."""
        missing = []
        for file, stem in self._files.items():
            for name, code in self._functions(compile(Path(file).read_text(), file, "exec"), stem):
                missing += [f"{name}:{each[1]} {each[2]}" for each in self._table(code, stem).values()
                            if each not in self.ran]  # fmt: skip
        return sorted(set(missing))

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        if code.co_filename not in self._files:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and (access := self._table(code, self._files[code.co_filename]).get(frame.f_lasti)):
            self.ran.add(access)
        return self._trace

    def _table(self, code: CodeType, stem: str) -> dict[int, tuple[str, int, str]]:
        if code not in self._tables:
            lines = {offset: line for start, stop, line in code.co_lines() for offset in range(start, stop)}
            self._tables[code] = {
                each.offset: (stem, lines[each.offset] or 0, str(each.argval))
                for each in dis.get_instructions(code)
                if each.opname in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR")
            }
        return self._tables[code]

    def _functions(self, code: CodeType, name: str) -> Iterator[tuple[str, CodeType]]:
        for inner in code.co_consts:
            if isinstance(inner, CodeType):
                path = name if inner.co_name.startswith("<") else f"{name}.{inner.co_name}"
                if inner.co_flags & inspect.CO_OPTIMIZED:
                    yield path, inner
                yield from self._functions(inner, path)


def split_arguments(text: str) -> list[str]:
    """Cut a signature's arguments at the commas outside brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += letter in "([{"
        depth -= letter in ")]}"
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


class Method:
    """A method of a shadow: checks its arguments against the bindings' signatures."""

    def __init__(self, owner: Shadow, name: str, text: str) -> None:
        self.owner, self.name = owner, name
        self.signatures = re.findall(rf"(?<!\w){name}\((self.*)\) -> (.+)", text)

    def __call__(self, *given: Any) -> Any:
        for arguments, result in self.signatures:
            known = split_arguments(arguments)[1:]
            needed = [each for each in known if "=" not in each]
            if len(needed) <= len(given) <= len(known):
                did.add(f"{self.name}({', '.join(map(str, given))})")
                return self.owner.trt.answer(self.owner, self.name, given, result.rpartition(".")[2].strip())
        raise TypeError(f"{self.owner.kind.__name__}.{self.name} takes {self.signatures}, not {given}")


class Shadow:
    """Stands for an object of one of TensorRT's classes."""

    def __init__(self, trt: Trt, kind: Any, number: int = 0) -> None:
        self.__dict__.update(trt=trt, kind=kind, number=number)

    def __getattr__(self, name: str) -> Any:
        member = getattr(self.kind, name)  # AttributeError where this version has none
        touched.add(f"{self.kind.__name__}.{name}")
        if callable(member):
            return Method(self, name, member.__doc__ or "")
        return self.trt.answer(self, name, (), "")

    def __setattr__(self, name: str, value: Any) -> None:
        getattr(self.kind, name)
        touched.add(f"{self.kind.__name__}.{name}")
        did.add(f"{self.kind.__name__}.{name} = {value}")


class Enum:
    """An enum of the module, whose members are recorded."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind

    def __getattr__(self, name: str) -> Any:
        member = getattr(self.kind, name)
        touched.add(f"{self.kind.__name__}.{name}")
        return member


class Trt:
    """The module."""

    def __init__(self, real: Any, **answers: Any) -> None:
        self.real, self.answers = real, answers

    def __getattr__(self, name: str) -> Any:
        member = getattr(self.real, name)
        touched.add(name)
        if name in self.answers:
            return self.answers[name]
        if name in ("Builder", "OnnxParser", "Runtime"):
            return lambda *given: Shadow(self, member)
        return Enum(member) if isinstance(member, type) and hasattr(member, "__members__") else member

    def answer(self, owner: Shadow, name: str, given: tuple[Any, ...], result: str) -> Any:
        """What an attribute or method gives: a fixed value, or the shadow of what the signature promises."""
        real, number = self.real, owner.number
        if name in self.answers:
            answer = self.answers[name]
            return answer(owner, *given) if callable(answer) else answer
        values: dict[str, Any] = {
            "parse": True,
            "num_errors": 1,
            "desc": "no importer",
            "node": 1,
            "node_name": "/gates.0/match/Odd",
            "node_operator": "Swizzle",
            "num_DLA_cores": 2,
            "add_optimization_profile": 0,
            "set_timing_cache": True,
            "serialize": b"cache",
            "build_serialized_network": b"plan",
            "num_layers": len(LAYERS),
            "num_outputs": 1,
            "num_inputs": 1,
            "type": getattr(real.LayerType, LAYERS[number % len(LAYERS)][0]),
            "name": LAYERS[number % len(LAYERS)][1],
            "dtype": real.float32,  # a weakly typed network need not tell what the graph has
            "is_shape_tensor": False,
            "get_engine_information": '{"Layers": [{"Name": "FP16", "Format/Datatype": "Row major linear FP32"}]}',
            "num_io_tensors": 3,
            "num_optimization_profiles": 2,
            "set_optimization_profile_async": True,
            "set_input_shape": True,
            "set_tensor_address": True,
            "execute_async_v3": True,
        }
        if name in values:
            return values[name]
        if name == "get_tensor_name":
            return list(SHAPES)[given[0]]
        if name == "get_tensor_dtype":
            return real.uint8 if given[0] == "frames" else real.float32
        if name == "get_tensor_shape":
            frames = 1 if given[0] == "fitted" else number
            return SHAPES[given[0]] if owner.kind is real.ICudaEngine else (frames, *SHAPES[given[0]][1:])
        if name == "get_tensor_profile_shape":
            return [(1 + 3 * given[1], *SHAPES["frames"][1:])] * 3
        if name == "create_execution_context":
            self.contexts = getattr(self, "contexts", 0) + 1
            return Shadow(self, real.IExecutionContext, 1 + 3 * (self.contexts - 1))
        if name in ("get_layer", "get_output", "get_input"):
            kind = real.ILayer if name == "get_layer" else real.ITensor
            return Shadow(self, kind, given[0] if name == "get_layer" else number)
        cpp_names = {"get_error": real.ParserError, "create_engine_inspector": real.EngineInspector}
        if name in cpp_names:  # whose signature gives the C++ name in some versions
            return Shadow(self, cpp_names[name])
        return Shadow(self, getattr(real, result)) if hasattr(real, result) else None


def build_in_every_typing(model: str, timing: str, trt: Any) -> dict[str, Any]:
    """Build strongly typed, weakly typed and as the version likes; return the events and calls, or the refusals."""
    from edgead.errors import ConfigError
    from edgead.runtime.engines import tensorrt_build as build

    flags, calls = {}, {}
    for typing in ("auto", "strong", "weak"):
        events: list[dict[str, Any]] = []
        settings = build.BuildSettings(typing=typing, dla=1)
        request = build.BuildRequest(model, SIZE, (1, 4), "x.part", timing, settings)
        did.clear()
        try:
            assert build.build_plan(request, Trt(trt), events.append) == b"plan"
        except ConfigError as error:
            flags[typing] = str(error)
            continue
        flags[typing] = {**events[0], "unused": next((each["unused"] for each in events if "unused" in each), [])}
        calls[typing] = sorted(did)
    return {"flags": flags, "did": calls}


def listen(trt: Any) -> None:
    """Call the logger and the progress monitor, as TensorRT does."""
    from edgead.runtime.engines import tensorrt_build as build
    from edgead.runtime.engines.tensorrt_logger import make_logger

    if hasattr(trt, "IProgressMonitor"):
        events: list[dict[str, Any]] = []
        monitor = build._make_monitor(Trt(trt), events.append)
        monitor.phase_start("phase", "", 2)
        assert monitor.step_complete("phase", 0)
        monitor.phase_finish("phase")
        assert events[-1] == {"phase": "phase", "step": 1, "steps": 2}
    logger = make_logger(Trt(trt))
    logger.log(trt.ILogger.Severity.ERROR, "bad\n news")
    logger.log(trt.ILogger.Severity.INFO, "news")
    assert list(logger.errors) == ["bad news"]


def starts_not(logger: Any) -> None:
    raise TypeError("pybind11::init(): factory function returned nullptr")


def refusals_of_builder(model: str, timing: str, trt: Any) -> dict[str, str]:
    """Build with every answer that ends a build, or a part of it."""
    from edgead.runtime.engines import tensorrt_build as build

    def refusal(answers: dict[str, Any], sha256: str = "", timing: str = timing) -> str:
        settings = build.BuildSettings(dla=0)
        request = build.BuildRequest(model, SIZE, (1,), "x.part", timing, settings, sha256=sha256)
        events: list[dict[str, Any]] = []
        text = refused(lambda: build.build_plan(request, Trt(trt, **answers), events.append))
        return text or str(next((event for event in events if "unkept" in event), "nothing"))

    return {
        "graph": refusal({"parse": False}),
        "node": refusal({"parse": False, "node_operator": ""}),
        "no node": refusal({"parse": False, "node_operator": "", "node": 99}),
        "start": refusal({"Builder": starts_not}),
        "changed": refusal({}, sha256="0"),
        "shape": refusal({"add_optimization_profile": -1}),
        "cores": refusal({"num_DLA_cores": 0}),
        "plan": refusal({"build_serialized_network": None}),
        "cache": refusal({"set_timing_cache": False, "serialize": b""}, timing=f"{model}/x.timing"),
    }


def infer(trt: Any) -> None:
    """Run six frames through an engine of two profiles, with CUDA graphs and without, copied and mapped."""
    from edgead.geometry import STRETCH
    from edgead.runtime.engines.cuda import Cuda
    from edgead.runtime.engines.device_frames import DeviceFrames
    from edgead.runtime.engines.tensorrt_engine import TensorRtEngine, TensorRtSettings

    for settings in (TensorRtSettings(dla=1), TensorRtSettings(mapped="on", cuda_graph=False)):
        cuda = Cuda()
        engine = TensorRtEngine(b"plan", SIZE, Trt(trt), cuda, settings, 3, lambda *_: b"plan")  # type: ignore[arg-type]
        frame = DeviceFrames(cuda.allocate(40 * 50 * 3), (1, 40, 50, 3), cuda.handle, None)
        assert "differs by" in refused(partial(engine.fit, frame, SIZE, STRETCH))  # no kernel has run
        scores, maps = engine.infer(np.zeros((6, *SIZE, 3), np.uint8))
        assert (scores.shape, maps.shape) == ((6,), (6, *SIZE))
        assert engine.recorded is settings.cuda_graph
        engine.close()


def refusals_of_engine(trt: Any) -> dict[str, str]:
    """Load a plan with every answer that ends it."""
    from edgead.runtime.engines.cuda import Cuda
    from edgead.runtime.engines.tensorrt_engine import TensorRtEngine, TensorRtSettings

    def context_of_other_shape(owner: Shadow, name: str) -> tuple[int, ...]:
        return SHAPES[name] if owner.kind is trt.ICudaEngine else (7,)

    def no_memory(logger: Any) -> Any:
        logger.log(trt.ILogger.Severity.ERROR, "out of memory")
        return SimpleNamespace(deserialize_cuda_engine=lambda plan: None)

    def refusal(**answers: Any) -> str:
        cuda, settings = Cuda(), TensorRtSettings()
        return refused(lambda: TensorRtEngine(b"plan", SIZE, Trt(trt, **answers), cuda, settings))

    return {
        "start": refusal(Runtime=starts_not),
        "plan": refusal(deserialize_cuda_engine=None),
        "memory": refusal(Runtime=no_memory),
        "name": refusal(get_tensor_name="images"),
        "type": refusal(get_tensor_dtype=trt.int32),
        "context": refusal(create_execution_context=None),
        "profile": refusal(set_optimization_profile_async=False),
        "frames": refusal(set_input_shape=False),
        "sides": refusal(get_tensor_shape=(-1, -1, -1, 3)),
        "shape": refusal(get_tensor_shape=context_of_other_shape),
        "address": refusal(set_tensor_address=False),
        "run": refusal(execute_async_v3=False),
    }


def refused(call: Callable[[], object]) -> str:
    """Return the error that a call ends with; empty where it does not."""
    from edgead.errors import EdgeadError

    try:
        call()
    except EdgeadError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def name_plan(model: str, trt: Any) -> str:
    """Return the version in the facts that a plan is cached under."""
    from edgead.runtime.engines.tensorrt_build import BuildSettings
    from edgead.runtime.engines.tensorrt_cache import find_plan

    manifest = SimpleNamespace(
        files={"model.onnx": ""}, size=SIZE, pixels=SimpleNamespace(channels=3), precision="fp32"
    )
    gpu: Any = SimpleNamespace(name="", capability="", driver="")
    bundle: Any = SimpleNamespace(manifest=manifest, model=model)
    return str(find_plan(bundle, Trt(trt), gpu, BuildSettings()).facts.tensorrt)


def main(model: str, folder: str) -> None:
    """Build and run in every way that this version allows."""
    import tensorrt_bindings as trt

    from edgead.runtime.engines import tensorrt_build as build
    from edgead.runtime.engines import tensorrt_types as types
    from edgead.runtime.engines.tensorrt_logger import make_logger

    timing = str(Path(folder, "x.timing"))
    with Accesses(sorted(Path(str(build.__file__)).parent.glob("tensorrt_*.py"))) as accesses:
        found = build_in_every_typing(model, timing, trt)
        if hasattr(trt.BuilderFlag, "FP16"):
            network, config = Shadow(Trt(trt), trt.INetworkDefinition), Shadow(Trt(trt), trt.IBuilderConfig)
            found["int8 alone"] = types.set_precision(Trt(trt), network, config, {"single": "float32", "q": "other"})
            tells_not = [
                types.find_unused(Trt(trt, **answers), make_logger(trt), b"plan", ["int8", "fp16"])
                for answers in (
                    {"get_engine_information": "{}"},
                    {"deserialize_cuda_engine": None},
                    {"Runtime": starts_not},
                )
            ]
            assert tells_not == [[], [], []]
            told = (
                '{"Datatype": "Half"}, {"Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}'
            )
            shadow = Trt(trt, get_engine_information=told)
            assert types.find_unused(shadow, make_logger(trt), b"plan", ["int8", "fp16"]) == []
        listen(trt)
        infer(trt)
        found |= {
            "version": name_plan(model, trt),
            "builder refuses": refusals_of_builder(model, timing, trt),
            "engine refuses": refusals_of_engine(trt),
        }
    print(json.dumps({**found, "touched": sorted(touched), "not run": accesses.not_run()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
