"""What may look at the frames of a run beside the decision, and report about their source."""

from __future__ import annotations

from typing import Protocol

from edgead.images import Frame
from edgead.runtime.frame_inspector import FrameInspector
from edgead.runtime.result import Result


class Watch(Protocol):
    """Watches the inferred frames. It changes no verdict."""

    def see(self, inspector: FrameInspector, result: Result, fitted: Frame, live: bool) -> str:
        """Look at a frame, in the thread that decides: it must return at once.

        Args:
            inspector: that decided.
            result: of the frame.
            fitted: ``(h, w, C) uint8`` at the model's size; it is written again when this returns.
            live: the source cannot wait.

        Returns:
            What is to be reported about the source, cause ``drift``; empty for nothing.
        """

    def alarms(self) -> dict[str, list[str]]:
        """Return the present alarms by source, as sentences. Thread-safe."""

    def to_prometheus(self) -> str:
        """Return figures as Prometheus text. Thread-safe."""
