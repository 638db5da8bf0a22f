"""Addresses of PLC outputs: ``scheme:HOST:PORT?name=value``."""

from __future__ import annotations

from typing import TypeVar
from urllib.parse import urlsplit

from edgead.errors import ConfigError
from edgead.runtime.sources.uri import parse_options, redact, scheme_of

T = TypeVar("T")


def split_address(uri: str, default_port: int, kind: type[T]) -> tuple[str, int, T]:
    """Return host, port and options of a URI.

    Args:
        uri: with or without ``//`` after the scheme.
        default_port: where the URI has none.
        kind: a dataclass of the options, see `parse_options`.

    Raises:
        ConfigError: no host, a port that is none, something else in the address, or a wrong option.
    """
    scheme = scheme_of(uri)
    rest = uri.partition(":")[2].removeprefix("//")
    form = f"{scheme}{'://' if uri.startswith(scheme + '://') else ':'}HOST:PORT"
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, parts.port if parts.port is not None else default_port
    except ValueError:
        host, port = None, 0
    else:
        if parts.path.strip("/") or parts.username is not None or parts.fragment:
            host = None
    if not host:
        raise ConfigError(
            f"{redact(uri)} is not an address of a PLC output. Write {form}, for instance 127.0.0.1:5020."
        )
    return host, port, parse_options(uri, parts.query, kind)


def at(host: str, port: int) -> str:
    """Return ``HOST:PORT``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
