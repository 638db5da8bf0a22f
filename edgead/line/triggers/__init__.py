"""Triggers open parts. `open_triggers` opens them by their URIs; docs/line.md lists these."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

from edgead.errors import ConfigError
from edgead.line.triggers.camera import CameraTrigger
from edgead.line.triggers.trigger import BaseTrigger, Trigger
from edgead.runtime.sources.source import Source
from edgead.runtime.sources.uri import complete, redact, refuse_bare_address, scheme_of

FORMS = (
    "camera:, http://HOST:PORT/PATH, mqtt://HOST/TOPIC, modbus://HOST/coil/NUMBER, gpio:/dev/gpiochipN/LINE; "
    "docs/line.md has their options"
)
_SCHEMES = {
    "camera": "edgead.line.triggers.camera:open_camera",
    "http": "edgead.line.triggers.http:open_http",
    "mqtt": "edgead.line.triggers.mqtt:open_mqtt",
    "mqtts": "edgead.line.triggers.mqtt:open_mqtt",
    "modbus": "edgead.line.triggers.modbus:open_modbus",
    "gpio": "edgead.line.triggers.gpio:open_gpio",
}

__all__ = ["BaseTrigger", "CameraTrigger", "Trigger", "open_trigger", "open_triggers"]


def open_trigger(uri: str) -> Trigger:
    """Open a trigger by its URI. It opens no part before `Trigger.begin`.

    Raises:
        ConfigError: an unknown scheme or option, a missing secret, or an address that cannot be used.
        MissingDependencyError: its package is not installed.
    """
    uri = complete(uri)
    scheme = scheme_of(uri)
    if scheme in _SCHEMES:
        module, _, function = _SCHEMES[scheme].partition(":")
        trigger: Trigger = getattr(importlib.import_module(module), function)(uri)
        return trigger
    refuse_bare_address(uri)
    raise ConfigError(f"Unknown trigger '{redact(uri)}'. Available: {FORMS}.")


def open_triggers(
    triggers: Sequence[str | Trigger], bounced: Callable[[], None], say: Callable[[str], None]
) -> list[Trigger]:
    """Open several triggers; all are closed if one of them cannot be opened.

    Args:
        triggers: URIs, or open triggers.
        bounced: called for each signal within a debounce time.
        say: shows a line to the user.

    Raises:
        ConfigError: see `open_trigger`; or a signal is given twice, or the cameras are not the only trigger.
    """
    opened: list[Trigger] = []
    try:
        for each in triggers:
            if not isinstance(each, str) and not (hasattr(each, "begin") and hasattr(each, "close")):
                raise ConfigError(f"A trigger needs the methods begin and close; {type(each).__name__} lacks one.")
            opened.append(open_trigger(each) if isinstance(each, str) else each)
            if isinstance(opened[-1], BaseTrigger):
                opened[-1].bounced, opened[-1].say = bounced, say
        refuse_beside_camera(opened)
        refuse_same_signal([one for given, one in zip(triggers, opened) if isinstance(given, str)])
    except BaseException:
        for trigger in opened:
            trigger.close()
        raise
    return opened


def refuse_beside_camera(opened: Sequence[Trigger]) -> None:
    """Refuse another trigger beside the cameras.

    Raises:
        ConfigError: there is one.
    """
    if len(opened) > 1 and any(isinstance(one, CameraTrigger) for one in opened):
        raise ConfigError("camera: opens a part for every picture, so it must be the only trigger.")


def refuse_same_signal(opened: Sequence[Trigger]) -> None:
    """Refuse a signal that is given twice: each part would have two results.

    Raises:
        ConfigError: with its address.
    """
    names = set[str]()
    for trigger in opened:
        if trigger.name in names:
            raise ConfigError(f"The trigger {redact(trigger.name)} is given twice: each part would have two results.")
        names.add(trigger.name)


def refuse_untimed(opened: Sequence[Trigger], sources: Sequence[Source]) -> None:
    """Refuse to join the pictures of several sources by time where one of them reads files that were there before.

    Raises:
        ConfigError: there is such a source, and the cameras are the trigger.
    """
    untimed = next((source.name for source in sources if getattr(source, "paths", ())), "")
    if untimed and len(sources) > 1 and any(isinstance(one, CameraTrigger) for one in opened):
        raise ConfigError(
            "camera: joins the pictures of several sources by the time at which they were taken, but those of "
            f"{untimed} are read as fast as possible. With camera:, it must be the only source."
        )
