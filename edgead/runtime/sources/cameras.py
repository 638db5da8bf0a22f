"""Cameras by URI: v4l2://, csi://, rtsp:// and http:// (MJPEG), all through OpenCV."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from edgead.errors import ConfigError, SourceError
from edgead.images import COLOUR, PixelFormat, cv2
from edgead.runtime.sources.live import Capture, LiveSource
from edgead.runtime.sources.source import Source
from edgead.runtime.sources.uri import number, redact, split_options

OPEN_MS, READ_MS = 8000, 5000
"""How long a network camera may take to open, and to give the next frame. FFmpeg's probing alone takes 1 to 2 s."""
FFMPEG_OPTIONS = "rtsp_transport;tcp|fflags;nobuffer|flags;low_delay"
"""TCP, because lost UDP packets become grey blocks like defects; no buffer, because a late frame is useless."""
_VARIABLE = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_lock, _openings = threading.Lock(), 0
_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
_FORMAT = {"width": "0", "height": "0", "fps": "0"}


def open_v4l2(uri: str, pixels: PixelFormat = COLOUR) -> Source:
    """``v4l2:///dev/video0?width=1280&height=720&fps=30``; what is 0 or left out stays as the camera has it."""
    device, options = split_options(uri, _FORMAT)
    lib = cv2()
    properties = {"width": lib.CAP_PROP_FRAME_WIDTH, "height": lib.CAP_PROP_FRAME_HEIGHT, "fps": lib.CAP_PROP_FPS}
    wanted = {properties[name]: number(uri, options, name) for name in properties}
    target: int | str = int(device) if device.isdecimal() else device

    def opener() -> Capture:
        capture = lib.VideoCapture(target, lib.CAP_V4L2)
        for name, value in wanted.items():
            if value:
                capture.set(name, value)
        opened: Capture = capture
        return opened

    text = f"{uri} cannot be opened. Is it connected, and free?  See:  v4l2-ctl --list-devices"
    return LiveSource(uri.partition("?")[0], opener, lambda: text)


def open_csi(uri: str, pixels: PixelFormat = COLOUR) -> Source:
    """``csi://0?width=1920&height=1080&fps=30``: a camera on a Jetson's CSI port.

    Raises:
        SourceError: OpenCV has no GStreamer, or there is no such camera.
    """
    sensor, options = split_options(uri, {"width": "1920", "height": "1080", "fps": "30"})
    if not sensor.isdecimal():
        raise ConfigError(f"{uri}: the sensor must be a number, as in csi://0.")
    width, height, fps = (int(number(uri, options, name)) for name in ("width", "height", "fps"))
    lib = cv2()
    if not lib.videoio_registry.hasBackend(lib.CAP_GSTREAMER):
        raise SourceError(
            f"{uri} needs an OpenCV with GStreamer; the installed one ({lib.__version__}) is built without it.\n"
            "On a Jetson the system's has it:  pip uninstall opencv-python-headless; sudo apt install python3-opencv"
        )
    pipeline = csi_pipeline(int(sensor), width, height, fps)
    text = f"{uri} cannot be opened. Is the camera connected, and nvargus-daemon running?"
    return LiveSource(uri.partition("?")[0], lambda: _video_capture(pipeline, lib.CAP_GSTREAMER, []), lambda: text)


def csi_pipeline(sensor: int, width: int, height: int, fps: int) -> str:
    """Return the GStreamer pipeline of a CSI camera: the newest frame as BGR, nothing queued."""
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! "
        f"video/x-raw(memory:NVMM),width={width},height={height},framerate={fps}/1,format=NV12 ! "
        "nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! "
        "appsink drop=true max-buffers=1 sync=false"
    )


def open_network(uri: str, pixels: PixelFormat = COLOUR) -> Source:
    """``rtsp://user:password@host/path`` or an MJPEG stream over ``http://``, through OpenCV's FFmpeg.

    Raises:
        SourceError: nothing answers, or it refuses.
    """
    lib = cv2()
    timeouts = [lib.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_MS, lib.CAP_PROP_READ_TIMEOUT_MSEC, READ_MS]

    def opener() -> Capture:
        with _ffmpeg_options():
            return _video_capture(uri, lib.CAP_FFMPEG, timeouts)

    return LiveSource(redact(uri), opener, lambda: explain_network(uri))


@contextmanager
def _ffmpeg_options() -> Iterator[None]:
    """Set the options for as long as a camera is opened. OpenCV takes them from the environment alone.

    Left there, they would also hold for files: without a buffer, a video loses its last frame.
    """
    global _openings
    with _lock:
        _openings += 1
        if not os.environ.get(_VARIABLE):
            os.environ[_VARIABLE] = FFMPEG_OPTIONS
    try:
        yield
    finally:
        with _lock:
            _openings -= 1
            if not _openings and os.environ.get(_VARIABLE) == FFMPEG_OPTIONS:
                del os.environ[_VARIABLE]


def _video_capture(name: str, backend: int, parameters: list[int]) -> Capture:
    capture: Capture = cv2().VideoCapture(name, backend, parameters)
    return capture


def explain_network(uri: str) -> str:
    """Say why a network camera cannot be opened. OpenCV does not tell, so it is asked once more, by hand."""
    shown, parts = redact(uri), urlsplit(uri)
    request = "DESCRIBE" if parts.scheme.startswith("rtsp") else "GET"
    protocol = "RTSP/1.0\r\nCSeq: 1" if request == "DESCRIBE" else f"HTTP/1.0\r\nHost: {parts.hostname}"
    target = shown if request == "DESCRIBE" else parts.path or "/"
    try:
        address = (parts.hostname or "", parts.port or _PORTS[parts.scheme])
        with socket.create_connection(address, timeout=3) as plain:
            context = ssl.create_default_context()
            secure = parts.scheme in ("rtsps", "https")
            link = context.wrap_socket(plain, server_hostname=parts.hostname) if secure else plain
            link.sendall(f"{request} {target} {protocol}\r\n\r\n".encode())
            status = link.recv(256).decode("latin-1").partition("\r\n")[0].split(" ", 2)[1:]
    except (OSError, ValueError) as error:
        return f"{shown} cannot be opened: {getattr(error, 'strerror', None) or error}."
    code = status[0] if status else ""
    if code in ("401", "403"):
        with_user = "does not accept this user and password" if parts.username else "asks for a user and password"
        return f"{shown} cannot be opened: the camera {with_user}.\nGive them as {parts.scheme}://USER:PASSWORD@HOST/…"
    if code == "404":
        return f"{shown} cannot be opened: the camera answers, but has no stream of that name."
    return f"{shown} cannot be opened: something answers ({' '.join(status) or 'nothing'}), but gives no video."
