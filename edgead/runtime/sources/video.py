"""Video files: every frame, and an error in place of each damaged one."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

from edgead.errors import SourceError
from edgead.images import cv2
from edgead.runtime.sources.container import find_cut
from edgead.runtime.sources.live import Capture
from edgead.runtime.sources.pyav import PyAvCapture, has_pyav
from edgead.runtime.sources.source import Captured, FrameSource

BLIND = (
    "%s is read through OpenCV, which conceals damaged frames: they are judged like intact ones. "
    "To detect them:  pip install 'edgead[rtsp]'"
)
_BEFORE_KEY = "the video does not begin with a key frame; waiting for the next one"
_log = logging.getLogger("edgead")


class VideoSource(FrameSource):
    """All frames of a video file.

    Args:
        path: of the file.

    Raises:
        SourceError: it cannot be opened.
    """

    colour_only = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = str(path)  # the caller may rename the source
        try:
            self._cut = find_cut(path)
        except OSError as error:
            raise SourceError(f"Cannot read {path}: {error.strerror}.") from error
        self._capture = _open(path)
        if not self._capture.isOpened():
            cut = f": {self._cut}" if self._cut else ""
            raise SourceError(f"{path} is neither an image nor a readable video{cut}.")

    def read(self) -> Iterator[Captured]:
        frame_id, failed = 0, False
        while not self.stopped.is_set():
            there, image = self._capture.read()
            flaw = getattr(self._capture, "flaw", "") if there else getattr(self._capture, "error", "")
            if not there and flaw:
                flaw = f"the video cannot be read here: {flaw}"
            if not there and (failed or not flaw):
                break
            failed = not there
            yield Captured(
                image if there else None,
                flaw,
                self.name,
                frame_id,
                time.monotonic(),
                self._path,
                "unreadable" if flaw else "",
            )
            frame_id += 1
        else:
            return
        if self._cut:
            yield Captured(None, self._cut, self.name, frame_id, time.monotonic(), self._path, "unreadable")

    def close(self) -> None:
        self._capture.release()


def _open(path: Path) -> Capture:
    if has_pyav():
        return PyAvCapture(str(path), before_key=_BEFORE_KEY)
    capture: Capture = cv2().VideoCapture(str(path))
    if capture.isOpened():
        _log.warning(BLIND, path)
    return capture
