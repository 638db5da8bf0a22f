"""A camera that sends MJPEG over HTTP, well or badly."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable

from camera_server import CameraServer

Send = Callable[[Callable[[bytes], None]], None]
MULTIPART = b"Content-Type: multipart/x-mixed-replace; boundary=frame\r\n"


class HttpCamera(CameraServer):
    """Answers each request with a head and whatever `send` sends.

    Args:
        send: gets a function that sends bytes.
        head: status line and header.
        check: gets a request's text; a returned answer is sent instead.
        context: of TLS.
    """

    def __init__(
        self,
        send: Send,
        head: bytes = b"HTTP/1.0 200 OK\r\n" + MULTIPART,
        check: Callable[[str], bytes | None] | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._send, self._head, self._check = send, head, check
        self.requests: list[str] = []
        super().__init__(context)
        self.address = f"http{'s' if context else ''}://127.0.0.1:{self.port}/line?size=1"

    def talk(self, connection: socket.socket) -> None:
        request = connection.recv(65536).decode()
        self.requests.append(request)
        if self._check and (refusal := self._check(request)):
            connection.sendall(refusal)
            return
        connection.sendall(self._head + b"\r\n")
        self._send(connection.sendall)

    def __enter__(self) -> HttpCamera:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
