"""The address of an MQTT broker, clients that connect to it, and messages about an outage."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from edgead.errors import ConfigError, require
from edgead.redaction import printable, redact
from edgead.runtime.sources.uri import parse_options, scheme_of

PORT, TLS_PORT = 1883, 8883
KEEPALIVE = 15
"""Seconds without a message after which the client asks whether the broker is still there."""


@dataclass(frozen=True)
class TlsFiles:
    """PEM files for TLS, each may be None: the trusted certificates, the client's certificate and its key."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


T = TypeVar("T", bound=TlsFiles)


@dataclass(frozen=True)
class Broker:
    """The address of a broker, and how to log in. It may be unreachable.

    Attributes:
        host, port: of the broker.
        user, password: empty for none.
        tls: None for no TLS.
    """

    host: str
    port: int = PORT
    user: str = ""
    password: str = field(default="", repr=False)
    tls: TlsFiles | None = None

    def at(self, topic: str) -> str:
        """Return the address of a topic, without user and password."""
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.host}:{self.port}/{topic}"

    def make_client(self, owner: str) -> Any:
        """Return a client. After `connect` it reconnects by itself.

        Args:
            owner: name of the sink or trigger, for errors.

        Raises:
            ConfigError: the TLS files cannot be used.
            MissingDependencyError: paho-mqtt is not installed.
        """
        mqtt: Any = require("paho.mqtt.client", "mqtt")
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, reconnect_on_failure=True)
        if self.user:
            client.username_pw_set(self.user, self.password or None)
        if self.tls:
            try:
                client.tls_set(ca_certs=self.tls.ca, certfile=self.tls.cert, keyfile=self.tls.key)
            except (OSError, ValueError) as error:
                raise ConfigError(f"{owner}: the TLS files cannot be used: {error}.") from error
        client.reconnect_delay_set(1, 30)
        return client

    def connect(self, client: Any) -> None:
        """Connect a client in a thread of its own, and again after each loss of the connection."""
        client.connect_async(self.host, self.port, keepalive=KEEPALIVE)
        client.loop_start()


def split_mqtt(uri: str, kind: type[T], refused: str) -> tuple[Broker, str, T]:
    """Split ``mqtt://user:password@host:1883/topic?option=value``, or ``mqtts://…?ca=FILE&cert=FILE&key=FILE``.

    Args:
        uri: the address.
        kind: of the options.
        refused: the wildcards that the topic may not have, of ``+#``.

    Returns:
        The broker, the topic, and the options.

    Raises:
        ConfigError: no host, no topic, an unknown option, or files for TLS and an address without TLS.
    """
    parts, topic = urlsplit(uri), topic_of(uri)
    wild = "#" in uri or any(each in topic for each in refused)
    if not parts.hostname or not topic or wild or not topic.isprintable():
        without = " and ".join(refused)
        raise ConfigError(f"{redact(uri)} needs a host and a topic without {without}, as in mqtt://HOST/TOPIC.")
    options = parse_options(uri, parts.query, kind)
    files, secure = TlsFiles(options.ca, options.cert, options.key), scheme_of(uri) == "mqtts"
    if not secure and (given := [name for name, file in vars(files).items() if file]):
        raise ConfigError(f"{redact(uri)}: {given[0]} is for TLS, and mqtt:// has none. Write mqtts://…")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    port = parts.port or (TLS_PORT if secure else PORT)
    return Broker(parts.hostname, port, user, password, files if secure else None), topic, options


def topic_of(uri: str) -> str:
    """Return the topic in an address; ``mqtt://HOST//line`` names ``/line``, which MQTT tells from ``line``."""
    topic = unquote(urlsplit(uri).path).removeprefix("/").rstrip("/")
    return topic if topic.strip("/") else ""


def why_no_connection() -> str:
    """Return why a client could not connect; to be called by its `on_connect_fail`, which is not told."""
    error = sys.exc_info()[1]
    reason = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or error or "no answer"
    return printable(str(reason))


class Outage:
    """Says once what keeps a client from its broker, and when the broker is back: a client tries again for ever.

    Args:
        say: shows a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told = self._refused = False

    def tell(self, text: str, refused: bool = False) -> None:
        """Say why there is no connection, once in an outage; and once more that the broker refuses it."""
        if not self._told or (refused and not self._refused):
            self._say(text)
        self._told, self._refused = True, refused or self._refused

    def end(self, text: str) -> None:
        """Say that the broker is back, if an outage was told."""
        if self._told:
            self._say(text)
        self._told = self._refused = False
