"""Serves the ledger over HTTP for Prometheus."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from edgead.errors import ConfigError
from edgead.runtime.token import TokenCheck, refuse_weak

LONGEST_REQUEST = 10.0
"""Seconds after which a connection is closed, even if it is active."""
MOST_CONNECTIONS = 16
"""Simultaneous connections; one more closes the oldest."""
ENDING = 1.0
"""Seconds in which the thread of a connection that was cut must end; then a new connection is refused."""


def parse_address(text: str, option: str = "--metrics") -> tuple[str, int]:
    """Return host and port of ``PORT``, ``HOST:PORT`` or ``[IPV6]:PORT``; the host is 127.0.0.1 if left out.

    Raises:
        ConfigError: not one of these.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if (
        not port.isascii()
        or not port.isdecimal()
        or len(port) > 5
        or int(port) > 65535
        or (":" in host and "[" not in text)
    ):
        raise ConfigError(f"{option} must be a port from 0 to 65535, or ADDRESS:PORT, not '{text}'.")
    return host or "127.0.0.1", int(port)


class MetricsServer:
    """Serves ``http://HOST:PORT/metrics`` and ``/healthz`` until closed.

    ``/healthz`` needs no token; it is 200 while decisions are on time, else 503 with the reason.

    Args:
        port: 0 for any free one.
        render: returns the text.
        host: address to listen on.
        token: required in the header ``Authorization: Bearer TOKEN``; empty for none.
        why_unhealthy: returns why decisions are not on time; empty if they are.

    Raises:
        ConfigError: the address cannot be used, or other machines can reach it and there is no token.
    """

    def __init__(
        self,
        port: int,
        render: Callable[[], str],
        host: str = "127.0.0.1",
        token: str = "",
        why_unhealthy: Callable[[], str] = lambda: "",
    ) -> None:
        check_token(host, token)
        try:
            self._server = _Server(host, port, _Handler)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise ConfigError(f"The metrics cannot be served on port {port} of {host}: {why}.") from error
        self._server.render, self._server.why_unhealthy = render, why_unhealthy
        self._server.check = TokenCheck(token, limits_local=False) if token else None
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def check_token(host: str, token: str) -> None:
    """Refuse to show metrics to other machines without a token, or with one that is guessed easily.

    Raises:
        ConfigError: what is wrong with it.
    """
    if is_local(host):
        return
    if not token:
        raise ConfigError(
            f"Metrics on {host} are readable by other machines and need a token.\n"
            "Set one:  --metrics-token '${METRICS_TOKEN}'"
        )
    refuse_weak(token, "The token of the metrics")


def as_url(host: str, port: int) -> str:
    """Return ``http://HOST:PORT/`` to show to people, with the name of this machine for all of its addresses."""
    everywhere = host in ("0.0.0.0", "::")
    return f"http://{socket.gethostname() if everywhere else f'[{host}]' if ':' in host else host}:{port}/"


def is_local(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


class LimitedServer(ThreadingHTTPServer):
    """An HTTP server that clients cannot exhaust: few connections at once, and each for a short time.

    Args:
        host, port: to listen on.
        handler: of requests.

    Raises:
        OSError: the address cannot be used.
    """

    request_queue_size = 128  # with a short queue, a client waits for a second when many connect at once

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._open: dict[Any, float] = {}
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        """Bind, and ask no resolver for the name of our address, as the library does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        until = time.monotonic() + ENDING
        while len(self._open) >= 2 * MOST_CONNECTIONS:  # half of them are cut already, and their threads about to end
            if time.monotonic() > until:
                self.shutdown_request(request)
                return
            time.sleep(0.001)
        for oldest in list(self._open)[: max(0, len(self._open) - MOST_CONNECTIONS + 1)]:
            _cut(oldest)  # so that idle connections do not keep others out
        self._open[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Close connections that take too long. A limit per read would let a slow client hold its thread forever."""
        now = time.monotonic()
        for request, began in list(self._open.items()):
            if now - began > LONGEST_REQUEST:
                _cut(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect early."""


def _cut(request: Any) -> None:
    """End a connection; its thread then notices, and closes it."""
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class LimitedHandler(BaseHTTPRequestHandler):
    """Answers requests that may come from anywhere."""

    server_version, sys_version = "edgead", ""

    def refusal(self, check: TokenCheck | None) -> tuple[int, str] | None:
        """Return status and reason where a request is refused, else None.

        Without a token, only this machine reaches the address. A page on the internet can let its own name point here
        (DNS rebinding); its requests bear that name and are refused.
        """
        if check is not None:
            return check.refusal(self.headers.get("Authorization", ""), str(self.client_address[0]))
        if not is_local(_host_of(self.headers.get("Host", "localhost"))):
            return 403, "Without a token, use the address of this machine itself."
        return None

    def log_message(self, format: str, *values: object) -> None:
        """Log nothing: it would be a line for every request."""


def _host_of(header: str) -> str:
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


class _Server(LimitedServer):
    render: Callable[[], str]
    check: TokenCheck | None
    why_unhealthy: Callable[[], str]


class _Handler(LimitedHandler):
    server: _Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/healthz":
            why = self.server.why_unhealthy()
            self._answer(503 if why else 200, f"{why or 'Decisions are on time.'}\n")
        elif refused := self.refusal(self.server.check):
            self._answer(refused[0], f"{refused[1]}\n")
        elif path != "/metrics":
            self._answer(404, "Not found. Available: /metrics, /healthz\n")
        else:
            self._answer(200, self.server.render())

    def _answer(self, status: int, text: str) -> None:
        body = text.encode(errors="backslashreplace")
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
