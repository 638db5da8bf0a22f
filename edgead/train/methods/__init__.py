"""The methods. A new one is a folder here, of the same layout as the others, and a line in `METHODS`.

NAME/config.py            the configuration, a frozen dataclass; its defaults are the published training
NAME/network.py           the network, with the published module and parameter names
NAME/losses.py            what training minimises, where the network's own `forward` does not say
NAME/examples.py          training examples, where they are more than a good image with an anomaly on it
NAME/reference_model.py   frames to scores and maps as published
NAME/export_model.py      the same in fewer and faster operations
NAME/method.py            the `Method`: stages, presets, card and published checkpoints
"""

from __future__ import annotations

import importlib

from edgead.errors import ConfigError, unknown
from edgead.train.method import Method

METHODS = {
    "draem": "edgead.train.methods.draem.method:Draem",
    "differnet": "edgead.train.methods.differnet.method:Differnet",
    "aand": "edgead.train.methods.aand.method:Aand",
    "transfusion": "edgead.train.methods.transfusion.method:Transfusion",
    "drept": "edgead.train.methods.drept.method:Drept",
    "patchcore": "edgead.train.methods.patchcore.method:Patchcore",
    "student": "edgead.train.methods.student.method:Student",
}


def get_method(name: str) -> type[Method]:
    """Return the method's class.

    Raises:
        ConfigError: no such method; the nearest name is suggested.
    """
    if name not in METHODS:
        raise ConfigError(unknown("method", name, METHODS))
    module, _, attribute = METHODS[name].partition(":")
    method: type[Method] = getattr(importlib.import_module(module), attribute)
    return method
