"""A logger that keeps TensorRT's errors for edgead's messages, and the runtime that loads plans."""

from __future__ import annotations

import re
from collections import deque
from typing import Any

KEPT = 20
"""Number of errors kept, the latest ones: a stream runs for months."""
NO_MEMORY = re.compile(r"out ?of ?memory|bad_alloc|failed_allocation", re.IGNORECASE)


def make_logger(trt: Any) -> Any:
    """Return a logger with TensorRT's errors in `errors`, each on one line."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        """TensorRT calls it from several threads."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=KEPT)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))

    return Logger()


def open_runtime(trt: Any, logger: Any) -> Any:
    """Return TensorRT's runtime, which must outlive its engines.

    Raises:
        TypeError: it does not start. The logger has the reason.
    """
    # A plan may use NVIDIA's plug-ins: up to 9 the parser makes one of each InstanceNormalization. The process that
    # builds has them from its parser; the one that loads has not.
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(logger, "")
    return trt.Runtime(logger)


def last_error(logger: Any, otherwise: str = "no reason given") -> str:
    """Return the latest error, for the middle of a sentence."""
    return _short(logger.errors[-1] if logger.errors else otherwise)


def memory_error(logger: Any) -> str:
    """Return the first error about memory, or nothing. Later errors that follow from it say less."""
    return next((_short(error) for error in logger.errors if NO_MEMORY.search(error)), "")


def _short(error: str) -> str:
    return error[:300].rstrip(".")
