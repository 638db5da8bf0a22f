"""Splits a ``multipart/x-mixed-replace`` answer, which cameras use for MJPEG over HTTP."""

from __future__ import annotations

import re
import time
from email.parser import BytesHeaderParser
from http.client import HTTPResponse
from typing import NamedTuple

from edgead.formats.jpeg import EndFinder

MAX_PART, MAX_HEADER = 64 << 20, 16 << 10
"""Maximum bytes of a picture, and of its header."""
_BLOCK = 1 << 16
_HEADER_END = re.compile(rb"\A\r?\n|\r?\n\r?\n")


class Part(NamedTuple):
    """One part: its header fields, with names in lower case, and its bytes."""

    header: dict[str, str]
    data: bytes


class StreamEndError(Exception):
    """The stream has ended or cannot be parsed."""


class Parts:
    """Reads part after part.

    Args:
        response: the answer, read up to its first byte.
        boundary: of its ``Content-Type``. Some cameras include the two leading dashes.
        patience: seconds that one part may take.
    """

    def __init__(self, response: HTTPResponse, boundary: str, patience: float) -> None:
        self._response, self._patience = response, patience
        name = boundary.encode("latin-1", "replace")
        dashes = b"(?:--)?" if name.startswith(b"--") else b"--"
        self._mark = name if name.startswith(b"--") else b"--" + name
        self._delimiter = re.compile(rb"(?:\r?\n)?" + dashes + re.escape(name) + rb"(--)?[ \t]*\r?\n")
        self._buffer, self._until = bytearray(), 0.0

    def next(self) -> Part:
        """Return the next part.

        Raises:
            StreamEndError: there is none.
            OSError: the connection failed or timed out.
        """
        self._until = time.monotonic() + self._patience
        self._take_up_to(self._delimiter, MAX_PART)
        header = self._read_header()
        length = header.get("content-length", "")
        return Part(header, self._take(self._wait_for_end(int(length) if length.isdecimal() else None)))

    def _wait_for_end(self, size: int | None) -> int:
        """Read until the part is complete, and return its length, which may be shorter than the header says.

        The end of a JPEG is its own. Without a length, or with one that is too large, the next boundary would end it,
        and many cameras send that only with the next picture.

        Args:
            size: that the header states, if it does.
        """
        if size is not None and size > MAX_PART:
            raise StreamEndError
        most, picture, searched = MAX_PART if size is None else size, EndFinder(), 0
        while True:
            at = self._boundary_from(searched)
            if at is not None and (size is None or at < size):
                return at
            if len(self._buffer) >= most:
                if size is None:
                    raise StreamEndError
                return size - self._begun_before(size)
            if end := picture.find(self._buffer):
                return end
            searched = max(0, len(self._buffer) - 256)
            self._read_more()

    def _boundary_from(self, start: int) -> int | None:
        inside = self._buffer.find(self._mark, start)
        found = self._delimiter.search(self._buffer, max(0, inside - 2)) if inside >= 0 else None
        return found.start() if found else None

    def _begun_before(self, size: int) -> int:
        """Return how many of the first `size` bytes are the beginning of a boundary that is cut off there."""
        line = self._mark + b"\r\n"
        counts = range(len(line) - 1, 0, -1)
        return next((count for count in counts if self._buffer.endswith(line[:count], 0, size)), 0)

    def _read_header(self) -> dict[str, str]:
        lines = self._take_up_to(_HEADER_END, MAX_HEADER)
        # A value with bytes beyond ASCII comes as an object of the email package.
        return {name.lower(): str(value).strip() for name, value in BytesHeaderParser().parsebytes(lines).items()}

    def _take_up_to(self, end: re.Pattern[bytes], limit: int) -> bytes:
        """Remove `end` and the bytes before it, and return these."""
        searched = 0
        while not (found := end.search(self._buffer, searched)):
            searched = max(0, len(self._buffer) - 256)
            if len(self._buffer) > limit:
                raise StreamEndError
            self._read_more()
        if found.re is self._delimiter and found[1]:
            raise StreamEndError
        data = self._take(found.start())
        self._take(found.end() - found.start())
        return data

    def _take(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _read_more(self) -> None:
        if time.monotonic() > self._until:
            raise TimeoutError
        data = self._response.read1(_BLOCK)
        if not data:
            raise StreamEndError
        self._buffer += data
