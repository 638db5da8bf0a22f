"""Results by MQTT: kept on disk until the broker has acknowledged them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from edgead.errors import ConfigError, require
from edgead.home import state_folder
from edgead.runtime.result import Result
from edgead.runtime.sinks.sqlite import connect
from edgead.runtime.sources.uri import redact

PASSWORD_VARIABLE = "EDGEAD_MQTT_PASSWORD"
WINDOW = 20
"""Messages that may be on their way to the broker without its acknowledgement."""
MOST_STORED = 100_000
"""Results kept while the broker is away; the oldest are given up above that."""
_OPTIONS = ("store", "ca", "cert", "key")
_log = logging.getLogger("edgead")


def open_mqtt(uri: str) -> MqttSink:
    """``mqtt://user:password@host:1883/topic?store=FILE``, or ``mqtts://…?ca=FILE&cert=FILE&key=FILE`` for TLS.

    Raises:
        ConfigError: no host or topic, or an option that there is not.
    """
    parts = urlsplit(uri)
    options = dict(parse_qsl(parts.query))
    topic = unquote(parts.path).strip("/")
    if not parts.hostname or not topic or "#" in uri or "+" in topic:
        raise ConfigError(f"The sink {redact(uri)} must name a host and a topic, as in mqtt://HOST/TOPIC.")
    if options.keys() - set(_OPTIONS):
        raise ConfigError(f"{redact(uri)}: the options are {', '.join(_OPTIONS)}.")
    return MqttSink(
        parts.hostname,
        parts.port or (8883 if parts.scheme == "mqtts" else 1883),
        topic,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or "") or os.environ.get(PASSWORD_VARIABLE, ""),
        tls={name: options.get(name) for name in ("ca", "cert", "key")} if parts.scheme == "mqtts" else None,
        store=Path(options["store"]) if "store" in options else None,
    )


def default_store(host: str, port: int, topic: str) -> Path:
    """Return where results for a broker and topic are kept: in the user's state folder.

    Raises:
        ConfigError: there is none, and what waits must outlast the process.
    """
    folder = state_folder()
    if folder is None:
        raise ConfigError(
            "MQTT keeps what waits for the broker in a file, and this user has no home folder.\n"
            "Name a file in the sink, ?store=FILE, or a folder in the variable XDG_STATE_HOME."
        )
    key = hashlib.sha256(f"{host}:{port}/{topic}".encode()).hexdigest()[:16]
    return folder / f"mqtt-{key}.sqlite"


class MqttSink:
    """Publishes each result on a topic with QoS 1: at least once, in order, also after the broker or we were away.

    A result counts as taken when it is committed to the store. ``TOPIC/status`` holds ``online``, and ``offline``
    after the end or, as the last will, after a crash; both are retained.

    Args:
        host, port: of the broker. It need not be there yet.
        topic: of the results.
        user, password: empty for none.
        tls: files ``ca``, ``cert`` and ``key``, each may be None; None for no TLS.
        store: the SQLite file of what waits; `default_store` where None. One process at a time may use it.
        most_stored: results kept while the broker is away.
        patience: seconds that `close` waits for the broker's acknowledgements. What is left stays in the store.
    """

    def __init__(
        self,
        host: str,
        port: int,
        topic: str,
        *,
        user: str = "",
        password: str = "",
        tls: dict[str, str | None] | None = None,
        store: Path | None = None,
        most_stored: int = MOST_STORED,
        patience: float = 3.0,
    ) -> None:
        mqtt: Any = require("paho.mqtt.client", "mqtt")
        self.name = f"{'mqtt' if tls is None else 'mqtts'}://{host}:{port}/{topic}"
        self.topic, self.most_stored, self.patience = topic, most_stored, patience
        self.given_up = 0
        self._lock = threading.Lock()
        self._store = connect(store or default_store(host, port, topic))
        self._store.execute("CREATE TABLE IF NOT EXISTS waiting (id INTEGER PRIMARY KEY AUTOINCREMENT, payload TEXT)")
        self._store.commit()
        self._stored = int(self._store.execute("SELECT COUNT(*) FROM waiting").fetchone()[0])
        self._acknowledged: deque[int] = deque()
        self._on_the_way: dict[int, int] = {}
        self._sent_up_to = 0
        self._wake = threading.Event()
        self._connected = self._closing = False
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, reconnect_on_failure=True)
        if user:
            self._client.username_pw_set(user, password or None)
        if tls is not None:
            try:
                self._client.tls_set(ca_certs=tls.get("ca"), certfile=tls.get("cert"), keyfile=tls.get("key"))
            except (OSError, ValueError) as error:
                raise ConfigError(f"{self.name}: the TLS files cannot be used: {error}.") from error
        self._client.will_set(f"{topic}/status", "offline", qos=1, retain=True)
        self._client.reconnect_delay_set(1, 30)
        self._client.on_connect, self._client.on_disconnect = self._on_connect, self._on_disconnect
        self._client.on_publish = self._on_publish
        self._client.connect_async(host, port, keepalive=15)
        self._client.loop_start()
        self._thread = threading.Thread(target=self._forward, name="mqtt-forward", daemon=True)
        self._thread.start()

    def write(self, result: Result) -> None:
        payload = json.dumps(result.to_dict())
        with self._lock:
            self._store.execute("INSERT INTO waiting (payload) VALUES (?)", (payload,))
            self._stored += 1

    def flush(self) -> None:
        with self._lock:
            excess = self._stored - self.most_stored
            if excess > 0:
                oldest = "SELECT id FROM waiting ORDER BY id LIMIT ?"
                self._store.execute(f"DELETE FROM waiting WHERE id IN ({oldest})", (excess,))
                self._stored -= excess
                self.given_up += excess
            self._store.commit()
        self._wake.set()

    @property
    def stored(self) -> int:
        """Results that the broker has not acknowledged yet."""
        with self._lock:
            return self._stored

    def _forward(self) -> None:
        """Publish what is stored and delete what is acknowledged, until closed. The only thread that does either."""
        while not self._closing:
            self._wake.wait(1.0)
            self._wake.clear()
            self._forget_acknowledged()
            if self._connected:
                self._publish_more()

    def _publish_more(self) -> None:
        room = WINDOW - len(self._on_the_way)
        with self._lock:
            query = "SELECT id, payload FROM waiting WHERE id > ? ORDER BY id LIMIT ?"
            rows = self._store.execute(query, (self._sent_up_to, max(room, 0))).fetchall()
        for row, payload in rows:
            message = self._client.publish(self.topic, payload, qos=1)
            self._on_the_way[message.mid] = row
            self._sent_up_to = row

    def _forget_acknowledged(self) -> None:
        messages = [self._acknowledged.popleft() for _ in range(len(self._acknowledged))]
        rows = [self._on_the_way.pop(message) for message in messages if message in self._on_the_way]
        if rows:
            with self._lock:
                deleted = self._store.executemany("DELETE FROM waiting WHERE id = ?", [(row,) for row in rows])
                self._stored -= max(deleted.rowcount, 0)
                self._store.commit()
            self._wake.set()

    def _on_connect(self, client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self._connected = not reason.is_failure
        if reason.is_failure:
            _log.warning("%s: the broker refuses the connection: %s", self.name, reason)
            return
        client.publish(f"{self.topic}/status", "online", qos=1, retain=True)
        self._wake.set()

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self._connected = False
        if not self._closing:
            _log.warning("%s: the broker is away (%s); results are kept on disk", self.name, reason)

    def _on_publish(self, _client: Any, _data: Any, message: int, _reason: Any, _properties: Any) -> None:
        self._acknowledged.append(message)
        self._wake.set()

    def close(self) -> None:
        until = time.monotonic() + self.patience
        while self._connected and self.stored and time.monotonic() < until:
            time.sleep(0.02)
        self._closing = True
        self._wake.set()
        self._thread.join(2.0)
        if self._connected:
            farewell = self._client.publish(f"{self.topic}/status", "offline", qos=1, retain=True)
            with contextlib.suppress(RuntimeError, ValueError):  # the connection is gone: the last will says it
                farewell.wait_for_publish(1.0)
        self._client.disconnect()
        self._client.loop_stop()
        self._store.close()
