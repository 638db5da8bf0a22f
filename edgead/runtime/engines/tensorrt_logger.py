"""What TensorRT says, for our own errors."""

from __future__ import annotations

import re
from collections import deque
from typing import Any

KEPT = 20
"""Errors that are kept, the latest ones: a stream runs for months."""
NO_MEMORY = re.compile(r"out ?of ?memory|bad_alloc|failed_allocation", re.IGNORECASE)


def make_logger(trt: Any) -> Any:
    """Make a logger whose `errors` are TensorRT's, each on one line."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        """TensorRT calls it from several threads."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=KEPT)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))

    return Logger()


def last_error(logger: Any, otherwise: str = "it gives no reason") -> str:
    """Return the latest error, for the middle of a sentence."""
    return _short(logger.errors[-1] if logger.errors else otherwise)


def memory_error(logger: Any) -> str:
    """Return the first error that is about memory, or nothing. What fails for it says less, and says it later."""
    return next((_short(error) for error in logger.errors if NO_MEMORY.search(error)), "")


def _short(error: str) -> str:
    return error[:300].rstrip(".")
