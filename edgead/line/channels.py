"""Control channels: a message over HTTP, MQTT or Modbus names the product that decides from the next part on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgead.errors import ConfigError
from edgead.line.triggers import BaseTrigger, open_trigger
from edgead.line.triggers.http import HttpTrigger
from edgead.line.triggers.modbus import ModbusTrigger
from edgead.line.triggers.mqtt import MqttTrigger
from edgead.redaction import redact

FIELD = "product"
"""Field of a message with the product's name, unless the URI names another one."""


def open_channels(uris: Sequence[str], say: Callable[[str], None]) -> list[BaseTrigger]:
    """Open channels by their URIs. They are triggers whose id is the name of a product.

    Args:
        uris: see docs/line.md.
        say: shows a line to the user.

    Raises:
        ConfigError: see `edgead.line.triggers.open_trigger`; or this kind of trigger carries no name.
    """
    opened: list[BaseTrigger] = []
    try:
        for uri in uris:
            channel = open_trigger(uri)
            if not isinstance(channel, HttpTrigger | MqttTrigger | ModbusTrigger):
                channel.close()
                raise ConfigError(
                    f"{redact(uri)} cannot send the name of a product. Available: http://…, mqtt://…, modbus://…."
                )
            opened.append(channel)
            if isinstance(channel, ModbusTrigger) and not channel.has_id:
                raise ConfigError(f"{redact(uri)} must say where the product's name is:  ?id=REGISTER&id_registers=8")
            if isinstance(channel, HttpTrigger | MqttTrigger) and "field=" not in uri:
                channel.field = FIELD
            if isinstance(channel, HttpTrigger):
                channel.answer = "recipe"
            channel.say = say
    except BaseException:
        for channel in opened:
            channel.close()
        raise
    return opened
