"""An HTTP answer that a server cannot draw out."""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any


class TimedAnswer(http.client.HTTPResponse):
    """An answer all of whose bytes have to come before a moment. Use it as `HTTPConnection.response_class`.

    Python's timeouts apply to each system call: a server that sends one byte of a header now and then could take for
    ever. At first, the timeout of the connection is the time for status and header together.
    """

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp.close()
        self._bytes = _Bytes(sock)
        self.fp = io.BufferedReader(self._bytes)
        self.allow(sock.gettimeout() or 0.0)

    def allow(self, seconds: float) -> None:
        """Let what is read from now on take so long in total."""
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
