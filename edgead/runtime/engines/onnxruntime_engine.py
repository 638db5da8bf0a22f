"""ONNX Runtime on the CPU, the engine that runs on every machine."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import Bundle
from edgead.errors import BundleError, DeviceError, require
from edgead.machine import overflows_int8, physical_cores
from edgead.runtime.engines import EngineSpec, Opening, cpu_model, first_line
from edgead.runtime.engines.onnx_nodes import describe_refusal

CPU = "CPUExecutionProvider"
_CUDA_FAILED = re.compile(r"(CUDA|CUDNN|CUDNN_FE|CUBLAS) (failure|error)|CUDA_PATH|BFCArena|Failed to allocate memory")


class ProviderError(DeviceError):
    """ONNX Runtime cannot use a provider on this machine."""


def open_cpu(bundle: Bundle, opening: Opening) -> OnnxRuntimeEngine:
    """Open a bundle on the CPU."""
    name = cpu_model(bundle)
    return OnnxRuntimeEngine(bundle.path / name, content=bundle.content(name))


def new_session(
    ort: Any,
    graph: str | bytes,
    provider: str = CPU,
    provider_options: Mapping[str, str] | None = None,
    entries: Mapping[str, str] | None = None,
) -> Any:
    """Return a quiet session whose threads are not pinned and whose INT8 sums do not overflow.

    Without VNNI, processors add pairs of products of 8 bits with and without sign in 16 bits, which overflow. Weights
    without sign are asked for there: their products are added in 32 bits. ONNX Runtime 1.32 cannot do that where layers
    share a weight, as reverse steps do. Such a graph is opened as it is, and its golden frames tell if it overflows.
    """
    for exact in ("1", "0") if provider == CPU and overflows_int8() else ("0",):
        options = ort.SessionOptions()
        options.log_severity_level = 4 if exact == "1" else 3
        # An explicit number leaves the threads unpinned. Pinned by default, one of them waits whenever the calling
        # thread wakes on its core: an inference then takes 1.5 times as long.
        options.intra_op_num_threads = physical_cores()
        for key, value in {"session.x64quantprecision": exact, **(entries or {})}.items():
            options.add_session_config_entry(key, value)
        try:
            return ort.InferenceSession(
                graph,
                options,
                providers=[(provider, dict(provider_options or {}))],
                enable_fallback=0,  # it would print to standard output and open a second session on the CPU
            )
        except Exception:  # ONNX Runtime's errors have no common base but this
            if exact == "0":
                raise
    raise AssertionError("the last try returns or raises")


def open_session(
    model: Path,
    provider: str,
    provider_options: Mapping[str, str],
    *,
    as_written: bool = False,
    content: bytes | None = None,
    entries: Mapping[str, str] | None = None,
) -> Any:
    """Return ONNX Runtime's session of a graph on exactly one provider.

    If `content` is given, it is the checked content of the file, which is not read again. Q/DQ nodes are fused into
    INT8 operators, or with `as_written` computed as they are, in float32. `entries` of its session configuration are
    added last.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        BundleError: it cannot read the graph.
        ProviderError: it cannot use the provider here; with the reason.
    """
    ort = require("onnxruntime", "cpu")
    settings = {"session.disable_quant_qdq": "1"} if as_written else {}
    try:
        session = new_session(ort, content or str(model), provider, provider_options, {**settings, **(entries or {})})
    except Exception as error:  # as above
        if provider != CPU and _CUDA_FAILED.search(str(error)):
            raise _refused(ort, provider, first_line(error)) from error
        raise BundleError(describe_refusal("ONNX Runtime", ort.__version__, model, str(error))) from error
    if provider not in session.get_providers():
        raise _refused(ort, provider, why_not_loaded(Path(str(ort.__file__)).parent / "capi", provider))
    return session


def _refused(ort: Any, provider: str, reason: str) -> ProviderError:
    return ProviderError(f"ONNX Runtime {ort.__version__} cannot use {provider} here: {reason}\nSee:  edgead doctor")


def why_not_loaded(folder: Path, provider: str) -> str:
    """Return the system loader's words about a provider's library.

    Call it only after ONNX Runtime has failed to load the library: loaded before, it would not work.

    Args:
        folder: of ONNX Runtime's libraries.
        provider: its name.
    """
    library = folder / f"libonnxruntime_providers_{provider.replace('ExecutionProvider', '').lower()}.so"
    if not library.exists():
        return f"{library.name} is not part of this package."
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(library))
    except OSError as error:
        return f"{error}."
    return "no reason given."


class OnnxRuntimeEngine:
    """An `edgead.runtime.engines.Engine` on the CPU.

    Args:
        model: the graph.
        as_written, content, entries: see `open_session`.
    """

    def __init__(
        self,
        model: Path,
        *,
        as_written: bool = False,
        content: bytes | None = None,
        entries: Mapping[str, str] | None = None,
    ) -> None:
        self.name = "onnxruntime-cpu"
        self._session: Any = open_session(model, CPU, {}, as_written=as_written, content=content, entries=entries)

    def infer(self, frames: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        try:
            scores, maps = self._session.run(("scores", "maps"), {"frames": frames})
        except Exception as error:  # as above
            raise DeviceError(f"ONNX Runtime failed: {first_line(error)}") from error
        return scores, maps

    def close(self) -> None:
        self._session = None


SPEC = EngineSpec(open_cpu, "the CPU engine", "onnxruntime", "cpu")
