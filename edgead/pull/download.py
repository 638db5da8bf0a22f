"""Downloads files from a folder by HTTPS: verified, limited in bytes and time, and resumed where they broke off."""

from __future__ import annotations

import contextlib
import http.client
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from edgead.bundle import LARGEST_FILE
from edgead.errors import PullError
from edgead.redaction import redact
from edgead.runtime.sources.tls import remedy
from edgead.timed_answer import TimedAnswer

BLOCK = 1 << 16
SILENCE = 20.0
"""Seconds without a byte after which a connection is given up."""
LONGEST = 3600.0
"""Seconds for all files together; a later pull resumes."""
TRIES = 6
"""Connections that break off without a new byte, until a file is given up."""
PAUSE = 1.0
"""Seconds before the second try; each further pause is twice as long."""


class _RefuseRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect could lead away from HTTPS, or take a token to another host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class _TimedHandler(urllib.request.HTTPSHandler):
    """Answers have to come within the timeout, however slowly their headers trickle."""

    def do_open(self, http_class: Any, req: urllib.request.Request, **options: Any) -> http.client.HTTPResponse:
        def connect(host: str, **more: Any) -> http.client.HTTPConnection:
            connection: http.client.HTTPConnection = http_class(host, **more)
            connection.response_class = TimedAnswer
            return connection

        return super().do_open(connect, req, **options)


class _Broken(Exception):  # noqa: N818
    """The connection broke off; why."""


