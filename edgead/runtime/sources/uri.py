"""URIs of sources and sinks: parsing, secrets and redaction."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl, quote, urlsplit

from edgead.errors import ConfigError
from edgead.home import at_home
from edgead.redaction import printable, redact, remember_secret
from edgead.settings import parse_settings

__all__ = [
    "UNSET",
    "NoOptions",
    "complete",
    "fill_secrets",
    "parse_options",
    "redact",
    "refuse_bare_address",
    "scheme_of",
    "split_options",
]

UNSET = "Is the variable that it comes from set?"
"""Said of an address that names nothing."""
LARGEST = 1e9
"""Largest number of an option: what is later added to a time or waited for must not overflow."""
T = TypeVar("T")
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]+):")
_NETWORK = re.compile(r"(?:av\+)?(?:rtsps?|https?)|mqtts?")
_FILES = frozenset({"jsonl", "sqlite", "rejects", "watch", "replay"})
"""Schemes of paths, in which ``${`` and ``%`` are characters of a name."""
_SECRET = re.compile(r"\$\{(?:(?P<file>file:[^}]*)|(?P<name>\w+))\}")
_BARE_ADDRESS = re.compile(r"\s*[^\s:/\\@]+:[^@]*@[^\s@/]+")
_ODD = "In a user or password write / as %2F, ? as %3F, # as %23, @ as %40, a space as %20, or take it from ${NAME}."


def scheme_of(uri: str) -> str:
    """Return the scheme of a URI in lower case, or empty if it has none (one letter is a drive, not a scheme)."""
    found = _SCHEME.match(uri)
    return found[1].lower() if found else ""


def complete(uri: str) -> str:
    """Return a URI with its scheme in lower case and its secrets filled in.

    Raises:
        ConfigError: a secret is missing, or a network address is malformed or ambiguous. The error shows nothing that
            may be a password.
    """
    scheme = scheme_of(uri)
    if not scheme:
        return uri
    rest = uri.partition(":")[2]
    if rest.startswith("//") and scheme not in _FILES:
        rest = fill_secrets(rest, encode=True)
    completed = f"{scheme}:{rest}"
    if _NETWORK.fullmatch(scheme):
        _check_address(scheme, completed)
    return completed


def _check_address(scheme: str, uri: str) -> None:
    start = scheme + "://"
    if not uri.startswith(start):
        raise ConfigError(f"An address of this kind must begin with {start}, as in {start}HOST/PATH.")
    if any(character.isspace() or not character.isprintable() for character in uri):
        raise ConfigError(f"The {start} address contains a space or a control character.\n{_ODD}")
    if found := re.search(r"[/?#].*@", uri[len(start) :]):
        raise ConfigError(
            f"The {start} address has an @ after its first {found[0][0]}, so its host is ambiguous.\n{_ODD}"
        )
    try:
        parts = urlsplit(uri)
        good = bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ConfigError(
            f"The {start} address has no host, or a malformed one or port. It is {start}USER:PASSWORD@HOST:PORT/PATH."
        )


def refuse_bare_address(uri: str) -> None:
    """Refuse ``USER:PASSWORD@HOST`` without a scheme, which would be treated as a file name and shown.

    Raises:
        ConfigError: it looks like such an address.
    """
    if _BARE_ADDRESS.match(uri) and not os.path.lexists(uri):
        raise ConfigError("This looks like an address with a user and password, without a scheme such as rtsp://.")


def fill_secrets(text: str, encode: bool = False) -> str:
    """Replace ``${NAME}`` by the environment variable NAME, and ``${file:PATH}`` by the content of a file.

    Args:
        text: with any number of them. The values are redacted from then on.
        encode: percent-encode the values, for a URI.

    Raises:
        ConfigError: the variable is not set, or the file cannot be read.
    """

    def value_of(found: re.Match[str]) -> str:
        value = _read_secret(found)
        encoded = quote(value, safe="", errors="surrogateescape")
        for form in (value, encoded):
            remember_secret(form, printable(found[0]))
        return encoded if encode else value

    return _SECRET.sub(value_of, text)


def read_secret(text: str, option: str) -> str:
    """Return the secret of ``${NAME}`` or ``${file:PATH}``; empty for none.

    Args:
        text: what the option was given.
        option: its name, for messages.

    Raises:
        ConfigError: the secret itself was given, which other users see; or it cannot be read.
    """
    if not text:
        return ""
    if not _SECRET.fullmatch(text):
        raise ConfigError(
            f"A secret on the command line is visible in ps.\n"
            f"Read it from the environment or a file:  {option} '${{NAME}}'  or  '${{file:PATH}}'"
        )
    return fill_secrets(text)


def _read_secret(found: re.Match[str]) -> str:
    if found["name"]:
        if not os.environ.get(found["name"]):
            raise ConfigError(f"The environment variable {found['name']}, used as {found[0]}, is not set or empty.")
        return os.environ[found["name"]]
    path = Path(at_home(found["file"].removeprefix("file:")))
    try:
        return path.read_text(encoding="utf-8").strip("\r\n")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"The secret in {printable(str(path))} cannot be read: {why}.") from error


@dataclass(frozen=True)
class NoOptions:
    """The options of a URI without options."""


def split_options(uri: str, kind: type[T]) -> tuple[str, T]:
    """Split ``scheme:rest?name=value&…`` into the rest and its options.

    Args:
        uri: with or without ``//`` after the scheme.
        kind: a dataclass of the options with their defaults. Numbers must be 0 to `LARGEST`.

    Raises:
        ConfigError: an unknown option, or a value of the wrong type. The error shows nothing that may be a password.
    """
    rest, _, query = uri.partition(":")[2].removeprefix("//").partition("?")
    return at_home(rest), parse_options(uri, query, kind)


def parse_options(uri: str, query: str, kind: type[T]) -> T:
    """Parse the options ``name=value&…`` of a URI. See `split_options`."""
    owner = redact(uri)
    given = [(name if name.isidentifier() else "…", value) for name, value in parse_qsl(query, keep_blank_values=True)]
    texts = dict(given)
    if len(texts) < len(given):
        names = [name for name, _ in given]
        raise ConfigError(f"{owner}: {max(names, key=names.count)} is given twice.")
    values = parse_settings(kind, texts, owner, what="option")
    for name, value in values.items():
        if isinstance(value, int | float) and not 0 <= value <= LARGEST:
            raise ConfigError(f"{owner}: {name} must be a number from 0 to 1e9, not '{texts[name]}'.")
    return kind(**values)
