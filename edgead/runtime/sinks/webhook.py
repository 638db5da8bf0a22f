"""Results by HTTP POST."""

from __future__ import annotations

import base64
import json
import threading
import urllib.error
import urllib.request
from urllib.parse import unquote, urlsplit, urlunsplit

from edgead.errors import SinkError
from edgead.runtime.result import Result
from edgead.runtime.sources.uri import redact

ATTEMPTS = 4
FIRST_DELAY = 0.5
"""Seconds before the second attempt; doubled after each."""
TIMEOUT = 5.0
_AGAIN = (408, 429)


def open_webhook(uri: str) -> Webhook:
    """``http://user:password@host/path`` or ``https://…``."""
    return Webhook(uri)


class Webhook:
    """Posts each result as JSON. What the server does not take is tried again, unless it says that it is wrong (4xx).

    Args:
        url: where to; user and password become an Authorization header.
        attempts: in all.
        first_delay: seconds before the second one; doubled after each.
    """

    def __init__(self, url: str, attempts: int = ATTEMPTS, first_delay: float = FIRST_DELAY) -> None:
        self.name = redact(url)
        parts = urlsplit(url)
        self._url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        self._headers = {"Content-Type": "application/json"}
        if parts.username:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        self._attempts, self._first_delay = attempts, first_delay
        self._closed = threading.Event()

    def write(self, result: Result) -> None:
        body = json.dumps(result.to_dict(), ensure_ascii=False).encode()
        delay = self._first_delay
        for attempt in range(self._attempts):
            if attempt:
                self._closed.wait(delay)
                delay *= 2
            reason = self._post(body)
            if not reason:
                return
        raise SinkError(f"{self.name} did not take the result in {self._attempts} attempts: {reason}")

    def _post(self, body: bytes) -> str:
        """Return why it should be tried again; nothing where the server has it."""
        request = urllib.request.Request(self._url, body, self._headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT):
                return ""
        except urllib.error.HTTPError as error:
            with error:
                reason = f"HTTP {error.code} {error.reason}"
            if 400 <= error.code < 500 and error.code not in _AGAIN:
                raise SinkError(f"{self.name} refuses the result: {reason}") from None
            return reason
        except OSError as error:
            return str(getattr(error, "reason", None) or error)

    def close(self) -> None:
        self._closed.set()