class Folder:
    """A folder on a server.

    Args:
        url: ``https://HOST/FOLDER``.
        token: for the header ``Authorization: Bearer TOKEN``; empty for none.
        ca: file of the certificates that are trusted instead of the system's.
        limit: most bytes of all files together.
        say: shows a line.

    Attributes:
        received: bytes that came over the network.
        resumed: how often a file was continued.

    Raises:
        PullError: not such a URL, or the certificates cannot be read.
    """

    def __init__(
        self, url: str, *, token: str = "", ca: Path | None = None, limit: int, say: Callable[[str], None]
    ) -> None:
        self.url, self._say = _check_url(url), say
        self._left, self._until = limit, time.monotonic() + LONGEST
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "edgead"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        try:
            context = ssl.create_default_context(cafile=None if ca is None else str(ca))
        except (OSError, ssl.SSLError) as error:
            raise PullError(f"The certificates in {ca} cannot be read: {error.strerror or error}.") from error
        self._opener = urllib.request.build_opener(_TimedHandler(context=context), _RefuseRedirects())
        self.received = self.resumed = 0

    def read(self, name: str, most: int) -> bytes:
        """Return the content of a small file.

        Raises:
            PullError: it cannot be fetched, or has more than `most` bytes.
        """

        def once() -> bytes:
            with self._open(name, 0) as answer:
                _refuse_long(name, answer, 0, most)
                blocks, count = [], 0
                for block in self._blocks(answer):
                    count += len(block)
                    if count > most:
                        raise PullError(f"{name} is larger than the {most} bytes that it may have.")
                    blocks.append(block)
                return b"".join(blocks)

        content: bytes = self._persist(name, once, lambda: 0)
        return content

    def fetch(self, name: str, path: Path) -> None:
        """Write a file; what is there already is taken for its beginning.

        Raises:
            PullError: it cannot be fetched, the limits are exceeded, or the disk is full.
        """

        most = min(self._left, LARGEST_FILE)
        if _size(path) > most:
            path.unlink()

        def once() -> None:
            count = _size(path)
            with self._open(name, count) as answer:
                if answer is None:  # nothing is left to fetch
                    return
                if count and answer.status != 206:
                    count = 0  # this server does not resume
                self.resumed += bool(count)
                length = _refuse_long(name, answer, count, most)
                if length > shutil.disk_usage(path.parent).free:
                    raise PullError(f"The disk of {path.parent} has too little space for {name}: {length >> 20} MB.")
                with path.open("ab" if count else "wb") as stream:
                    for block in self._blocks(answer):
                        count += len(block)
                        if count > most:
                            raise PullError(f"{name} is larger than the {most} bytes that are left of --max-size.")
                        stream.write(block)

        try:
            self._persist(name, once, lambda: _size(path))
        except OSError as error:
            raise PullError(f"{path} cannot be written: {error.strerror or error}.") from error
        self._left -= _size(path)

    def _persist(self, name: str, once: Callable[[], Any], size: Callable[[], int]) -> Any:
        """Repeat what breaks off. A try that brought bytes does not count."""
        left, pause = TRIES, PAUSE
        while True:
            before = size()
            try:
                return once()
            except _Broken as error:
                if size() > before:
                    left, pause = TRIES, PAUSE
                left -= 1
                if left <= 0 or time.monotonic() + pause > self._until:
                    raise PullError(
                        f"{name} could not be fetched from {redact(self.url)}: {redact(str(error))}.\n"
                        "Pull again: what has arrived is kept."
                    ) from error
                self._say(f"{name}: {redact(str(error))}. Trying again.")
                time.sleep(pause)
                pause *= 2

    @contextlib.contextmanager
    def _open(self, name: str, begin: int) -> Iterator[Any]:
        """Yield the answer to a request; None where a file has no bytes after `begin`."""
        request = urllib.request.Request(f"{self.url}/{quote(name)}", headers=dict(self._headers))
        if begin:
            request.add_header("Range", f"bytes={begin}-")
        try:
            answer = self._opener.open(request, timeout=SILENCE)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and begin:
                yield None
                return
            if error.code >= 500 or error.code in (408, 429):
                raise _Broken(f"the server answers {error.code}") from error
            raise PullError(_explain(name, self.url, error.code)) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise PullError(
                    f"The certificate of {redact(self.url)} is refused: {reason.verify_message}.\n"
                    + remedy(reason, "Trust the maker of its certificate with:  --ca FILE")
                ) from error
            raise _Broken(f"no connection ({reason or type(error).__name__})") from error
        with answer:
            if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise PullError(f"The server sends {name} compressed, which was not asked for.")
            found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
            if answer.status == 206 and (not found or int(found[1]) != begin):
                raise PullError(f"The server sends another part of {name} than the one that was asked for.")
            yield answer

    def _blocks(self, answer: Any) -> Iterator[bytes]:
        while True:
            if time.monotonic() > self._until:
                raise PullError(f"The pull took more than {LONGEST / 60:g} minutes. Pull again: it resumes.")
            answer.allow(SILENCE)
            try:
                block = answer.read1(BLOCK)
            except (OSError, http.client.HTTPException) as error:
                raise _Broken(f"the connection broke off ({type(error).__name__})") from error
            if not block:
                break
            self.received += len(block)
            yield block
        if getattr(answer, "length", None):
            raise _Broken(f"the connection broke off, {answer.length} bytes early")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise PullError(f"{redact(url)} is not a URL.") from error
    if parts.scheme.lower() != "https" or not parts.hostname:
        raise PullError(f"A bundle is pulled from https://HOST/FOLDER, not from '{redact(url)}'.")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise PullError("The URL of a bundle has no password, ? and #. Give a token with:  --token '${NAME}'")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise PullError("The URL of a bundle has ASCII characters only. Write others as %XX.")
    return url.rstrip("/")


def _refuse_long(name: str, answer: Any, already: int, most: int) -> int:
    """Return the length that a server announces, 0 if none; refuse more than is allowed, before anything is read."""
    text = answer.headers.get("Content-Length", "")
    length = int(text) if re.fullmatch(r"\d{1,15}", text) else 0
    if already + length > most:
        raise PullError(f"{name} has {length} bytes, and at most {most} are left. Allow more with:  --max-size MB")
    return length


def _explain(name: str, url: str, code: int) -> str:
    if code in (301, 302, 303, 307, 308):
        return f"{redact(url)} redirects to another address. Redirects are not followed: give that address."
    if code in (401, 403):
        return f"{redact(url)} needs a token ({code}). Give it with:  --token '${{NAME}}'"
    return f"{redact(url)} has no {name}: the server answers {code}."
