"""Sends results by HTTP POST."""

from __future__ import annotations

import base64
import json
import urllib.request
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from edgead.errors import SinkError
from edgead.redaction import redact
from edgead.runtime.result import Result
from edgead.runtime.sinks.exchange import Answer, Exchange
from edgead.runtime.sinks.sink import BaseSink

ATTEMPTS = 4
FIRST_DELAY = 0.5
"""Seconds before the second attempt; doubled after each."""
TIMEOUT = 5.0
"""Seconds for one attempt, from the lookup of the host to the last byte of the answer."""
_AGAIN = (408, 425, 429)


def open_webhook(uri: str) -> Webhook:
    """``http://user:password@host/path`` or ``https://…``."""
    return Webhook(uri)


class Webhook(BaseSink):
    """Posts each result as JSON, with its id in the header ``Idempotency-Key``.

    A result is taken when the answer is complete and its status is 2xx. It is retried after a failed connection, an
    answer that is late, truncated or not HTTP, and the status 408, 425, 429 or 5xx. Any other status fails at once.
    Redirects are refused: a redirected POST may lose its body or send the password to another host. After a result
    failed in all attempts, later ones have one attempt each until one succeeds.

    Args:
        url: of the receiver; user and password become an Authorization header.
        attempts: maximum number of attempts.
        first_delay: seconds before the second attempt; doubled after each.
        timeout: seconds for one attempt in total.
    """

    def __init__(
        self, url: str, attempts: int = ATTEMPTS, first_delay: float = FIRST_DELAY, timeout: float = TIMEOUT
    ) -> None:
        super().__init__(redact(url))
        parts = urlsplit(url)
        address = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
        self._url = quote(address, safe="%/:?#[]@!$&'()*+,;=~")
        self._headers = {"Content-Type": "application/json"}
        if parts.username:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        self._attempts, self._first_delay, self._timeout = attempts, first_delay, timeout
        self._away = False

    def look(self) -> str:
        """Ask the server for its options, which changes nothing there, and return that it answers.

        Raises:
            SinkError: it does not, or its certificate is rejected.
        """
        answer = Exchange(urllib.request.Request(self._url, headers=self._headers, method="OPTIONS")).run(self._timeout)
        if answer.error:
            raise SinkError(redact(answer.error))
        _refuse_redirect(answer)
        if answer.status in (401, 403, 502, 503, 504):
            raise SinkError(f"the server would take no result now: HTTP {answer.status} {answer.reason}")
        return f"the server answers (HTTP {answer.status})"

    def write(self, result: Result) -> None:
        attempts, delay = 1 if self._away else self._attempts, self._first_delay
        for attempt in range(attempts):
            if attempt:
                if self.stopped.wait(delay):
                    break
                delay *= 2
            reason = self._post(result)
            if not reason:
                self._away = False
                return
        self._away = True
        tries = "1 attempt" if attempt == 0 else f"{attempt + 1} attempts"
        raise SinkError(f"not taken in {tries}: {reason}")

    def _post(self, result: Result) -> str:
        """Return why the post must be retried; empty if the server has taken it."""
        headers = {**self._headers, **({"Idempotency-Key": result.id} if result.id else {})}
        body = json.dumps(result.to_dict()).encode()
        answer = Exchange(urllib.request.Request(self._url, body, headers, method="POST")).run(self._timeout)
        if answer.error:
            return redact(answer.error)
        if 200 <= answer.status < 300:
            return ""
        _refuse_redirect(answer)
        reason = f"HTTP {answer.status} {answer.reason}"
        if 400 <= answer.status < 500 and answer.status not in _AGAIN:
            raise SinkError(f"the server refuses the result: {reason}")
        return reason


def _refuse_redirect(answer: Answer) -> None:
    if 300 <= answer.status < 400:
        target = redact(answer.location) or "nowhere"
        raise SinkError(f"the server redirects (HTTP {answer.status}) to {target}; use that address")
