"""A trigger over HTTP: each POST is a part."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from edgead.errors import ConfigError
from edgead.line.triggers.trigger import BaseTrigger, OpenPart
from edgead.redaction import redact
from edgead.runtime.metrics_server import LimitedHandler, LimitedServer, is_local
from edgead.runtime.sources.uri import parse_options
from edgead.runtime.token import TokenCheck, refuse_weak
from edgead.schema import parse_json

LARGEST = 65_536
"""Bytes of a request's body."""
LONGEST_ID = 256
"""Characters of a part's id that a trigger brings."""


@dataclass(frozen=True)
class HttpOptions:
    """Options of ``http:``, see `HttpTrigger`."""

    field: str = "part_id"
    token: str = ""
    debounce: float = 0.0


def open_http(uri: str) -> HttpTrigger:
    """``http://127.0.0.1:8090/part?field=part_id&token=${TOKEN}&debounce=0``: the address to listen on.

    Raises:
        ConfigError: an unknown option, no port, or an address that cannot be used or needs a token.
    """
    parts = urlsplit(uri)
    if parts.port is None or parts.hostname is None or parts.username or parts.fragment:
        raise ConfigError(f"{redact(uri)} must be an address to listen on, as in http://127.0.0.1:8090/part.")
    options = parse_options(uri, parts.query, HttpOptions)
    path = unquote(parts.path) or "/"
    return HttpTrigger(parts.hostname, parts.port, path, options.field, options.token, options.debounce)


def read_id(body: bytes, field: str) -> str:
    """Return the part's id in a JSON object; empty if it has none.

    Raises:
        ValueError: not a JSON object, or an id that is neither text nor a whole number, or too long.
    """
    values = parse_json(body)
    if not isinstance(values, dict):
        raise ValueError("it must be a JSON object")
    found = values.get(field, "")
    found = "" if found is None else found
    if isinstance(found, bool) or not isinstance(found, str | int) or len(str(found)) > LONGEST_ID:
        raise ValueError(f"{field} must be text of at most {LONGEST_ID} characters, or a whole number")
    return str(found)


class HttpTrigger(BaseTrigger):
    """Serves ``POST http://HOST:PORT/PATH`` with ``Content-Type: application/json``; other answers are 4xx.

    The answer is 202 with the part's id, 429 for a bounce, or 409 when no part can be triggered.

    Args:
        host, port: to listen on; 0 for any free port.
        path: of the URL.
        field: of the JSON object with the part's id; the object may be without it.
        token: required in the header ``Authorization: Bearer TOKEN``; empty for none.
        debounce: see `BaseTrigger`.

    Attributes:
        port: it listens on.
        answer: name of the id in the answer's JSON object.

    Raises:
        ConfigError: the address cannot be used, or other machines can reach it and there is no token.
    """

    def __init__(
        self, host: str, port: int, path: str, field: str = "part_id", token: str = "", debounce: float = 0.0
    ) -> None:
        super().__init__(f"http://{host}:{port}{path}", debounce)
        if not token and not is_local(host):
            raise ConfigError(
                f"The trigger on {host} can be reached by other machines and needs a token.\n"
                f"Set one:  --trigger 'http://{host}:{port}{path}?token=${{TRIGGER_TOKEN}}'"
            )
        if not is_local(host):
            refuse_weak(token, f"The token of the trigger on {host}")
        self.path, self.field, self.answer = path, field, "part_id"
        self.check = TokenCheck(token, limits_local=False) if token else None
        try:
            self._server = _Server(host, port, _Handler)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise ConfigError(f"The trigger cannot listen on port {port} of {host}: {why}.") from error
        self._server.trigger, self._serving = self, False
        self.port = int(self._server.server_address[1])

    def begin(self, open_part: OpenPart) -> None:
        super().begin(open_part)
        self._serving = True
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="trigger-http", daemon=True).start()

    def close(self) -> None:
        if not self.stopped.is_set():
            super().close()
            if self._serving:
                self._server.shutdown()
            self._server.server_close()


class _Server(LimitedServer):
    trigger: HttpTrigger


class _Handler(LimitedHandler):
    server: _Server

    def do_POST(self) -> None:  # noqa: N802  the library's name
        trigger = self.server.trigger
        if refused := self.refusal(trigger.check):
            self._answer(refused[0], {"error": refused[1]})
        elif self.path.partition("?")[0] != trigger.path:
            self._answer(404, {"error": f"Not found. Available: POST {trigger.path}"})
        elif self.headers.get_content_type() != "application/json":  # what a web page cannot send unasked
            self._answer(415, {"error": "Content-Type must be application/json."})
        else:
            self._fire(trigger)

    def _fire(self, trigger: HttpTrigger) -> None:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()):
            return self._answer(411, {"error": "Content-Length is missing."})
        if len(length) > 9 or int(length) > LARGEST:
            return self._answer(413, {"error": f"The body may have at most {LARGEST} bytes."})
        body = self.rfile.read(int(length))
        if len(body) < int(length):  # without an id, the part would be counted twice when the client repeats it
            return self._answer(400, {"error": "The body is cut short."})
        try:
            part_id = read_id(body or b"{}", trigger.field)
        except ValueError as error:
            return self._answer(400, {"error": f"The body has no readable {trigger.field}: {error}"})
        try:
            opened = trigger.fire(part_id)
        except ConfigError as error:
            return self._answer(409, {"error": str(error)})
        if not opened:
            return self._answer(429, {"error": f"Ignored: it came within {trigger.debounce:g} ms after another one."})
        return self._answer(202, {trigger.answer: opened})

    def _answer(self, status: int, value: dict[str, str]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
