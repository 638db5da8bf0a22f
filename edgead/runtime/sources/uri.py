"""Names of sources and sinks: their parts, and what of them may be shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

from edgead.errors import ConfigError
from edgead.redaction import redact

__all__ = ["number", "redact", "scheme_of", "split_options"]

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):")


def scheme_of(uri: str) -> str:
    """Return the scheme of a URI, or nothing where it has none (one letter is a drive, not a scheme)."""
    found = _SCHEME.match(uri)
    return found[1] if found else ""


def split_options(uri: str, known: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Split ``scheme:rest?name=value&…`` into the rest and its options.

    Args:
        uri: with or without ``//`` after the scheme.
        known: the options that there are, with their defaults.

    Raises:
        ConfigError: an option that there is not.
    """
    rest, _, query = uri.partition(":")[2].removeprefix("//").partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    unknown = given.keys() - known.keys()
    if unknown:
        raise ConfigError(f"{redact(uri)}: there is no option '{min(unknown)}'; there is {', '.join(known) or 'none'}.")
    return rest, {**known, **given}


def number(uri: str, options: Mapping[str, str], name: str) -> float:
    """Return an option as a number that is not negative.

    Raises:
        ConfigError: it is not one.
    """
    try:
        value = float(options[name])
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ConfigError(f"{redact(uri)}: {name} must be a number from 0 on, not '{options[name]}'.")
    return value
