"""Network cameras: ``rtsp://`` and ``http://``, with TLS or without."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from edgead.errors import SourceError
from edgead.images import COLOUR, PixelFormat, cv2
from edgead.runtime.sources.http import RefusedError, explain_status, get
from edgead.runtime.sources.live import Capture, LiveSource
from edgead.runtime.sources.mjpeg import MjpegCapture
from edgead.runtime.sources.pyav import CAMERA, OPEN_S, READ_S, PyAvCapture, has_pyav, require_pyav
from edgead.runtime.sources.source import Source
from edgead.runtime.sources.tls import SECURE, Tls, connect, explain_connection, split_tls
from edgead.runtime.sources.uri import redact, scheme_of
from edgead.runtime.sources.video import BLIND

OPENCV_OPTIONS = "rtsp_transport;tcp|fflags;nobuffer|flags;low_delay"
"""For the reasons of `edgead.runtime.sources.pyav.CAMERA`."""
_VARIABLE = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_lock, _openings = threading.Lock(), 0
_log = logging.getLogger("edgead")


def open_rtsp(uri: str, pixels: PixelFormat = COLOUR) -> Source:
    """``rtsp://user:password@host/path`` or ``rtsps://…?ca=FILE&verify=0``: through PyAV, or OpenCV if PyAV is missing.

    Raises:
        SourceError: no answer or a refusal; or TLS without PyAV.
    """
    if has_pyav():
        return open_pyav(uri, pixels)
    address, tls = split_tls(uri)
    if address.startswith("rtsps:") and tls.verify:
        raise SourceError(
            f"{redact(uri)}: OpenCV cannot verify the certificate of a camera.\n"
            "Install PyAV:  pip install 'edgead[rtsp]'  or connect without verification with ?verify=0"
        )
    _log.warning(BLIND, redact(address))
    return LiveSource(redact(address), lambda: _open_opencv(address), lambda: explain(address, tls))


def open_pyav(uri: str, pixels: PixelFormat = COLOUR) -> Source:
    """``av+rtsp://user:password@host/path``: the address after ``av+`` through FFmpeg.

    Raises:
        MissingDependencyError: PyAV is not installed.
        SourceError: no answer, or a refusal.
    """
    require_pyav()
    given, tls = split_tls(uri)
    address = given.removeprefix("av+")
    return LiveSource(redact(given), lambda: _open_pyav(address, tls), lambda: explain(address, tls))


def open_http(uri: str, pixels: PixelFormat = COLOUR) -> Source:
    """``http://user:password@host/path`` or ``https://…?ca=FILE&verify=0``: MJPEG; anything else through PyAV.

    Raises:
        SourceError: no answer, a refusal, or no MJPEG without PyAV.
    """
    address, tls = split_tls(uri)
    reasons: list[str] = []
    return LiveSource(redact(address), lambda: _open_http(address, tls, reasons), lambda: reasons[-1])


def _open_http(address: str, tls: Tls, reasons: list[str]) -> Capture:
    try:
        response = get(address, tls, READ_S)
    except RefusedError as refused:
        reasons.append(str(refused))
        return Closed()
    kind, boundary = response.headers.get_content_type(), response.headers.get_boundary()
    if kind.startswith("multipart/") and boundary:
        return MjpegCapture(response, boundary, READ_S)
    response.close()
    reasons.append(f"{redact(address)} cannot be opened: it sends {kind}, which is not a supported video.")
    if has_pyav():
        return _open_pyav(address, tls)
    reasons.append(f"{redact(address)} sends {kind}, not MJPEG; install PyAV for it:  pip install 'edgead[rtsp]'")
    return Closed()


def _open_pyav(address: str, tls: Tls) -> Capture:
    secure = scheme_of(address) in SECURE
    if secure and tls.verify:
        # Not every FFmpeg compares the host's name with the certificate; Python does.
        try:
            connect(address, tls, READ_S).close()
        except (OSError, ValueError):
            return Closed()
    options = {**CAMERA, **tls.ffmpeg_options()} if secure else CAMERA
    return PyAvCapture(address, options, timeouts=(OPEN_S, READ_S))


class Closed:
    """A camera that could not be opened."""

    def isOpened(self) -> bool:  # noqa: N802
        return False

    def read(self) -> tuple[bool, None]:
        return False, None

    def release(self) -> None:
        """Nothing to release."""


def _open_opencv(address: str) -> Capture:
    lib = cv2()
    limits = [lib.CAP_PROP_OPEN_TIMEOUT_MSEC, int(1e3 * OPEN_S), lib.CAP_PROP_READ_TIMEOUT_MSEC, int(1e3 * READ_S)]
    with _opencv_options():
        capture: Capture = lib.VideoCapture(address, lib.CAP_FFMPEG, limits)
    return capture


@contextmanager
def _opencv_options() -> Iterator[None]:
    """Set the options while a camera is opened. OpenCV reads them only from the environment.

    Afterwards they would also apply to files: without a buffer, a video loses its last frame.
    """
    global _openings
    with _lock:
        _openings += 1
        if not os.environ.get(_VARIABLE):
            os.environ[_VARIABLE] = OPENCV_OPTIONS
    try:
        yield
    finally:
        with _lock:
            _openings -= 1
            if not _openings and os.environ.get(_VARIABLE) == OPENCV_OPTIONS:
                del os.environ[_VARIABLE]


def explain(address: str, tls: Tls) -> str:
    """Return why a network camera cannot be opened. FFmpeg's errors say little, so one request is sent without it."""
    shown = f"{redact(address)} cannot be opened"
    if address.startswith("http"):
        try:
            get(address, tls, READ_S).close()
        except RefusedError as refused:
            return str(refused)
        return f"{shown}: the server sends no video."
    try:
        with connect(address, tls, 3) as link:
            link.sendall(f"DESCRIBE {redact(address)} RTSP/1.0\r\nCSeq: 1\r\n\r\n".encode())
            status = link.recv(256).decode("latin-1").partition("\r\n")[0].split(" ", 2)[1:]
    except (OSError, ValueError) as error:
        return f"{shown}: {explain_connection(error)}"
    if not status or not status[0].isdecimal():
        return f"{shown}: the server does not speak RTSP."
    return f"{shown}: {explain_status(int(status[0]), ' '.join(status[1:]), address)}"
