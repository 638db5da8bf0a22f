"""A Python function as a sink."""

from __future__ import annotations

from collections.abc import Callable

from edgead.runtime.result import Result


class Callback:
    """Calls a function with every result, in the sink's own thread.

    Args:
        function: what is called. What it raises counts as a failed result.
        wants_frames: results come with their frame.
    """

    def __init__(self, function: Callable[[Result], object], wants_frames: bool = False) -> None:
        self.function, self.wants_frames = function, wants_frames
        self.name = getattr(function, "__name__", "callback")

    def write(self, result: Result) -> None:
        self.function(result)

    def close(self) -> None:
        """Nothing is kept open."""
