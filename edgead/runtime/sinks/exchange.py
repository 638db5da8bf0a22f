"""One HTTP request with a limit on its total duration."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LONGEST_ANSWER = 1_000_000
"""Bytes of an answer that are read; the rest is ignored."""


@dataclass
class Answer:
    """The outcome of a request.

    Attributes:
        status: HTTP status; 0 if there was none.
        reason: the status as text.
        location: target of a redirect.
        error: why there is no complete answer; empty if there is one.
    """

    status: int = 0
    reason: str = ""
    location: str = ""
    error: str = ""


class Exchange:
    """A request and its answer, without following redirects.

    Python's timeouts apply to each system call: a slow name lookup, several addresses or a trickling answer can take
    any time. A separate thread therefore runs the request, and its connection is shut down from outside.
    """

    def __init__(self, request: urllib.request.Request) -> None:
        self._request = request
        self._answer: Answer | None = None
        self._lock = threading.Lock()
        self._over = False
        self._socket: socket.socket | None = None

    def run(self, timeout: float) -> Answer:
        """Return the answer, after `timeout` seconds at the latest."""
        thread = threading.Thread(target=self._exchange, args=(timeout,), name="http-request", daemon=True)
        thread.start()
        thread.join(timeout)
        with self._lock:
            if self._answer is not None:
                return self._answer
            self._over = True
            if self._socket is not None:
                with contextlib.suppress(OSError):  # wakes the thread that reads from it
                    self._socket.shutdown(socket.SHUT_RDWR)
        return Answer(error=f"no complete answer within {timeout:g} s")

    def _exchange(self, timeout: float) -> None:
        opener = urllib.request.build_opener(_NoRedirect, _Handler(self.keep))
        try:
            with opener.open(self._request, timeout=timeout) as response:
                answer = Answer(response.status, response.reason)
                _read_whole(response)
        except urllib.error.HTTPError as error:
            with error:
                answer = Answer(error.code, str(error.reason), error.headers.get("Location") or "")
        except http.client.IncompleteRead:
            answer = Answer(error="the answer was truncated")
        except http.client.RemoteDisconnected:
            answer = Answer(error="the server closed the connection without an answer")
        except http.client.HTTPException as error:
            answer = Answer(error=f"the answer is not HTTP: {type(error).__name__}")
        except Exception as error:  # any error means that the request has failed
            reason = getattr(error, "reason", None) or error
            answer = Answer(error=str(getattr(reason, "strerror", None) or reason or type(reason).__name__))
        with self._lock:
            self._answer = answer
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def keep(self, link: socket.socket) -> None:
        """Keep the connection so that it can be shut down; refuse it after the timeout.

        Raises:
            TimeoutError: the time is over.
        """
        with self._lock:
            if self._over:
                link.close()
                raise TimeoutError
            self._socket = link.dup()  # TLS detaches the original


def _read_whole(response: http.client.HTTPResponse) -> None:
    left = LONGEST_ANSWER
    while left > 0 and (data := response.read(min(left, 65536))):
        left -= len(data)
    if left > 0 and response.length:  # read(amount) does not report a truncated answer
        raise http.client.IncompleteRead(b"", response.length)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: Any) -> None:
        """Follow no redirect: the caller gets the status."""


class _Handler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens connections and passes each socket to `keep` before TLS begins."""

    def __init__(self, keep: Callable[[socket.socket], None]) -> None:
        super().__init__()
        self._keep = keep

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._plain, request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._secure, request)

    def _plain(self, host: str, **options: Any) -> http.client.HTTPConnection:
        return self._watched(http.client.HTTPConnection(host, **options))

    def _secure(self, host: str, **options: Any) -> http.client.HTTPConnection:
        return self._watched(http.client.HTTPSConnection(host, **options))

    def _watched(self, connection: http.client.HTTPConnection) -> http.client.HTTPConnection:
        def connect(*arguments: Any, **options: Any) -> socket.socket:
            link = socket.create_connection(*arguments, **options)
            self._keep(link)
            return link

        connection.response_class = _Response
        connection._create_connection = connect  # type: ignore[attr-defined]
        return connection


class _Response(http.client.HTTPResponse):
    """Detects truncated headers, which http.client accepts as complete."""

    def begin(self) -> None:
        stream: Any = self.fp
        self.fp = lines = _Lines(stream)  # type: ignore[assignment]
        super().begin()
        self.fp = stream
        if lines.last.strip():
            raise http.client.IncompleteRead(b"")


class _Lines:
    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.last = b""

    def readline(self, *limit: int) -> bytes:
        line: bytes = self._stream.readline(*limit)
        self.last = line or b"nothing"
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
