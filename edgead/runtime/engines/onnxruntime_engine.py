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
from edgead.onnx_session import CPU, new_session
from edgead.runtime.engines import EngineSpec, Opening, cpu_model, first_line
from edgead.runtime.engines.onnx_nodes import describe_refusal

_CUDA_FAILED = re.compile(r"(CUDA|CUDNN|CUDNN_FE|CUBLAS) (failure|error)|CUDA_PATH|BFCArena|Failed to allocate memory")


class ProviderError(DeviceError):
    """ONNX Runtime cannot use a provider on this machine."""


def open_cpu(bundle: Bundle, opening: Opening) -> OnnxRuntimeEngine:
    """Open a bundle on the CPU."""
    name = cpu_model(bundle)
    return OnnxRuntimeEngine(bundle.folder / name, content=bundle.content(name))


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
    except Exception as error:  # ONNX Runtime's errors have no common base but this
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
