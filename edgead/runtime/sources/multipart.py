"""Splits a ``multipart/x-mixed-replace`` answer, which cameras use for MJPEG over HTTP."""

from __future__ import annotations

import re
import time
from email.parser import BytesHeaderParser
from http.client import HTTPResponse
from typing import NamedTuple

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
        if not length.isdecimal():
            return Part(header, self._take_up_to(self._delimiter, MAX_PART, keep=True))
        size = int(length)
        if size > MAX_PART:
            raise StreamEndError
        while len(self._buffer) < size:
            self._read_more()
        # A length that is too large extends into the next part, which must not be lost.
        inside = self._buffer.find(self._mark, 0, size)
        found = self._delimiter.search(self._buffer, max(0, inside - 2)) if inside >= 0 else None
        return Part(header, self._take(found.start() if found and found.start() < size else size))

    def _read_header(self) -> dict[str, str]:
        lines = self._take_up_to(_HEADER_END, MAX_HEADER)
        # A value with bytes beyond ASCII comes as an object of the email package.
        return {name.lower(): str(value).strip() for name, value in BytesHeaderParser().parsebytes(lines).items()}

    def _take_up_to(self, end: re.Pattern[bytes], limit: int, keep: bool = False) -> bytes:
        """Remove and return the bytes before `end`; also remove `end` unless `keep` is set."""
        searched = 0
        while not (found := end.search(self._buffer, searched)):
            searched = max(0, len(self._buffer) - 256)
            if len(self._buffer) > limit:
                raise StreamEndError
            self._read_more()
        if found.re is self._delimiter and found[1] and not keep:
            raise StreamEndError
        data = self._take(found.start())
        if not keep:
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
