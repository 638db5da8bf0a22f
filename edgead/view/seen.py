"""What the thread that decides leaves for the page: references only, the newest win, nothing waits."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import NamedTuple

from edgead.decision import Verdict
from edgead.runtime.result import Result

MOST_CAMERAS = 64
"""Cameras on the page. A recording may have any number of names."""
MOST_FACTS = 4096
"""Results between two looks of the page's thread; older ones are missing in its curves, not in its counts."""
MOST_REJECTS = 12
"""Rejects of a camera that are kept."""


class Fact(NamedTuple):
    """One result without its pictures.

    Attributes:
        camera: name of the source.
        verdict, cause, score, threshold: of the result; the score is NaN if nothing was inferred.
        total_ms: from picture made to decision.
        model: digest of the bundle's manifest, and recipe: scores of one model belong together.
        is_frame: not a report about the source.
    """

    camera: str
    verdict: Verdict
    cause: str
    score: float
    threshold: float
    total_ms: float
    model: tuple[str, str]
    is_frame: bool


class Seen:
    """Filled by the thread that decides, emptied by the page's thread. No lock: every step is one atomic operation.

    Attributes:
        latest: newest result of each camera, and when it came (`time.monotonic` seconds).
        pictured: newest result of each camera that has a frame, and when it came.
        facts: of all results.
        rejects: FAIL results of each camera, with their frames.
    """

    def __init__(self) -> None:
        self.latest: dict[str, tuple[Result, float]] = {}
        self.pictured: dict[str, tuple[Result, float]] = {}
        self.facts: deque[Fact] = deque(maxlen=MOST_FACTS)
        self.rejects: dict[str, deque[Result]] = {}

    def see(self, result: Result) -> None:
        """Keep what the page may need of a result. A few microseconds. Drift is no verdict: `Line.alarms` has it."""
        if result.cause == "drift":
            return
        camera, now = result.source_id, time.monotonic()
        if camera not in self.latest and len(self.latest) >= MOST_CAMERAS:
            return
        if result.frame is not None:
            self.pictured[camera] = result, now
            if result.verdict is Verdict.FAIL:
                self.rejects.setdefault(camera, deque(maxlen=MOST_REJECTS)).append(result)
        self.latest[camera] = result, now
        total = result.latency_ms.get("total", math.nan)
        self.facts.append(
            Fact(
                camera,
                result.verdict,
                result.cause,
                result.score,
                result.threshold,
                total,
                (result.bundle_digest, result.recipe),
                result.frame_id is not None,
            )
        )


def take_all(queue: deque[Result]) -> list[Result]:
    """Empty a queue that another thread fills."""
    taken: list[Result] = []
    while queue:
        taken.append(queue.popleft())
    return taken
