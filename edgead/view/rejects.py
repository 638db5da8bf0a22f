"""The last rejects of the cameras, for the strip and for marks."""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

from edgead.images import Frame
from edgead.runtime.result import Result
from edgead.view.pictures import LARGE_SIDE, LIVE_SIDE, SMALL_SIDE, Picture, draw, encode_jpeg, shrink, to_text
from edgead.view.seen import MOST_REJECTS

MOST_BYTES = 128_000_000
"""Of full frames in memory. Older rejects keep a reduced picture only."""


@dataclass(frozen=True)
class RejectState:
    """A reject in the strip. `mark` is empty if there is none."""

    id: str
    camera: str
    frame_id: int | None
    captured_at: str
    score: float
    threshold: float
    bundle: str
    mark: str = ""


class Reject:
    """A reject. Its pictures are encoded when somebody looks at it, once.

    Attributes:
        result: without its frame.
        frame: as captured, or a reduced copy of it.
        bytes: of the frame as captured; 0 for a reduced one.
    """

    def __init__(self, result: Result, frame: Frame) -> None:
        self.result, self.frame, self.bytes = dataclasses.replace(result, frame=None), frame, frame.nbytes

    @cached_property
    def small(self) -> str:
        """JPEG for the strip, base64."""
        return to_text(encode_jpeg(shrink(self.frame, SMALL_SIDE)))

    @cached_property
    def live(self) -> Picture:
        """The picture at the size of live ones."""
        return draw(self.result, self.frame, LIVE_SIDE)

    @cached_property
    def large(self) -> Picture:
        """The whole picture."""
        return draw(self.result, self.frame, LARGE_SIDE)

    def shed(self) -> None:
        """Release the full frame and keep a reduced one."""
        self.frame, self.bytes = shrink(self.frame, LIVE_SIDE).copy(), 0

    @property
    def is_full(self) -> bool:
        """The frame is as captured."""
        return self.bytes > 0

    def state(self, mark: str) -> RejectState:
        """Describe it in the strip."""
        result = self.result
        return RejectState(
            result.id,
            result.source_id,
            result.frame_id,
            result.captured_at,
            result.score,
            result.threshold,
            result.bundle,
            mark,
        )


class Rejects:
    """The last rejects of each camera. Thread-safe.

    Args:
        most_bytes: of full frames.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Reject] = OrderedDict()

    def add(self, result: Result) -> None:
        """Keep a reject and forget what is too much."""
        if result.frame is None:
            return
        with self._lock:
            self._kept[result.id] = Reject(result, result.frame)
            own = [each for each in self._kept.values() if each.result.source_id == result.source_id]
            for old in own[:-MOST_REJECTS]:
                del self._kept[old.result.id]
            left = self._most
            for reject in reversed(self._kept.values()):
                left -= reject.bytes
                if left < 0 and reject.is_full:
                    reject.shed()

    def get(self, result_id: str) -> Reject | None:
        """Return a kept reject by its result's id."""
        with self._lock:
            return self._kept.get(result_id)

    def of(self, camera: str) -> list[Reject]:
        """Return the rejects of a camera, newest first."""
        with self._lock:
            return [each for each in reversed(self._kept.values()) if each.result.source_id == camera]
