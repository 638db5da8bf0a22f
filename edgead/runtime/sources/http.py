"""HTTP GET from a camera, with TLS and basic or digest authentication."""

from __future__ import annotations

import hashlib
import http.client
import os
from base64 import b64encode
from typing import cast
from urllib.parse import unquote, urlsplit
from urllib.request import parse_http_list, parse_keqv_list

from edgead.runtime.sources.tls import PORTS, Tls, explain_connection
from edgead.runtime.sources.uri import redact
from edgead.timed_answer import TimedAnswer

_DIGESTS = {"MD5": "md5", "SHA-256": "sha256"}


class RefusedError(Exception):
    """The camera cannot be opened; the text says why."""


def get(address: str, tls: Tls, timeout: float) -> TimedAnswer:
    """Request a camera's stream.

    Args:
        address: ``http://user:password@host:port/path?query``. The password is sent only on request.
        tls: how an ``https://`` camera is verified.
        timeout: seconds for each answer, up to its body.

    Returns:
        The answer, with its body not yet read.

    Raises:
        RefusedError: no answer, or a refusal.
    """
    shown = f"{redact(address)} cannot be opened"
    try:
        parts = urlsplit(address)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        response = _ask(address, tls, timeout, target, {})
        if response.status == 401 and parts.username:
            asked = response.headers.get_all("WWW-Authenticate", [])
            response.close()
            login = authorization(asked, target, unquote(parts.username), unquote(parts.password or ""))
            if login:
                response = _ask(address, tls, timeout, target, {"Authorization": login})
    except (OSError, ValueError) as error:
        raise RefusedError(f"{shown}: {explain_connection(error)}") from None
    except http.client.HTTPException:
        raise RefusedError(f"{shown}: the server does not speak HTTP.") from None
    if response.status == 200:
        return response
    response.close()
    raise RefusedError(f"{shown}: {explain_status(response.status, response.reason, address)}")


def _ask(address: str, tls: Tls, timeout: float, target: str, headers: dict[str, str]) -> TimedAnswer:
    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    if parts.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=timeout, context=tls.context()
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
    connection.response_class = TimedAnswer
    try:
        connection.request("GET", target, headers={"User-Agent": "edgead", **headers})
        response = cast(TimedAnswer, connection.getresponse())
    except BaseException:
        connection.close()
        raise
    if connection.sock is not None:  # the server would keep it open; without it, the connection ends with the answer
        connection.sock.close()
    return response


def authorization(asked: list[str], target: str, user: str, password: str) -> str:
    """Return the ``Authorization`` for ``WWW-Authenticate`` headers; digest is preferred.

    Returns:
        Empty if no scheme is supported.
    """
    schemes = {scheme.lower(): rest for scheme, _, rest in (value.partition(" ") for value in asked)}
    if "digest" in schemes:
        fields = parse_keqv_list(parse_http_list(schemes["digest"]))
        algorithm = fields.get("algorithm", "MD5").upper()
        if algorithm in _DIGESTS:
            return _digest(fields, algorithm, target, user, password)
    if "basic" in schemes:
        return "Basic " + b64encode(f"{user}:{password}".encode()).decode()
    return ""


def _digest(fields: dict[str, str], algorithm: str, target: str, user: str, password: str) -> str:
    """Return the answer to a challenge by RFC 7616 (RFC 2069 without ``qop``)."""

    def digest(*values: str) -> str:
        return hashlib.new(_DIGESTS[algorithm], ":".join(values).encode()).hexdigest()

    realm, nonce, own = fields.get("realm", ""), fields.get("nonce", ""), os.urandom(8).hex()
    secret, request = digest(user, realm, password), digest("GET", target)
    answer = {"username": user, "realm": realm, "nonce": nonce, "uri": target}
    if "qop" in fields:
        answer["response"] = digest(secret, nonce, "00000001", own, "auth", request)
    else:
        answer["response"] = digest(secret, nonce, request)
    answer |= {name: fields[name] for name in ("opaque",) if name in fields}
    text = ", ".join(f'{name}="{value}"' for name, value in answer.items())
    more = f', qop=auth, nc=00000001, cnonce="{own}"' if "qop" in fields else ""
    return f"Digest {text}, algorithm={algorithm}{more}"


def explain_status(code: int, reason: str, address: str) -> str:
    """Return the meaning of a camera's HTTP or RTSP status."""
    parts = urlsplit(address)
    if code in (401, 403):
        with_user = "does not accept this user and password" if parts.username else "asks for a user and password"
        return f"the camera {with_user}.\nGive them as {parts.scheme}://USER:PASSWORD@HOST/…"
    if code == 404:
        return "the camera has no stream of that name."
    if code in range(300, 400):
        return f"the camera redirects ({code} {reason}). Give the address that it redirects to."
    return f"the server sends no video ({code} {reason})."
