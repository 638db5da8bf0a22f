"""TLS of network cameras. Certificates are verified unless the user turns that off."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from edgead.errors import ConfigError
from edgead.runtime.sources.uri import redact, scheme_of
from edgead.text import utc_now

PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
SECURE = ("https", "rtsps")
_OPTIONS = ("ca", "verify")
_NOT_YET, _EXPIRED = 9, 10
"""OpenSSL's codes of a certificate that is not valid today."""


@dataclass(frozen=True)
class Tls:
    """How a camera's certificate is verified.

    Attributes:
        verify: verify the certificate and its host name.
        ca: file with trusted certificates (PEM); empty for the system's.
    """

    verify: bool = True
    ca: str = ""

    def context(self) -> ssl.SSLContext:
        """Return the context for Python's connections."""
        context = ssl.create_default_context(cafile=self.ca or None)
        if not self.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    def ffmpeg_options(self) -> dict[str, str]:
        """Return the options for FFmpeg's connections; FFmpeg's default is no verification."""
        if not self.verify:
            return {"tls_verify": "0"}
        trusted = self.ca or ssl.get_default_verify_paths().cafile
        return {"tls_verify": "1", **({"ca_file": trusted} if trusted else {})}


def split_tls(uri: str) -> tuple[str, Tls]:
    """Remove ``ca=FILE`` and ``verify=0`` from a TLS address; other addresses are unchanged.

    Returns:
        The address for the camera, and how it is verified.

    Raises:
        ConfigError: an invalid value.
    """
    if scheme_of(uri).removeprefix("av+") not in SECURE:
        return uri, Tls()
    address, _, query = uri.partition("?")
    # Not `parse_options`: all other options belong to the camera and stay unchanged.
    fields = [field.partition("=") for field in query.split("&") if field]
    ours = {name: unquote(value) for name, _, value in fields if name in _OPTIONS}
    rest = "&".join("".join(field) for field in fields if field[0] not in _OPTIONS)
    verify, ca = ours.get("verify", "1"), ours.get("ca", "")
    if verify not in ("0", "1"):
        raise ConfigError(f"{redact(uri)}: verify must be 1, or 0 for no verification.")
    tls = Tls(verify == "1", ca)
    if ca and not Path(ca).is_file():
        raise ConfigError(f"{redact(uri)}: the file {ca} with trusted certificates (ca=FILE) does not exist.")
    try:
        tls.context()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{redact(uri)}: {ca} holds no certificates in PEM format: {error}.") from error
    return f"{address}?{rest}" if rest else address, tls


def connect(address: str, tls: Tls, timeout: float) -> socket.socket:
    """Open a connection to a camera, with TLS if its scheme requires it.

    Args:
        address: ``scheme://host:port/…``.
        tls: how it is verified.
        timeout: seconds.

    Raises:
        OSError: no answer, or the certificate is rejected.
        ValueError: the address has an invalid port.
    """
    parts = urlsplit(address)
    plain = socket.create_connection((parts.hostname or "", parts.port or PORTS[parts.scheme]), timeout=timeout)
    if parts.scheme not in SECURE:
        return plain
    try:
        return tls.context().wrap_socket(plain, server_hostname=parts.hostname)
    except BaseException:
        plain.close()
        raise


def explain_connection(error: Exception) -> str:
    """Return why a connection failed; for a rejected certificate also the remedy."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is rejected: {error.verify_message.rstrip('.')}.\n" + remedy(
            error, "Trust it with ?ca=FILE (PEM), or connect without verification with ?verify=0"
        )
    return f"{getattr(error, 'strerror', None) or error}."


def remedy(error: ssl.SSLCertVerificationError, trust: str) -> str:
    """Return what to do about a rejected certificate.

    Args:
        error: why it was rejected.
        trust: how to trust its maker. That does not help on a machine that has lost its clock, as after a power cut.
    """
    if error.verify_code not in (_NOT_YET, _EXPIRED):
        return trust
    return f"The clock here says {utc_now()}. Set it if that is wrong; if it is right, the certificate must be renewed."
