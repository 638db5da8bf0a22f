"""Where frames come from: images, folders, globs, video files and cameras.

A source is a context manager and an iterator of `Captured`. Files give every frame, however slow the reader is. A
camera gives the newest frame and counts those that were overtaken. A frame that cannot be had is given as an error,
never left out.
"""

from __future__ import annotations

import glob
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgead.errors import DataError, SourceError
from edgead.images import Frame, cv2, is_image, list_images, read_frame

FORMS = "an image, a folder, a glob, a video file or the number of a camera"
SILENCE_SECONDS = 5.0
"""How long a camera may give nothing before that is reported."""


@dataclass(frozen=True)
class Captured:
    """One frame as it came from its source, or the reason why there is none.

    Attributes:
        image: ``(H, W, 3) uint8 BGR``, owned by the receiver, or None.
        error: why there is no image; empty where there is one.
        source_id: the source, as it was named.
        frame_id: number of the frame at its source, from 0.
        t_capture: when it arrived, `time.monotonic` seconds.
        path: of the image file, where it comes from one.
    """

    image: Frame | None
    error: str
    source_id: str
    frame_id: int
    t_capture: float
    path: str = ""


class Source(Protocol):
    """Gives frames. `dropped` counts those that were captured and overtaken by a newer one."""

    dropped: int

    def __enter__(self) -> Iterator[Captured]: ...

    def __exit__(self, *exception: object) -> None: ...


def open_source(uri: str, bit_depth: int = 16) -> Source:
    """Make a source from its name.

    Args:
        uri: path of an image, a folder (searched with its subfolders), a video file; a glob pattern; or the number
            of a camera.
        bit_depth: significant bits of 16-bit images.

    Raises:
        SourceError: nothing there, or not one of these.
    """
    path = Path(uri)
    if uri.isdecimal() and not path.exists():
        return CameraSource(int(uri))
    if "://" in uri:
        raise SourceError(f"The source '{uri.partition('://')[0]}://…' is not supported; give {FORMS}.")
    if path.is_dir():
        paths = list_images(path, recursive=True)
    elif path.is_file():
        if not is_image(path):
            return VideoSource(path)
        paths = [path]
    else:
        paths = [found for name in sorted(glob.glob(uri, recursive=True)) if (found := Path(name)).is_file()]
        if not paths and not glob.has_magic(uri):
            raise SourceError(f"The source {uri} does not exist; give {FORMS}.")
    if not paths:
        raise SourceError(f"The source {uri} holds no images.")
    return ImageSource(uri, paths, bit_depth)


class ImageSource:
    """Image files in the given order."""

    def __init__(self, name: str, paths: Sequence[Path], bit_depth: int = 16) -> None:
        self.name, self.paths, self.bit_depth, self.dropped = name, paths, bit_depth, 0

    def __enter__(self) -> Iterator[Captured]:
        return self._read()

    def _read(self) -> Iterator[Captured]:
        for frame_id, path in enumerate(self.paths):
            image, error = None, ""
            try:
                image = read_frame(path, self.bit_depth)
            except DataError as failure:
                error = str(failure)
            yield Captured(image, error, self.name, frame_id, time.monotonic(), str(path))

    def __exit__(self, *exception: object) -> None:
        """Nothing is kept open."""


class VideoSource:
    """Every frame of a video file."""

    def __init__(self, path: Path) -> None:
        self.path, self.dropped = path, 0
        self._capture = cv2().VideoCapture(str(path))
        if not self._capture.isOpened():
            raise SourceError(f"{path} is neither an image nor a video that OpenCV can open.")

    def __enter__(self) -> Iterator[Captured]:
        return self._read()

    def _read(self) -> Iterator[Captured]:
        expected = int(self._capture.get(cv2().CAP_PROP_FRAME_COUNT))
        frame_id = 0
        while True:
            there, image = self._capture.read()
            if not there:
                break
            yield Captured(image, "", str(self.path), frame_id, time.monotonic(), str(self.path))
            frame_id += 1
        if frame_id < expected:
            error = f"the video ends after {frame_id} of {expected} frames"
            yield Captured(None, error, str(self.path), frame_id, time.monotonic(), str(self.path))

    def __exit__(self, *exception: object) -> None:
        self._capture.release()


class CameraSource:
    """The newest frame of a camera, read by a thread of its own so that no frame is older than it must be.

    Args:
        index: OpenCV's number of the camera.
        open_capture: makes the object that frames are read from; for the tests and for other ways to open a camera.
        silence: seconds without a frame after which one is reported missing.
    """

    def __init__(
        self, index: int, open_capture: Callable[[int], Any] | None = None, silence: float = SILENCE_SECONDS
    ) -> None:
        self.name, self.silence, self.dropped = str(index), silence, 0
        self._capture = (open_capture or cv2().VideoCapture)(index)
        if not self._capture.isOpened():
            self._capture.release()
            raise SourceError(
                f"Camera {index} cannot be opened. Is it connected, and free?  See:  v4l2-ctl --list-devices"
            )
        self._changed = threading.Condition()
        self._newest: Captured | None = None
        self._stopped = self._ended = False
        self._thread = threading.Thread(target=self._watch, name=f"camera-{index}", daemon=True)

    def __enter__(self) -> Iterator[Captured]:
        self._thread.start()
        return self._read()

    def _watch(self) -> None:
        frame_id = 0
        while not self._stopped:
            there, image = self._capture.read()
            with self._changed:
                if not there:
                    self._ended = True
                    self._changed.notify()
                    return
                self.dropped += self._newest is not None
                self._newest = Captured(image, "", self.name, frame_id, time.monotonic())
                self._changed.notify()
            frame_id += 1

    def _read(self) -> Iterator[Captured]:
        frame_id = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest or self._ended, self.silence)
                captured, self._newest = self._newest, None
                ended = self._ended
            if captured is None:
                error = f"camera {self.name} " + ("stopped" if ended else f"gave no frame for {self.silence:g} s")
                captured = Captured(None, error, self.name, frame_id, time.monotonic())
            frame_id = captured.frame_id + 1
            yield captured
            if ended and captured.image is None:
                return

    def __exit__(self, *exception: object) -> None:
        self._stopped = True
        if self._thread.ident is not None:
            self._thread.join(timeout=2 * self.silence)
        if not self._thread.is_alive():  # releasing under a read that hangs would crash; the thread is a daemon
            self._capture.release()
        with self._changed:
            self.dropped += self._newest is not None
            self._newest = None
