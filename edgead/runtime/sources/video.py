"""Video files: every frame, and an error in place of each damaged one."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

from edgead.errors import SourceError
from edgead.images import cv2, is_image_file
from edgead.runtime.sources.container import find_cut
from edgead.runtime.sources.live import Capture
from edgead.runtime.sources.pyav import PyAvCapture, has_pyav
from edgead.runtime.sources.source import Captured, FrameSource

BLIND = (
    "%s is read through OpenCV, which conceals damaged frames: they are judged like intact ones. "
    "To detect them:  pip install 'edgead[rtsp]'"
)
FORMATS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "m4v", "mjpeg", "h264", "hevc", "av1", "obu", "ivf"),
    *("flv", "asf", "ogg", "mxf", "nut", "gif", "yuv4mpegpipe", "dv", "rm", "wtv"),
)
"""FFmpeg's names of formats that hold the pictures themselves. Playlists name other files, or addresses."""
OPTIONS = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}
MJPEG = (".mjpeg", ".mjpg")
"""Suffixes of one JPEG behind the other; by its content, such a file is the first of them."""
_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"[playlist]", b"<?xml", b"<MPD")
_BEFORE_KEY = "the video does not begin with a key frame; waiting for the next one"
_log = logging.getLogger("edgead")


class VideoSource(FrameSource):
    """All frames of a video file.

    Args:
        path: of the file.

    Raises:
        SourceError: it cannot be opened, or it is a playlist.
    """

    colour_only = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path, self.paths = str(path), [path]  # the caller may rename the source
        try:
            self._cut, is_playlist = find_cut(path), _is_playlist(path)
        except OSError as error:
            raise SourceError(f"Cannot read {path}: {error.strerror}.") from error
        if is_playlist:
            raise SourceError(f"{path} is a playlist, which names other files. Name the video itself.")
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


def _is_playlist(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(16).startswith(_PLAYLISTS)


def _open(path: Path) -> Capture:
    if has_pyav():
        kind = "mjpeg" if path.suffix.lower() in MJPEG and is_image_file(path) else None  # not that of single images
        return PyAvCapture(str(path), OPTIONS, before_key=_BEFORE_KEY, kind=kind)
    capture: Capture = cv2().VideoCapture(str(path))
    if capture.isOpened():
        _log.warning(BLIND, path)
    return capture
