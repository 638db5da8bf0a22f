"""An HTTP response that must arrive before a deadline."""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any


class TimedAnswer(http.client.HTTPResponse):
    """A response that must arrive before a deadline. Set it as `HTTPConnection.response_class`.

    Python's timeouts apply to each system call: a server that sends single bytes of a header could delay it
    without limit. At first, status and header together must arrive within the timeout of the connection.
    """

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp.close()
        self._bytes = _Bytes(sock)
        self.fp = io.BufferedReader(self._bytes)
        self.allow(sock.gettimeout() or 0.0)

    def allow(self, seconds: float) -> None:
        """Set the deadline of all that is read from now on, in seconds from now."""
        self._bytes.until = time.monotonic() + seconds


class _Bytes(io.RawIOBase):
    """The bytes of a socket.

    Attributes:
        until: `time.monotonic` after which none is read.
    """

    def __init__(self, link: socket.socket) -> None:
        self._link, self._raw = link, link.makefile("rb", buffering=0)
        self.until = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._link.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
