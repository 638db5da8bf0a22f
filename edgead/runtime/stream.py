"""A source through an inspector into sinks, with every frame accounted for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgead.decision import Verdict
from edgead.runtime.inspector import Inspector
from edgead.runtime.result import Result
from edgead.runtime.sinks import Sink
from edgead.runtime.sources import Source


@dataclass
class Ledger:
    """What became of the frames: ``captured = passed + failed + unknown + dropped``.

    `unknown` counts results without a decision, `dropped` the frames of a camera that a newer one overtook.
    """

    passed: int = 0
    failed: int = 0
    unknown: int = 0
    dropped: int = 0

    @property
    def captured(self) -> int:
        return self.passed + self.failed + self.unknown + self.dropped

    def count(self, result: Result) -> None:
        """Enter one result."""
        self.passed += result.verdict is Verdict.PASS
        self.failed += result.verdict is Verdict.FAIL
        self.unknown += result.verdict is Verdict.UNKNOWN


def run_stream(
    inspector: Inspector,
    source: Source,
    sinks: Sequence[Sink],
    ledger: Ledger,
    *,
    max_frames: int = 0,
    on_result: Callable[[Result], None] | None = None,
) -> None:
    """Inspect every frame of a source and hand each result to every sink, until the source ends.

    Args:
        inspector: decides.
        source: gives frames; closed at the end, also after an error.
        sinks: take results; closed at the end, also after an error.
        ledger: is kept up to date, so that it is right whenever this stops.
        max_frames: stop after that many results; 0 for no limit.
        on_result: called with each result after the sinks have it.
    """
    try:
        results = 0
        with source as frames:
            for captured in frames:
                result = inspector.judge(captured)
                for sink in sinks:
                    sink.write(result)
                ledger.count(result)
                if on_result:
                    on_result(result)
                results += 1
                if results == max_frames:
                    break
    finally:
        ledger.dropped = source.dropped
        for sink in sinks:
            sink.close()
