"""Cameras: sources that are reopened whenever the connection is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from numpy.typing import NDArray

from edgead.errors import SourceError
from edgead.images import cv2
from edgead.runtime.clock import elapsed, standstill
from edgead.runtime.sources.age import GAP, PictureClock
from edgead.runtime.sources.source import Captured, FrameSource

FIRST_DELAY, LONGEST_DELAY = 0.5, 10.0
"""Seconds between two attempts to reopen a camera: doubled after each, up to the longest."""


class Capture(Protocol):
    """The interface of OpenCV's VideoCapture. Each `read` may also set attributes:

    * ``stamp: float | None``: media time of the picture in seconds, from any origin.
    * ``flaw: str``: why the picture must not be judged; empty if it is intact.
    * ``held: float``: seconds for which the picture was kept back after it had come.
    """

    def isOpened(self) -> bool: ...  # noqa: N802

    def read(self) -> tuple[bool, NDArray[Any] | None]: ...

    def release(self) -> None: ...


class CameraError(SourceError):
    """A camera that cannot be opened now, but perhaps later. `name` is its name in results."""

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.name = name


class LiveSource(FrameSource):
    """A camera. If the connection is lost, that is reported once, and the camera is reopened without a time limit.

    The first opening is not retried here, so that a wrong name or password shows at once. If other sources run,
    `edgead.runtime.sources.opening` retries it.

    Args:
        name: its name in results, without credentials.
        open_capture: opens the object that frames are read from.
        explain: returns why it could not be opened.
        reconnect: reopen it after a loss; otherwise the source ends there.
        local: a device that buffers only its newest few pictures, see `edgead.runtime.sources.age.Pace`.

    Raises:
        CameraError: it cannot be opened.
    """

    live = colour_only = True

    def __init__(
        self,
        name: str,
        open_capture: Callable[[], Capture],
        explain: Callable[[], str] | None = None,
        reconnect: bool = True,
        local: bool = False,
    ) -> None:
        super().__init__(name)
        self._open, self._reconnect, self._local = open_capture, reconnect, local
        self._capture = self._try_to_open()
        if self._capture is None:
            raise CameraError(explain() if explain else f"The camera {name} cannot be opened.", name)

    def _try_to_open(self) -> Capture | None:
        capture = self._open()
        if capture.isOpened():
            self._opened_at = elapsed()
            return capture
        capture.release()
        return None

    def read(self) -> Iterator[Captured]:
        frame_id, delay, clock = 0, FIRST_DELAY, PictureClock(self._local)
        if elapsed() - self._opened_at > GAP:  # nobody has read since: buffered pictures are of unknown age
            self.close()
            self._capture = self._reopen()
        while not self.stopped.is_set():
            if self._capture is None:
                self.stopped.wait(delay)
                delay = min(2 * delay, LONGEST_DELAY)
                self._capture, clock = self._reopen(), PictureClock(self._local)
                continue
            began, read_at = elapsed(), time.monotonic()
            there, image = self._capture.read()
            if there:
                stamp, held = getattr(self._capture, "stamp", None), getattr(self._capture, "held", 0.0)
                age = clock.age(began, elapsed(), stamp, standstill.since(read_at) > 0, held)
                yield self._captured(self._capture, image, frame_id, age, clock.unsure)
                frame_id, delay = frame_id + 1, FIRST_DELAY
                continue
            if self.stopped.is_set():  # the end of the run is no loss
                return
            self.close()
            error = f"camera {self.name} stopped" + ("; it is reopened as soon as it is back" * self._reconnect)
            yield Captured(None, error, self.name, None, time.monotonic(), cause="lost")
            if not self._reconnect:
                return

    def _reopen(self) -> Capture | None:
        return None if self.stopped.is_set() else self._try_to_open()

    def _captured(
        self, capture: Capture, image: NDArray[Any] | None, frame_id: int, age: float, unsure: bool
    ) -> Captured:
        flaw, now = getattr(capture, "flaw", ""), time.monotonic()
        cause = "unreadable" if flaw else ""
        return Captured(image, flaw, self.name, frame_id, now, cause=cause, t_made=now - age, unsure=unsure)

    def close(self) -> None:
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()


class CameraSource(LiveSource):
    """A camera by OpenCV's number.

    Args:
        index: the number.
        open_capture: opens it; None for OpenCV.
        reconnect: see `LiveSource`.
    """

    def __init__(
        self, index: int, open_capture: Callable[[int], Capture] | None = None, reconnect: bool = False
    ) -> None:
        opener: Callable[[int], Capture] = open_capture or cv2().VideoCapture
        text = f"Camera {index} cannot be opened. Is it connected, and free?  See:  v4l2-ctl --list-devices"
        super().__init__(str(index), lambda: opener(index), lambda: text, reconnect, local=True)
