"""ONNX Runtime's sessions, as the line and a student's training open them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgead.machine import overflows_int8, physical_cores

CPU = "CPUExecutionProvider"


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
