"""Reads MJPEG over HTTP without OpenCV, so that no truncated JPEG is judged."""

from __future__ import annotations

from http.client import HTTPException

from edgead.errors import DataError, require
from edgead.formats.jpeg import decode
from edgead.images import Frame
from edgead.runtime.sources.multipart import Part, Parts, StreamEndError
from edgead.timed_answer import TimedAnswer


class MjpegCapture:
    """A camera, read as `edgead.runtime.sources.live.Capture`.

    Args:
        response: a camera's answer of type ``multipart/…``.
        boundary: between its parts.
        patience: seconds to wait for a picture.
    """

    def __init__(self, response: TimedAnswer, boundary: str, patience: float) -> None:
        require("simplejpeg", "jpeg")  # fails now, not at the first frame
        self._response: TimedAnswer | None = response
        self._patience = patience
        self._parts = Parts(response, boundary, patience)
        self.stamp: float | None = None
        self.flaw = ""

    def isOpened(self) -> bool:  # noqa: N802
        return self._response is not None

    def read(self) -> tuple[bool, Frame | None]:
        part = self._next_picture()
        if part is None:
            return False, None
        self.stamp = _stamp(part)
        image, self.flaw = decode_picture(part.data)
        return True, image

    def _next_picture(self) -> Part | None:
        """Return the next picture: some cameras send texts and sound in between."""
        if self._response is None:
            return None
        self._response.allow(self._patience)
        try:
            while True:
                part = self._parts.next()
                if part.header.get("content-type", "image/").lower().startswith("image/"):
                    return part
        except (StreamEndError, OSError, ValueError, HTTPException):
            return None

    def release(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.close()


def decode_picture(data: bytes) -> tuple[Frame | None, str]:
    """Decode a JPEG of a stream.

    Returns:
        ``(H, W, 3) uint8 BGR`` and an empty text; or None, and why it must not be judged.
    """
    try:
        return decode(data), ""
    except DataError as error:
        return None, f"the picture is damaged: {error}"


def _stamp(part: Part) -> float | None:
    """Return when the picture was made, seconds of the camera's clock, if the camera reports it."""
    try:
        return float(part.header["x-timestamp"])
    except (KeyError, ValueError):
        return None
