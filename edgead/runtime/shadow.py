"""A second bundle that inspects the same frames without deciding; disagreements are reported."""

from __future__ import annotations

from collections.abc import Callable

from edgead.decision import Verdict
from edgead.errors import DeviceError
from edgead.runtime.frame_inspector import FrameInspector
from edgead.runtime.result import Result


class Shadow:
    """A sink that inspects frames with another inspector. It never delays the decision.

    If it is slower than the stream, it skips frames; its worker's account counts them.

    Args:
        inspector: the challenger; None while there is none. It may be replaced at any time.
        say: shows a line for each disagreement.
        name: of the shadow in the account of sinks, where there is no inspector yet.
    """

    wants_frames = may_miss = True

    def __init__(
        self, inspector: FrameInspector | None, say: Callable[[str], None] = lambda text: None, name: str = ""
    ) -> None:
        self.name = f"shadow:{inspector.bundle.manifest.name if inspector else name}"
        self.inspector, self._say = inspector, say
        self._agreed = self._disagreed = 0

    def write(self, result: Result) -> None:
        # Without a champion's inference there is nothing to compare; after an exchange, older results may still arrive.
        if result.frame is None or result.anomaly_map is None:
            return
        if result.verdict is Verdict.UNKNOWN and result.cause != "score":
            return  # late, or of a damaged frame: no bundle said so
        inspector = self.inspector
        if inspector is None:
            return
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
        """Return the numbers of frames with agreement and disagreement."""
        return {"agreed": self._agreed, "disagreed": self._disagreed}

    def close(self) -> None:
        """Do nothing: the caller closes the inspector."""
