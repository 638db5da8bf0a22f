"""A trigger over MQTT: each message on a topic is a part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgead.errors import ConfigError
from edgead.line.triggers.http import LARGEST, read_id
from edgead.line.triggers.trigger import BaseTrigger, OpenPart
from edgead.redaction import printable
from edgead.runtime.broker import Broker, Outage, TlsFiles, split_mqtt, why_no_connection


@dataclass(frozen=True)
class MqttOptions(TlsFiles):
    """Options of ``mqtt:``, see `MqttTrigger`, and the files for ``mqtts:``."""

    field: str = "part_id"
    debounce: float = 0.0


def open_mqtt(uri: str) -> MqttTrigger:
    """``mqtt://user:password@host:1883/topic?field=part_id&debounce=0``, or ``mqtts://…?ca=FILE`` for TLS.

    Raises:
        ConfigError: no topic, or an unknown option.
    """
    broker, topic, options = split_mqtt(uri, MqttOptions, "#")
    return MqttTrigger(broker, topic, field=options.field, debounce=options.debounce)


class MqttTrigger(BaseTrigger):
    """Opens a part at each message. It subscribes with QoS 2, so that one sent with QoS 2 comes exactly once.

    A part stands in front of the camera whatever the message says, so one that cannot be read opens a part as well.
    Retained messages are old, and open none.

    Args:
        broker: it may still be unreachable.
        topic: may have ``+`` in place of a level.
        field: of the JSON object with the part's id.
        debounce: see `BaseTrigger`.
    """

    def __init__(
        self,
        broker: Broker,
        topic: str,
        *,
        field: str = "part_id",
        debounce: float = 0.0,
    ) -> None:
        super().__init__(broker.at(topic), debounce)
        self.topic, self.field = topic, field
        self.ready = False
        self._broker, self._client = broker, broker.make_client(self.name)
        self._client.on_connect, self._client.on_disconnect = self._on_connect, self._on_disconnect
        self._client.on_subscribe, self._client.on_message = self._on_subscribe, self._on_message
        self._client.on_connect_fail = self._on_connect_fail
        self._outage = Outage(lambda text: None if self.stopped.is_set() else self.say(f"{self.name}: {text}"))

    def begin(self, open_part: OpenPart) -> None:
        super().begin(open_part)
        self._broker.connect(self._client)

    def close(self) -> None:
        if not self.stopped.is_set():
            super().close()
            self._client.disconnect()
            self._client.loop_stop()

    def _on_connect(self, client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            why = f"the broker refuses the connection: {printable(str(reason))}"
            self._outage.tell(f"{why}; its triggers are lost until there is one", refused=True)
        else:
            client.subscribe(self.topic, qos=2)

    def _on_connect_fail(self, _client: Any, _data: Any) -> None:
        self._outage.tell(f"no connection ({why_no_connection()}); its triggers are lost until there is one")

    def _on_subscribe(self, _client: Any, _data: Any, _number: int, reasons: Any, _properties: Any) -> None:
        self.ready = not any(reason.is_failure for reason in reasons)
        if not self.ready:
            self.say(f"{self.name}: the broker refuses the subscription: {printable(str(reasons[0]))}")
            return
        self._outage.end("the broker is back")

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self.ready = False
        self._outage.tell(f"the broker is unreachable ({reason}); its triggers are lost until it is back")

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        if message.retain:
            self.say(f"{self.name}: a retained message is ignored, because it may be old. Send it again.")
            return
        part_id = ""
        try:
            part_id = read_id(message.payload[: LARGEST + 1] or b"{}", self.field)
        except ValueError as error:
            self.say(f"{self.name}: a message has no readable {self.field}: {printable(str(error))}")
        try:
            self.fire(part_id)
        except ConfigError as error:  # between the end of the run and that of the connection
            self.say(f"{self.name}: {error}")
