"""Video4Linux cameras (USB and others) through OpenCV. Settings are read back, JPEGs are checked."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, NamedTuple

from numpy.typing import NDArray

from edgead.errors import ConfigError, SourceError, require
from edgead.images import COLOUR, PixelFormat, cv2
from edgead.runtime.sources.live import CameraSource, Capture, LiveSource
from edgead.runtime.sources.mjpeg import decode_picture
from edgead.runtime.sources.source import Source
from edgead.runtime.sources.uri import split_options

_JPEG = ("MJPG", "JPEG")
_FORMAT = {
    "fourcc": "CAP_PROP_FOURCC",
    "width": "CAP_PROP_FRAME_WIDTH",
    "height": "CAP_PROP_FRAME_HEIGHT",
    "fps": "CAP_PROP_FPS",
}
_AUTOMATIC = {
    "exposure": ("CAP_PROP_AUTO_EXPOSURE", 1),  # V4L2_EXPOSURE_MANUAL
    "white_balance": ("CAP_PROP_AUTO_WB", 0),
    "focus": ("CAP_PROP_AUTOFOCUS", 0),
}
"""The automatic control to turn off before a value can be set, and its value for off."""
_CONTROLS = {
    "exposure": "CAP_PROP_EXPOSURE",
    "white_balance": "CAP_PROP_WB_TEMPERATURE",
    "focus": "CAP_PROP_FOCUS",
    "gain": "CAP_PROP_GAIN",
    "brightness": "CAP_PROP_BRIGHTNESS",
    "contrast": "CAP_PROP_CONTRAST",
    "saturation": "CAP_PROP_SATURATION",
    "sharpness": "CAP_PROP_SHARPNESS",
    "zoom": "CAP_PROP_ZOOM",
}
_log = logging.getLogger("edgead")


@dataclass(frozen=True)
class V4l2Options:
    """Options of ``v4l2://``: settings of the camera. Others stay unchanged."""

    fourcc: str = ""
    width: float | None = None
    height: float | None = None
    fps: float | None = None
    exposure: float | None = None
    white_balance: float | None = None
    focus: float | None = None
    gain: float | None = None
    brightness: float | None = None
    contrast: float | None = None
    saturation: float | None = None
    sharpness: float | None = None
    zoom: float | None = None


class Wish(NamedTuple):
    """One setting of a camera: the option, OpenCV's name of it and the requested value."""

    option: str
    name: str
    value: float


def open_v4l2(uri: str, pixels: PixelFormat = COLOUR) -> Source:
    """``v4l2:///dev/video0?fourcc=MJPG&width=1280&height=720&fps=30&exposure=120``. Other settings stay unchanged.

    Raises:
        ConfigError: an invalid option.
        SourceError: no such camera, or it rejects a setting.
    """
    device, options = split_options(uri, V4l2Options)
    target: int | str = int(device) if device.isdecimal() else device
    if isinstance(target, int):
        _refuse_impossible(target)
    wishes, reasons = read_wishes(uri, options), [f"{uri} cannot be opened. {_SEE}"]

    def opener() -> Capture:
        return V4l2Capture(target, wishes, reasons)

    return LiveSource(uri.partition("?")[0], opener, lambda: reasons[-1], local=True)


MOST_CAMERAS = 256
"""Maximum number of Video4Linux devices."""


def _refuse_impossible(number: int) -> None:
    if number >= MOST_CAMERAS:
        raise SourceError(f"Camera {number} does not exist: numbers are 0 to {MOST_CAMERAS - 1}.")


def open_number(number: int) -> Source:
    """Open a camera by OpenCV's number, with unchanged settings.

    Raises:
        SourceError: it cannot be opened, or no camera has such a number.
    """
    _refuse_impossible(number)
    lib = cv2()
    if not lib.videoio_registry.hasBackend(lib.CAP_V4L2):
        return CameraSource(number, reconnect=True)
    return CameraSource(number, lambda index: V4l2Capture(index, [], []), reconnect=True)


_SEE = "Is it connected, and free?  See:  v4l2-ctl --list-devices"


def read_wishes(uri: str, options: V4l2Options) -> list[Wish]:
    """Return the settings in the order in which they must be made.

    Raises:
        ConfigError: an invalid value.
    """
    wishes = []
    for option, name in {**_FORMAT, **_CONTROLS}.items():
        value = getattr(options, option)
        if value in (None, "") or (option in _FORMAT and value in (0, "0")):  # unchanged
            continue
        if option in _AUTOMATIC:
            wishes.append(Wish(f"automatic {option}", *_AUTOMATIC[option]))
        if option == "fourcc":
            if len(value) != 4 or not value.isascii():
                raise ConfigError(f"{uri}: fourcc must be four characters, such as MJPG or YUYV, not '{value}'.")
            wishes.append(Wish(option, name, cv2().VideoWriter_fourcc(*value)))
        else:
            wishes.append(Wish(option, name, value))
    return wishes


class V4l2Capture:
    """One camera, read as `edgead.runtime.sources.live.Capture`.

    Args:
        device: its file, or its number.
        wishes: the settings.
        reasons: receives the reason if the camera cannot be used.
    """

    def __init__(self, device: int | str, wishes: list[Wish], reasons: list[str]) -> None:
        self._lib = cv2()
        self._camera = self._lib.VideoCapture(device, self._lib.CAP_V4L2)
        self._jpeg, self.flaw = False, ""
        self.stamp: float | None = None
        if not self._camera.isOpened():
            return
        for wish in wishes:
            self._camera.set(getattr(self._lib, wish.name), wish.value)
        refused = self._refused(wishes)
        if refused:
            reasons.append(
                f"The camera {device} does not accept these settings: {'; '.join(refused)}.\n"
                f"See what it supports:  v4l2-ctl --device {device} --list-formats-ext --list-ctrls"
            )
            self.release()
            return
        self._jpeg = fourcc_text(self._camera.get(self._lib.CAP_PROP_FOURCC)) in _JPEG
        if self._jpeg:  # OpenCV would fill what is missing of a JPEG
            require("simplejpeg", "jpeg")
            self._camera.set(self._lib.CAP_PROP_CONVERT_RGB, 0)

    def _refused(self, wishes: list[Wish]) -> list[str]:
        """Return the settings that the camera did not accept. A different frame rate is only logged."""
        refused = []
        for wish in wishes:
            has = self._camera.get(getattr(self._lib, wish.name))
            if has == wish.value:
                continue
            text = f"{wish.option} {_shown(wish, wish.value)} was requested, but it is {_shown(wish, has)}"
            if wish.option != "fps":
                refused.append(text)
            elif abs(has - wish.value) > 0.01 * wish.value:
                _log.warning("Camera: %s", text)
        return refused

    def isOpened(self) -> bool:  # noqa: N802
        return bool(self._camera.isOpened())

    def read(self) -> tuple[bool, NDArray[Any] | None]:
        there, image = self._camera.read()
        if not there:
            return False, None
        self.stamp = self._camera.get(self._lib.CAP_PROP_POS_MSEC) / 1e3 or None
        if self._jpeg:
            image, self.flaw = decode_picture(image.tobytes())
        return True, image

    def release(self) -> None:
        self._camera.release()


def fourcc_text(code: float) -> str:
    """Return a pixel format's four characters."""
    return int(code).to_bytes(4, "little", signed=int(code) < 0).decode("latin-1")


def _shown(wish: Wish, value: float) -> str:
    return fourcc_text(value) if wish.option == "fourcc" else f"{value:g}"
