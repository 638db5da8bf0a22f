"""Network cameras through PyAV: the same FFmpeg, with options of its own for each camera.

OpenCV takes FFmpeg's options from the environment of the whole process; PyAV gives each camera its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from edgead.errors import require
from edgead.images import COLOUR, PixelFormat
from edgead.runtime.sources.cameras import OPEN_MS, READ_MS, explain_network
from edgead.runtime.sources.live import LiveSource
from edgead.runtime.sources.source import Source
from edgead.runtime.sources.uri import redact

OPTIONS = {"rtsp_transport": "tcp", "fflags": "nobuffer", "flags": "low_delay"}
"""The reasons are those of `edgead.runtime.sources.cameras.FFMPEG_OPTIONS`."""


def open_pyav(uri: str, pixels: PixelFormat = COLOUR) -> Source:
    """``av+rtsp://user:password@host/path``: what FFmpeg opens by the name after ``av+``.

    Raises:
        MissingDependencyError: PyAV is not installed.
        SourceError: nothing answers, or it refuses.
    """
    require("av", "rtsp")
    target = uri.removeprefix("av+")
    return LiveSource(redact(uri), lambda: PyAvCapture(target), lambda: explain_network(target))


class PyAvCapture:
    """A stream of video, read as `edgead.runtime.sources.live.Capture`."""

    def __init__(self, name: str) -> None:
        av = require("av", "rtsp")
        self._errors = (av.FFmpegError, OSError)
        self._frames: Iterator[Any] | None = None
        try:
            self._container = av.open(name, options=OPTIONS, timeout=(OPEN_MS / 1e3, READ_MS / 1e3))
        except self._errors:
            self._container = None
            return
        video = next(iter(self._container.streams.video), None)
        if video is None:
            self.release()
            return
        video.thread_type = "SLICE"  # threads over frames hold back as many frames as there are threads
        self._frames = self._container.decode(video)

    def isOpened(self) -> bool:  # noqa: N802
        return self._frames is not None

    def read(self) -> tuple[bool, NDArray[Any] | None]:
        try:
            frame = next(self._frames) if self._frames else None
        except (StopIteration, *self._errors):
            frame = None
        return frame is not None, frame.to_ndarray(format="bgr24") if frame is not None else None

    def release(self) -> None:
        container, self._container, self._frames = self._container, None, None
        if container is not None:
            container.close()
