"""Where results go. `open_sink` makes a sink from its name; docs/sinks.md has the table of names.

A sink is called by one thread. It is wrapped in an `edgead.runtime.outbox.Outbox`, which has the queue and the account.
"""

from __future__ import annotations

import importlib
from typing import Protocol

from edgead.errors import ConfigError
from edgead.runtime.result import Result
from edgead.runtime.sinks.callback import Callback
from edgead.runtime.sinks.jsonl import JsonLines
from edgead.runtime.sources.uri import redact, scheme_of

FORMS = "jsonl:FILE (or jsonl:- for standard output), sqlite:FILE, rejects:DIR, http://HOST/PATH, mqtt://HOST/TOPIC"
_SCHEMES = {
    "jsonl": "edgead.runtime.sinks.jsonl:open_jsonl",
    "sqlite": "edgead.runtime.sinks.sqlite:open_sqlite",
    "rejects": "edgead.runtime.sinks.rejects:open_rejects",
    "http": "edgead.runtime.sinks.webhook:open_webhook",
    "https": "edgead.runtime.sinks.webhook:open_webhook",
    "mqtt": "edgead.runtime.sinks.mqtt:open_mqtt",
    "mqtts": "edgead.runtime.sinks.mqtt:open_mqtt",
}

__all__ = ["Callback", "JsonLines", "Sink", "open_sink"]


class Sink(Protocol):
    """Takes results, in order. It may also have:

    * ``flush()``: called after some writes; what was written before it is then safe.
    * ``wants_frames = True``: results come with their frame.
    * ``drop(captured, cause)``: called for every frame that got no result.
    """

    def write(self, result: Result) -> None:
        """Take one result."""

    def close(self) -> None:
        """Finish; nothing more will be written."""


def open_sink(uri: str) -> Sink:
    """Make a sink from its name, see docs/sinks.md.

    Raises:
        ConfigError: not one of these, or an option that there is not.
        MissingDependencyError: the package that it needs is not installed.
    """
    scheme = scheme_of(uri)
    if scheme not in _SCHEMES or not uri.partition(":")[2].lstrip("/"):
        raise ConfigError(f"The sink '{redact(uri)}' is not known; give {FORMS}.")
    module, _, function = _SCHEMES[scheme].partition(":")
    try:
        sink: Sink = getattr(importlib.import_module(module), function)(uri)
    except ValueError as error:  # "[::1", or a port that there is not
        raise ConfigError(f"The address of the sink '{redact(uri)}' is not valid: {error}.") from error
    return sink
