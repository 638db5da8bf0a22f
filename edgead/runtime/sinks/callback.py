"""A Python function as a sink."""

from __future__ import annotations

from collections.abc import Callable

from edgead.errors import ConfigError
from edgead.runtime.result import Result
from edgead.runtime.sinks.sink import BaseSink


class Callback(BaseSink):
    """Calls a function with every result, in the sink's thread.

    Args:
        function: called with each result. Any exception, also `SystemExit`, counts as a failed result.
        wants_frames: results come with their frame.

    Raises:
        ConfigError: it is no function.
    """

    def __init__(self, function: Callable[[Result], object], wants_frames: bool = False) -> None:
        if not callable(function):
            raise ConfigError(f"A function is needed, not {function!r}.")
        super().__init__(getattr(function, "__name__", "callback"))
        self.function, self.wants_frames = function, wants_frames

    def write(self, result: Result) -> None:
        self.function(result)
