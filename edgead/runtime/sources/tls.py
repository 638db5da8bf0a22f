"""TLS of network cameras: the certificate is verified unless the user turns that off."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from edgead.errors import ConfigError
from edgead.runtime.sources.uri import redact, scheme_of

PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
SECURE = ("https", "rtsps")
_OPTIONS = ("ca", "verify")


@dataclass(frozen=True)
class Tls:
    """How a camera's certificate is checked.

    Attributes:
        verify: check the certificate and the host name in it.
        ca: file with the certificates (PEM) that are trusted; the system's where empty.
    """

    verify: bool = True
    ca: str = ""

    def context(self) -> ssl.SSLContext:
        """Return what Python's connections need."""
        context = ssl.create_default_context(cafile=self.ca or None)
        if not self.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    def ffmpeg_options(self) -> dict[str, str]:
        """Return what FFmpeg's connections need; by itself FFmpeg verifies nothing."""
        if not self.verify:
            return {"tls_verify": "0"}
        trusted = self.ca or ssl.get_default_verify_paths().cafile
        return {"tls_verify": "1", **({"ca_file": trusted} if trusted else {})}


def split_tls(uri: str) -> tuple[str, Tls]:
    """Take ``ca=FILE`` and ``verify=0`` out of the address of a camera with TLS; other addresses stay as they are.

    Returns:
        The address that the camera gets, and how it is verified.

    Raises:
        ConfigError: a value that cannot be used.
    """
    if scheme_of(uri).removeprefix("av+") not in SECURE:
        return uri, Tls()
    address, _, query = uri.partition("?")
    # Not `parse_options`: what is not ours belongs to the camera, and stays as it was written.
    fields = [field.partition("=") for field in query.split("&") if field]
    ours = {name: unquote(value) for name, _, value in fields if name in _OPTIONS}
    rest = "&".join("".join(field) for field in fields if field[0] not in _OPTIONS)
    verify, ca = ours.get("verify", "1"), ours.get("ca", "")
    if verify not in ("0", "1"):
        raise ConfigError(f"{redact(uri)}: verify must be 1, or 0 for a certificate that is not checked.")
    tls = Tls(verify == "1", ca)
    if ca and not Path(ca).is_file():
        raise ConfigError(f"{redact(uri)}: the file {ca} with trusted certificates (ca=FILE) does not exist.")
    try:
        tls.context()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{redact(uri)}: {ca} holds no certificates in PEM format: {error}.") from error
    return f"{address}?{rest}" if rest else address, tls


def connect(address: str, tls: Tls, timeout: float) -> socket.socket:
    """Open a connection to a camera, with TLS where its address says so.

    Args:
        address: ``scheme://host:port/…``.
        tls: how it is verified.
        timeout: seconds.

    Raises:
        OSError: nothing answers, or the certificate is not accepted.
        ValueError: an address without a sensible port.
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
    """Say why there is no connection; for a certificate that is not accepted, what the user can do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not accepted: {error.verify_message.rstrip('.')}.\n"
            "Trust it with ?ca=FILE (PEM), or connect without any check with ?verify=0"
        )
    return f"{getattr(error, 'strerror', None) or error}."
