"""A camera that sends MJPEG over HTTP, well or badly."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable

Send = Callable[[Callable[[bytes], None]], None]
MULTIPART = b"Content-Type: multipart/x-mixed-replace; boundary=frame\r\n"


class HttpCamera:
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
        check: object = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._context, self._send, self._head, self._check = context, send, head, check
        self.requests: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.address = f"http{'s' if context else ''}://127.0.0.1:{self.port}/line?size=1"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        if self._context:
            try:
                connection = self._context.wrap_socket(connection, server_side=True)
            except OSError:
                connection.close()
                return
        with connection:
            request = connection.recv(65536).decode()
            self.requests.append(request)
            try:
                if self._check and (refusal := self._check(request)):
                    connection.sendall(refusal)
                    return
                connection.sendall(self._head + b"\r\n")
                self._send(connection.sendall)
            except OSError:
                pass

    def __enter__(self) -> HttpCamera:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()
