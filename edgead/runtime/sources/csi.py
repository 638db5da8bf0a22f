"""Cameras on a Jetson's CSI port, through OpenCV's GStreamer."""

from __future__ import annotations

from dataclasses import dataclass

from edgead.errors import ConfigError, SourceError
from edgead.images import COLOUR, PixelFormat, cv2
from edgead.runtime.sources.live import Capture, LiveSource
from edgead.runtime.sources.source import Source
from edgead.runtime.sources.uri import split_options


@dataclass(frozen=True)
class CsiOptions:
    """Options of ``csi://``: size in pixels, and frames per second."""

    width: int = 1920
    height: int = 1080
    fps: int = 30


def open_csi(uri: str, pixels: PixelFormat = COLOUR) -> Source:
    """``csi://0?width=1920&height=1080&fps=30``: a camera on a Jetson's CSI port.

    Raises:
        SourceError: OpenCV lacks GStreamer, or the camera does not exist.
    """
    sensor, options = split_options(uri, CsiOptions)
    if not sensor.isdecimal():
        raise ConfigError(f"{uri}: the sensor must be a number, as in csi://0.")
    lib = cv2()
    if not lib.videoio_registry.hasBackend(lib.CAP_GSTREAMER):
        raise SourceError(
            f"{uri} needs an OpenCV with GStreamer; the installed one ({lib.__version__}) is built without it.\n"
            "On a Jetson use the system's:  pip uninstall opencv-python-headless; sudo apt install python3-opencv"
        )
    pipeline = csi_pipeline(int(sensor), options.width, options.height, options.fps)

    def opener() -> Capture:
        capture: Capture = lib.VideoCapture(pipeline, lib.CAP_GSTREAMER)
        return capture

    text = f"{uri} cannot be opened. Is the camera connected, and nvargus-daemon running?"
    return LiveSource(uri.partition("?")[0], opener, lambda: text, local=True)


def csi_pipeline(sensor: int, width: int, height: int, fps: int) -> str:
    """Return the GStreamer pipeline of a CSI camera: the newest frame as BGR, without a queue."""
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! "
        f"video/x-raw(memory:NVMM),width={width},height={height},framerate={fps}/1,format=NV12 ! "
        "nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! "
        "appsink drop=true max-buffers=1 sync=false"
    )
