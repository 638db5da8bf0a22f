"""Secrets that the command line itself holds, where `ps` and the shell's history show them."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

import click

from edgead.console import Console

ADDRESSES = ("sources", "sinks", "triggers", "control")
LOCAL = ("jsonl", "sqlite", "rejects", "record", "watch", "replay", "synthetic")
_SECRET_NAMES = re.compile(r"(?i)token|passw|passphrase|secret|api_?key")


def check_visible_secrets(console: Console) -> None:
    """Refuse a token of the running verb, and warn of passwords in its addresses, that are written out.

    Raises:
        ConfigError: a token is.
    """
    from edgead.runtime.sources.uri import read_secret

    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) is not click.core.ParameterSource.COMMANDLINE:
            continue
        given = context.params.get(name)
        if name == "metrics_token":
            read_secret(str(given), parameter.opts[0])
        elif name in ADDRESSES and any(map(holds_secret, given or ())):
            console.say(
                f"Warning: ps shows the password in {parameter.opts[0]}. Write '${{NAME}}' or '${{file:PATH}}' in its "
                "place; see docs/secrets.md."
            )


def holds_secret(uri: str) -> bool:
    """Tell whether an address has a password or token that is written out."""
    from edgead.runtime.sources.uri import scheme_of

    named = re.match(r"[\w-]+=(?=[a-z])", uri)
    uri = uri[named.end() :] if named else uri
    if scheme_of(uri) in LOCAL:
        return False
    try:
        parts = urlsplit(uri)
        values = [parts.password or ""]
    except ValueError:
        return False
    values += [value for name, value in parse_qsl(parts.query) if _SECRET_NAMES.search(name)]
    return any(value and "${" not in value for value in values)
