"""ONNX Runtime's sessions, as the line and a student's training open them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from edgead.machine import overflows_int8, physical_cores

CPU = "CPUExecutionProvider"
EXACT_INT8 = "session.x64quantprecision"


def new_session(
    ort: Any,
    graph: str | bytes,
    provider: str = CPU,
    provider_options: Mapping[str, str] | None = None,
    entries: Mapping[str, str] | None = None,
) -> Any:
    """Return a quiet session whose threads are not pinned and whose INT8 sums do not overflow.

    Without VNNI, processors add pairs of products of signed and unsigned 8-bit numbers in 16 bits, which overflow.
    There, unsigned weights are requested: their products are added in 32 bits. ONNX Runtime 1.32 fails to convert the
    weights of a graph whose layers share them, such as reverse steps. It is opened with the sums that may overflow, and
    the golden frames tell whether they do.

    Args:
        ort: the module ``onnxruntime``.
        graph: path of the ONNX file, or its content.
        provider, provider_options: the execution provider, and its options.
        entries: of the session's configuration.

    Raises:
        Exception: ONNX Runtime's own.
    """

    def start(exact: bool) -> Any:
        options = ort.SessionOptions()
        options.log_severity_level = 4 if exact else 3  # the conversion that fails would be logged
        # An explicit number leaves the threads unpinned. Pinned by default, one of them waits whenever the calling
        # thread wakes on its core: an inference then takes 1.5 times as long.
        options.intra_op_num_threads = physical_cores()
        if exact:
            options.add_session_config_entry(EXACT_INT8, "1")
        for key, value in (entries or {}).items():
            options.add_session_config_entry(key, value)
        return ort.InferenceSession(
            graph,
            options,
            providers=[(provider, dict(provider_options or {}))],
            enable_fallback=0,  # it would print to standard output and open a second session on the CPU
        )

    if provider == CPU and overflows_int8():
        with contextlib.suppress(Exception):  # ONNX Runtime's errors have no common base but this
            return start(exact=True)
    return start(exact=False)
