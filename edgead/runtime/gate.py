"""What may stand between a stream's sources and its engine, and between its results and the sinks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from edgead.runtime.frame_inspector import FrameInspector
from edgead.runtime.result import Result
from edgead.runtime.sources.source import Captured
from edgead.runtime.stream import Stream


class Gate(Protocol):
    """Chooses the frames that are inspected, and the results that the sinks get. Without one, these are all of them.

    `admit`, `inspector` and `drop` are called by the threads of the sources, the others by the thread that decides.
    """

    def begin(self, stream: Stream, send: Callable[[Result], None]) -> None:
        """Called once, before the first frame. `send` passes a result to the sinks; one thread at a time may call it.

        Raises:
            EdgeadError: the run cannot start.
        """

    def meet(self, sinks: Sequence[object]) -> None:
        """Called once, before `begin`, with the run's sinks: some of them also give orders."""

    def admit(self, source: str, captured: Captured) -> str:
        """Return why a frame is not inspected, one word; empty if it is. It must return at once and not raise.

        Args:
            source: name of the stream's source.
            captured: an entered frame.
        """

    def inspector(self, captured: Captured) -> FrameInspector | None:
        """Return which of the inspectors that `Stream.warm` was called with decides on an admitted frame.

        None stands for the stream's own.
        """

    def drop(self, captured: Captured, cause: str) -> None:
        """Called for every frame without a result. It must not raise."""

    def take(self, result: Result) -> None:
        """Called with each result of the stream, in order."""

    def close(self) -> None:
        """Send what is left and release everything. The stream has ended, or did not begin. May be called again."""

    def summary(self) -> dict[str, Any]:
        """Return figures for the summary of a run, as JSON values."""

    def to_prometheus(self) -> str:
        """Return the same figures as Prometheus text."""
