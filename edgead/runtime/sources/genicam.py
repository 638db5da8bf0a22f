"""GenICam cameras (GigE Vision, USB3 Vision, CoaXPress) through harvesters and the maker's GenTL producer.

This module is a plug-in: an entry point of `edgead.sources` in setup.py is the only reference to it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.errors import SourceError, require
from edgead.images import COLOUR, Frame, PixelFormat, cv2, to_frame
from edgead.runtime.sources.live import LiveSource
from edgead.runtime.sources.source import Source
from edgead.runtime.sources.uri import split_options

TICK = 0.5
"""Longest wait in seconds for a picture that the camera's input fires, before it is seen that the run has ended."""
VARIABLE = "GENICAM_GENTL64_PATH"
"""Folders of producers; the makers' installers set it."""
_BAYER = {"BayerRG": "BayerBG", "BayerGB": "BayerGR", "BayerGR": "BayerGB", "BayerBG": "BayerRG"}
"""GenICam names a pattern after its first two pixels, OpenCV after the second and third of the second row."""
_lock = threading.Lock()


@dataclass(frozen=True)
class GenicamOptions:
    """Options of ``genicam:``: the camera's serial number, seconds to wait for a frame, and the camera's own trigger.

    `trigger` is an input of the camera, as its ``TriggerSource`` names it: ``Line1``. `activation` is the edge.
    """

    serial: str = ""
    timeout: float = 5.0
    trigger: str = ""
    activation: str = "RisingEdge"


def open_genicam(uri: str, pixels: PixelFormat = COLOUR) -> Source:
    """``genicam:///opt/maker/producer.cti?serial=…``; without a file, the producers in GENICAM_GENTL64_PATH.

    Options: ``serial`` of the camera (default: the first one found) and ``timeout``, seconds to wait for a frame. With
    ``trigger=Line1`` the camera makes a picture at each edge of that input (``activation``), and waiting has no limit.

    Raises:
        MissingDependencyError: harvesters is not installed.
        SourceError: no producer, or no such camera.
    """
    rest, options = split_options(uri, GenicamOptions)
    producers = (rest,) if rest else _installed_producers()
    missing = [name for name in producers if not Path(name).is_file()]
    if missing or not producers:
        raise SourceError(
            f"No GenTL producer found{' at ' + missing[0] if missing else ' for ' + uri}.\n"
            f"Install the camera maker's producer (a .cti file) and give its path, or its folder in {VARIABLE}."
        )
    with _lock:  # a cache alone would let two threads load them both
        harvester = _open_producers(producers)
    wanted = {"serial_number": options.serial} if options.serial else 0
    reasons: list[str] = []
    sources: list[LiveSource] = []

    def opener() -> GenicamCapture:
        return GenicamCapture(harvester, wanted, options, reasons, lambda: _has_ended(sources))

    name = f"genicam:{options.serial or rest}"
    sources.append(LiveSource(name, opener, lambda: f"{uri} cannot be opened: {reasons[-1]}", local=True))
    return sources[0]


def _has_ended(sources: list[LiveSource]) -> bool:
    return any(source.stopped.is_set() for source in sources)


def _installed_producers() -> tuple[str, ...]:
    folders = filter(None, os.environ.get(VARIABLE, "").split(os.pathsep))
    return tuple(sorted(str(file) for folder in folders for file in Path(folder).glob("*.cti")))


@cache
def _open_producers(producers: tuple[str, ...]) -> Any:
    """Load producers, once for all cameras: most cannot be loaded twice by one process."""
    core: Any = require("harvesters.core", "genicam")
    harvester = core.Harvester()
    for file in producers:
        try:
            harvester.add_file(file, check_existence=True, check_validity=True)
        except Exception as error:  # producers and bindings may raise anything
            raise SourceError(f"{file} is not a GenTL producer for this machine: {error}") from error
    return harvester


