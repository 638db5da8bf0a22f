"""The methods there are. A new one is a file or a folder here and a line in `METHODS`."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from typing import Any

from edgead.errors import ConfigError
from edgead.train.method import Method

METHODS = {
    "draem": "edgead.train.methods.draem:Draem",
    "differnet": "edgead.train.methods.differnet:Differnet",
    "aand": "edgead.train.methods.aand:Aand",
    "transfusion": "edgead.train.methods.transfusion.method:Transfusion",
    "drept": "edgead.train.methods.drept.method:Drept",
}


def get_method(name: str) -> type[Method]:
    """Return the method's class.

    Raises:
        ConfigError: no such method; the nearest name is suggested.
    """
    if name not in METHODS:
        close = difflib.get_close_matches(name.lower(), METHODS, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise ConfigError(f"There is no method '{name}'.{hint} There is: {', '.join(METHODS)}.")
    module, _, attribute = METHODS[name].partition(":")
    method: type[Method] = getattr(importlib.import_module(module), attribute)
    return method


def describe() -> list[dict[str, Any]]:
    """Return what is to be known of each method, as JSON values."""
    described = []
    for name in METHODS:
        method = get_method(name)
        card, (height, width) = method.card, method.Config().size
        described.append(
            {
                "name": name,
                "title": card.title,
                "paper": card.paper,
                "weights": f"{card.parameters:g} M, {card.macs:g} GMAC per {height}×{width} image",
                "published": card.published,
                "protocol": card.protocol,
                "localises": card.localises,
                "needs": card.needs,
                "presets": ", ".join(method.presets),
                "settings": dataclasses.asdict(method.Config()),
                "export_settings": list(method.export_settings),
            }
        )
    return described
