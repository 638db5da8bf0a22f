"""The methods there are. A new one is a file or a folder here and a line in `METHODS`."""

from __future__ import annotations

import difflib
import importlib

from edgead.errors import ConfigError
from edgead.train.method import Method

METHODS = {
    "draem": "edgead.train.methods.draem:Draem",
    "differnet": "edgead.train.methods.differnet:Differnet",
    "aand": "edgead.train.methods.aand.method:Aand",
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
