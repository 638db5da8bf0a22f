"""GET from a camera: with TLS, and with the password in the way that the camera asks for."""

from __future__ import annotations

import hashlib
import http.client
import os
from base64 import b64encode
from urllib.parse import unquote, urlsplit
from urllib.request import parse_http_list, parse_keqv_list

from edgead.runtime.sources.tls import PORTS, Tls, explain_connection
from edgead.runtime.sources.uri import redact

_DIGESTS = {"MD5": "md5", "SHA-256": "sha256"}


class RefusedError(Exception):
    """The camera cannot be had; the text says why."""


def get(address: str, tls: Tls, timeout: float) -> http.client.HTTPResponse:
    """Ask a camera for its stream.

    Args:
        address: ``http://user:password@host:port/path?query``. The password is sent only when asked for.
        tls: how an ``https://`` camera is verified.
        timeout: seconds for each answer.

    Returns:
        The answer, with its body still to come.

    Raises:
        RefusedError: nothing answers, or it refuses.
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
        raise RefusedError(f"{shown}: something answers, but does not speak HTTP.") from None
    if response.status == 200:
        return response
    response.close()
    raise RefusedError(f"{shown}: {explain_status(response.status, response.reason, address)}")


def _ask(address: str, tls: Tls, timeout: float, target: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    if parts.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=timeout, context=tls.context()
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", target, headers={"User-Agent": "edgead", **headers})
        response = connection.getresponse()
    except BaseException:
        connection.close()
        raise
    if connection.sock is not None:  # the server would keep it open: from here on it ends with the answer
        connection.sock.close()
    return response


def authorization(asked: list[str], target: str, user: str, password: str) -> str:
    """Return the ``Authorization`` that answers ``WWW-Authenticate`` headers; digest where there is a choice.

    Returns:
        Empty for no way that is known.
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
    """Return the answer to a challenge after RFC 7616 (RFC 2069 where it asks for no ``qop``)."""

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
    """Say what a camera's answer means, in HTTP and in RTSP."""
    parts = urlsplit(address)
    if code in (401, 403):
        with_user = "does not accept this user and password" if parts.username else "asks for a user and password"
        return f"the camera {with_user}.\nGive them as {parts.scheme}://USER:PASSWORD@HOST/…"
    if code == 404:
        return "the camera answers, but has no stream of that name."
    if code in range(300, 400):
        return f"the camera sends us elsewhere ({code} {reason}). Give the address that it sends to."
    return f"something answers ({code} {reason}), but gives no video."