class GenicamCapture:
    """One camera, read as `edgead.runtime.sources.live.Capture`.

    Args:
        harvester: a `harvesters.core.Harvester` with its producers.
        wanted: properties of the camera, or its number.
        options: of the URI.
        reasons: receives the reason if the camera cannot be opened.
        ended: tells that nobody waits for the trigger any more.
    """

    def __init__(
        self,
        harvester: Any,
        wanted: dict[str, str] | int,
        options: GenicamOptions,
        reasons: list[str],
        ended: Callable[[], bool] = lambda: False,
    ) -> None:
        self._timeout, self._camera = options.timeout, None
        self._triggered, self._ended = bool(options.trigger), ended
        self.flaw = ""
        self.stamp: float | None = None
        try:
            with _lock:
                harvester.update()  # the camera may have been switched on since
                self._camera = harvester.create(wanted)
            nodes = self._camera.remote_device.node_map
            split_format(str(nodes.PixelFormat.value))
            if options.trigger:
                set_trigger(nodes, options.trigger, options.activation)
            self._camera.start()
        except Exception as error:  # as above
            reasons.append(str(error) or type(error).__name__)
            self.release()

    def isOpened(self) -> bool:  # noqa: N802
        return self._camera is not None

    def read(self) -> tuple[bool, NDArray[Any] | None]:
        if self._camera is None:
            return False, None
        self.flaw, self.stamp = "", None
        try:
            buffer, start = self._fetch()
            if buffer is None and self._triggered and self._ended():
                return False, None
            if buffer is None:  # harvesters discards a picture with missing packets and returns at once
                self.flaw = "the picture is damaged: packets of it are missing"
                return time.monotonic() - start < self._timeout, None
            with buffer:
                self.stamp = _stamp(buffer)
                part = buffer.payload.components[0]
                return True, to_bgr(part.data, int(part.height), int(part.width), str(part.data_format))
        except Exception:  # as above; the source reports the camera as lost
            return False, None

    def _fetch(self) -> tuple[Any, float]:
        """Return the next buffer, None for a damaged or a missing one, and when the wait for it began."""
        while True:
            start = time.monotonic()
            assert self._camera is not None
            buffer = self._camera.try_fetch(timeout=min(self._timeout, TICK) if self._triggered else self._timeout)
            waits = self._triggered and buffer is None and time.monotonic() - start >= min(self._timeout, TICK)
            if not waits or self._ended():
                return buffer, start

    def release(self) -> None:
        camera, self._camera = self._camera, None
        if camera is not None:
            camera.destroy()


def set_trigger(nodes: Any, line: str, activation: str) -> None:
    """Let an input of the camera fire each picture.

    Args:
        nodes: its GenICam node map, with the names of the Standard Features Naming Convention.
        line: for ``TriggerSource``.
        activation: for ``TriggerActivation``.

    Raises:
        Exception: of the bindings: the camera has no such feature or value.
    """
    values = {"Selector": "FrameStart", "Source": line, "Activation": activation, "Mode": "On"}
    for name, value in values.items():  # the mode is last: it takes effect at once
        getattr(nodes, f"Trigger{name}").value = value


def _stamp(buffer: Any) -> float | None:
    """Return when a picture was made, seconds of the camera's clock; not every producer reports it."""
    try:
        return float(buffer.timestamp_ns) / 1e9 or None
    except Exception:  # as above
        return None


def to_bgr(data: NDArray[Any], height: int, width: int, pixel_format: str) -> Frame:
    """Return a copy of a buffer's pixels as a frame.

    Args:
        data: ``[height · width · channels]``, uint8, or uint16 for more than 8 bits.
        height, width: pixels.
        pixel_format: GenICam's name of it, for instance ``Mono12`` or ``BayerRG8``.

    Returns:
        ``(height, width, 3) uint8 BGR``.

    Raises:
        SourceError: an unsupported format.
    """
    kind, bits = split_format(pixel_format)
    image: NDArray[Any] = data.reshape(height, width, 3) if kind in ("BGR", "RGB") else data.reshape(height, width)
    if kind == "RGB":
        image = image[..., ::-1]
    elif kind in _BAYER:
        lib = cv2()
        image = lib.cvtColor(image, getattr(lib, f"COLOR_{_BAYER[kind]}2BGR"))
    pixels = PixelFormat(bits) if bits > 8 else COLOUR  # which has a say on 16-bit images alone
    return np.array(to_frame(image, pixels), order="C")  # the buffer goes back to the camera


def split_format(pixel_format: str) -> tuple[str, int]:
    """Return the kind and the significant bits of a GenICam pixel format.

    Raises:
        SourceError: it is not supported.
    """
    kind = pixel_format.rstrip("0123456789")
    bits = pixel_format.removeprefix(kind)
    depths = {"BGR": ("8",), "RGB": ("8",), "Mono": ("8", "10", "12", "14", "16")}.get(kind, ("8", "10", "12", "16"))
    if kind not in ("Mono", "RGB", "BGR", *_BAYER) or bits not in depths:
        raise SourceError(f"pixel format {pixel_format} is not supported; set Mono8, BayerRG8, RGB8 or BGR8.")
    return kind, int(bits)
