"""Sinks receive results. `open_sink` opens a sink by its URI; docs/sinks.md lists the URIs.

Only one thread calls a sink, that of its `edgead.runtime.sink_worker.SinkWorker`, which has the queue and the account.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable
from functools import partial
from importlib import metadata

from edgead.errors import ConfigError, DiskError
from edgead.home import at_home
from edgead.runtime.sinks.callback import Callback
from edgead.runtime.sinks.jsonl import JsonLines
from edgead.runtime.sinks.late import LateSink
from edgead.runtime.sinks.sink import BaseSink, LeftOut, Sink
from edgead.runtime.sources.uri import UNSET, complete, redact, refuse_bare_address, scheme_of
from edgead.settings import check_text

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

PLUGINS = "edgead.sinks"
"""Group of entry points for further schemes: ``name = module:function``. The function takes the URI."""

__all__ = ["BaseSink", "Callback", "JsonLines", "LeftOut", "Sink", "open_sink", "refuse_twice"]


def open_sink(uri: str) -> Sink:
    """Open a sink by its URI, see docs/sinks.md. Plug-ins may add schemes.

    A sink whose disk is full or fails, or whose database is damaged, is opened later: a line must not stand still for
    its records.

    Raises:
        ConfigError: an unknown scheme or option, no file or folder, or a missing secret.
        MissingDependencyError: its package is not installed.
    """
    check_text("The URI of a sink", uri)
    uri = complete(uri)
    scheme = scheme_of(uri)
    if scheme in _SCHEMES:
        if not uri.partition(":")[2].partition("?")[0].strip("/ "):  # as a path, it would be the current folder
            raise ConfigError(f"The sink {redact(uri)} names nothing to write to. {UNSET}")
        module, _, function = _SCHEMES[scheme].partition(":")
        opening: Callable[[str], Sink] = getattr(importlib.import_module(module), function)
        try:
            return opening(uri)
        except DiskError as error:
            return LateSink(redact(uri), partial(opening, uri), error)
    plugins = list(metadata.entry_points(group=PLUGINS))
    for plugin in plugins:
        if plugin.name == scheme:
            brought: Sink = plugin.load()(uri)
            return brought
    refuse_bare_address(uri)
    brought_in = ", ".join(sorted({plugin.name for plugin in plugins}))
    more = f"; by plug-ins: {brought_in}" if brought_in else ""
    raise ConfigError(f"Unknown sink '{redact(uri)}'. Available: {FORMS}{more}.")


def refuse_twice(sinks: Iterable[object]) -> None:
    """Refuse a sink that is given twice, and would get every result twice; and two that write to one file.

    Raises:
        ConfigError: with its URI.
    """
    places: dict[str, str] = {}
    for uri in (sink.strip() for sink in sinks if isinstance(sink, str)):
        other = places.get(place := _place_of(uri))
        if other is None:
            places[place] = uri
        elif scheme_of(other) == scheme_of(uri):
            raise ConfigError(f"The sink {redact(uri)} is given twice, and would get every result twice.")
        else:
            text = f"The sinks {redact(other)} and {redact(uri)} would write to one file. Name another for one."
            raise ConfigError(text)


def _place_of(uri: str) -> str:
    """Return the same text for two URIs of one file or folder, however they are written."""
    scheme, _, rest = uri.partition(":")
    if scheme not in ("jsonl", "sqlite", "rejects") or rest == "-":
        return uri
    return os.path.realpath(at_home(rest.removeprefix("//").partition("?")[0]))
