"""Run edgead's builder and engine over the real bindings of one TensorRT version, without its libraries.

The bindings tell every class, method, argument and enum of their version; a shadow stands for each object and knows no
more than its class does. What our code asks for and the version has not ends in an AttributeError or TypeError, as it
would on a device. Run as a program: ``python tensorrt_shadow.py MODEL FOLDER`` prints what was touched as JSON.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

touched: set[str] = set()
did: set[str] = set()
"""Methods that were called and attributes that were set, with what."""
SIZE = (16, 24)
SHAPES = {"frames": (-1, *SIZE, 3), "scores": (-1,), "maps": (-1, *SIZE)}


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

    def __init__(self, real: Any, parses: bool = True, half: bool = True) -> None:
        self.real, self.parses, self.half = real, parses, half

    def __getattr__(self, name: str) -> Any:
        member = getattr(self.real, name)
        touched.add(name)
        if name in ("Builder", "OnnxParser", "Runtime"):
            return lambda *given: Shadow(self, member)
        return Enum(member) if isinstance(member, type) and hasattr(member, "__members__") else member

    def answer(self, owner: Shadow, name: str, given: tuple[Any, ...], result: str) -> Any:
        """What an attribute or method gives: a fixed value, or the shadow of what the signature promises."""
        real, number = self.real, owner.number
        values: dict[str, Any] = {
            "parse": self.parses,
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
            "num_layers": 4,
            "num_outputs": 1,
            "type": [real.LayerType.QUANTIZE, real.LayerType.CAST, real.LayerType.CONVOLUTION][min(number, 2)],
            "dtype": real.float16 if number == 2 and self.half else real.float32,
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
            return SHAPES[given[0]] if owner.kind is real.ICudaEngine else (number, *SHAPES[given[0]][1:])
        if name == "get_tensor_profile_shape":
            return [(1 + 3 * given[1], *SHAPES["frames"][1:])] * 3
        if name == "create_execution_context":
            self.contexts = getattr(self, "contexts", 0) + 1
            return Shadow(self, real.IExecutionContext, 1 + 3 * (self.contexts - 1))
        if name in ("get_layer", "get_output"):
            kind = real.ILayer if name == "get_layer" else real.ITensor
            return Shadow(self, kind, given[0] if name == "get_layer" else number)
        if name == "get_error":  # whose signature gives the C++ name
            return Shadow(self, real.ParserError)
        return Shadow(self, getattr(real, result)) if hasattr(real, result) else None


def main(model: str, folder: str) -> None:
    """Build and run in every way that this version allows."""
    import tensorrt_bindings

    from edgead.errors import BundleError, ConfigError
    from edgead.runtime.engines import tensorrt_build as build
    from edgead.runtime.engines.cuda import Cuda
    from edgead.runtime.engines.tensorrt_engine import TensorRtEngine, TensorRtSettings
    from edgead.runtime.engines.tensorrt_logger import make_logger

    found: dict[str, Any] = {"version": tensorrt_bindings.__version__, "flags": {}, "did": {}}
    timing = str(Path(folder, "x.timing"))
    for typing in ("auto", "strong", "weak"):
        events: list[dict[str, Any]] = []
        settings = build.BuildSettings(typing=typing, dla=1)
        request = build.BuildRequest(model, SIZE, (1, 4), "x.part", timing, settings)
        trt = Trt(tensorrt_bindings)
        did.clear()
        try:
            assert build.build_plan(request, trt, events.append) == b"plan"
        except ConfigError as error:
            found["flags"][typing] = str(error)
            continue
        found["flags"][typing] = events[0]
        found["did"][typing] = sorted(did)
    if hasattr(tensorrt_bindings.BuilderFlag, "FP16"):
        trt = Trt(tensorrt_bindings, half=False)
        network, config = (
            Shadow(trt, tensorrt_bindings.INetworkDefinition),
            Shadow(trt, tensorrt_bindings.IBuilderConfig),
        )
        found["int8 alone"] = build.set_precision(trt, network, config)
    if hasattr(tensorrt_bindings, "IProgressMonitor"):
        monitor = build._make_monitor(Trt(tensorrt_bindings), events.append)
        monitor.phase_start("phase", "", 2)
        assert monitor.step_complete("phase", 0)
        monitor.phase_finish("phase")
        assert events[-1] == {"phase": "phase", "step": 1, "steps": 2}
    logger = make_logger(Trt(tensorrt_bindings))
    logger.log(tensorrt_bindings.ILogger.Severity.ERROR, "bad\n news")
    logger.log(tensorrt_bindings.ILogger.Severity.INFO, "news")
    assert list(logger.errors) == ["bad news"]
    try:
        request = build.BuildRequest(model, SIZE, (1,), "x.part", timing, build.BuildSettings())
        build.build_plan(request, Trt(tensorrt_bindings, parses=False))
    except BundleError as error:
        found["refusal"] = str(error)
    settings = TensorRtSettings(dla=1)
    engine = TensorRtEngine(b"plan", SIZE, Trt(tensorrt_bindings), Cuda(), settings)  # type: ignore[arg-type]
    scores, maps = engine.infer(np.zeros((6, *SIZE, 3), np.uint8))
    assert (scores.shape, maps.shape) == ((6,), (6, *SIZE))
    engine.close()
    print(json.dumps({**found, "touched": sorted(touched)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
