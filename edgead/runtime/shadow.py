"""A second bundle beside the one that decides: it sees the same frames, and its disagreements are reported."""

from __future__ import annotations

from collections.abc import Callable

from edgead.errors import DeviceError
from edgead.runtime.frame_inspector import FrameInspector
from edgead.runtime.result import Result


class Shadow:
    """A sink that inspects every frame it gets with another inspector. It never holds up the decision.

    When it is slower than the stream, frames are left out; the account of its worker says how many.

    Args:
        inspector: the challenger. May be replaced at any time; each frame goes to the one that is there.
        say: shows a line to a person, for each disagreement.
    """

    wants_frames = may_miss = True

    def __init__(self, inspector: FrameInspector, say: Callable[[str], None] = lambda text: None) -> None:
        self.name = f"shadow:{inspector.bundle.manifest.name}"
        self.inspector, self._say = inspector, say
        self._agreed = self._disagreed = 0

    def write(self, result: Result) -> None:
        # What the champion did not infer is no disagreement; and after an exchange its results may still come in.
        if result.frame is None or result.anomaly_map is None:
            return
        inspector = self.inspector
        if (inspector.bundle.manifest.digest, inspector.threshold) == (result.bundle_digest, result.threshold):
            return
        try:
            other = inspector.inspect(result.frame)
        except DeviceError:
            if inspector.closed and inspector is not self.inspector:  # it was replaced meanwhile
                return
            raise
        if other.verdict is result.verdict:
            self._agreed += 1
            return
        self._disagreed += 1
        self._say(
            f"Shadow: {result.source_id}#{result.frame_id}: {result.bundle} says {result.verdict.value} "
            f"({result.score:.6g}), {other.bundle} says {other.verdict.value} ({other.score:.6g})"
        )

    def account(self) -> dict[str, int]:
        """Return on how many frames the two agreed and disagreed."""
        return {"agreed": self._agreed, "disagreed": self._disagreed}

    def close(self) -> None:
        """The inspector belongs to whoever opened it."""
