"""Network cameras and video files through PyAV (FFmpeg), with FFmpeg's options and errors per stream."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from typing import Any

from numpy.typing import NDArray

from edgead.errors import MissingDependencyError, is_installed, require
from edgead.runtime.clock import elapsed
from edgead.runtime.sources.decoding import Decoder, Picture

OPEN_S, READ_S = 8.0, 5.0
"""Timeouts of a network camera for opening and for the next frame. FFmpeg's probing alone takes 1 to 2 s."""
CAMERA = {
    "rtsp_transport": "tcp",  # lost UDP packets damage frames
    "reorder_queue_size": "2",  # FFmpeg compares RTP packet numbers only with a queue
    "allowed_media_types": "video",  # sound would shift the time stamps when it is synchronised
    "fflags": "nobuffer",  # a late frame is useless
    "flags": "low_delay",
}
_HOLD_BACK = {"rtsp": ("h264", "hevc")}
"""Codecs by format of which FFmpeg recognises the end of a picture by the beginning of the next one."""
_LOSSES = ("RTP: missed", "RTP: dropping", "Packet corrupt")
OLDEST = 16
"""Oldest PyAV with an FFmpeg that reports lost HEVC pictures and verifies ``rtsps://``; 14 and 15 do not."""


def has_pyav() -> bool:
    """Return whether an installed PyAV detects damage, without importing it."""
    try:
        return is_installed("av") and int(metadata.version("av").partition(".")[0]) >= OLDEST
    except (metadata.PackageNotFoundError, ValueError):
        return False


def require_pyav() -> Any:
    """Import PyAV.

    Raises:
        MissingDependencyError: it is missing or too old.
    """
    av = require("av", "rtsp")
    if not has_pyav():
        raise MissingDependencyError(
            f"PyAV {av.__version__} does not report every damaged frame; version {OLDEST} or newer is required.\n"
            "Install it with:  pip install --upgrade 'edgead[rtsp]'"
        )
    return av


class PyAvCapture:
    """A video stream, read as `edgead.runtime.sources.live.Capture`.

    Args:
        name: an address or a file.
        options: FFmpeg's.
        before_key: see `Decoder`.
        timeouts: seconds to open, and to read; None for a file.
        kind: FFmpeg's name of the format; None to recognise it.

    Attributes:
        error: why the last `read` failed; empty at the end. In a file, the next `read` may continue after the error.
        held: seconds for which FFmpeg has kept the last picture back, after it had begun to come.
    """

    def __init__(
        self,
        name: str,
        options: Mapping[str, str] | None = None,
        before_key: str = "",
        timeouts: tuple[float, float] | None = None,
        kind: str | None = None,
    ) -> None:
        av = require_pyav()
        self._errors = (av.FFmpegError, OSError)
        self.flaw, self.error, self.held = "", "", 0.0
        self.stamp: float | None = None
        self._pictures: deque[Picture] = deque()
        self._container: Any = None
        try:
            with _heard() as messages:
                self._container = av.open(name, format=kind, options=dict(options or {}), timeout=timeouts)
        except (*self._errors, ValueError):
            return
        self._video = next(iter(self._container.streams.video), None)
        if self._video is None or self._video.codec_context is None:  # no decoder
            self.release()
            return
        self._loss = find_loss(messages)
        codecs = _HOLD_BACK.get(self._container.format.name, ())
        self._holds_back, self._given_at = self._video.codec_context.codec.name in codecs, elapsed()
        self._packets = self._container.demux(self._video)
        try:
            self._decoder = Decoder(self._video, before_key)
        except ValueError:  # the parameters in its header are damaged
            self.release()

    def isOpened(self) -> bool:  # noqa: N802
        return self._container is not None

    def read(self) -> tuple[bool, NDArray[Any] | None]:
        while not self._pictures:
            if self._container is None or not (self._read_packet() or self._pictures):
                return False, None
        picture = self._pictures.popleft()
        self.flaw, self.stamp = picture.flaw, picture.stamp
        return True, picture.image

    def _read_packet(self) -> bool:
        """Read and decode one packet; return whether there was one."""
        self.error = ""
        with _heard() as messages:
            try:
                packet = next(self._packets, None)
            except self._errors as error:
                self.error = error.strerror or str(error)
                self._pictures.extend(self._decoder.interrupt(self.error))
                self._packets = self._container.demux(self._video)
                return False
            if packet is None:
                return False
            before_at, self._given_at = self._given_at, elapsed()
            if self._holds_back:  # what has just begun to come is the next one
                self.held = self._given_at - before_at
            # A picture is complete only when the next one begins, so a loss may belong to either.
            before, self._loss = self._loss, find_loss(messages) or _damage_of(packet)
            is_end = packet.dts is None and packet.size == 0
            more = self._decoder.end() if is_end else self._decoder.decode(packet, before or self._loss)
            self._pictures.extend(more)
        return True

    def release(self) -> None:
        container, self._container = self._container, None
        self._pictures.clear()
        if container is not None:
            with _heard():
                container.close()


def _damage_of(packet: Any) -> str:
    return "its file or stream is damaged there" if packet.is_corrupt else ""


def find_loss(messages: list[tuple[int, str, str]]) -> str:
    """Return FFmpeg's message about lost or damaged packets; empty for none."""
    return next((text.strip() for _, _, text in messages if text.startswith(_LOSSES)), "")


@contextmanager
def _heard() -> Iterator[list[tuple[int, str, str]]]:
    """Collect FFmpeg's log of this thread: lost packets are reported only there."""
    log = require("av.logging", "rtsp")
    level = log.get_level()
    if level is None:
        logging.getLogger("libav").propagate = False  # messages of FFmpeg's own threads
    if level is None or level < log.WARNING:
        log.set_level(log.WARNING)
    log.set_skip_repeated(False)  # repeats count across threads: one camera's loss would hide another's
    with log.Capture() as messages:
        yield messages
