"""Publishes results by MQTT; they stay on disk until the broker has acknowledged them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import sqlite3
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgead.errors import ConfigError, SinkError
from edgead.home import at_home, state_folder
from edgead.redaction import printable
from edgead.runtime.broker import Broker, Outage, TlsFiles, split_mqtt, why_no_connection
from edgead.runtime.result import Result
from edgead.runtime.sinks.lines import was_moved
from edgead.runtime.sinks.sink import BaseSink
from edgead.runtime.sinks.sqlite import Transactions, connect, unusable

WINDOW = 20
"""Messages in flight to the broker without acknowledgement."""
MOST_STORED = 100_000
"""Results kept while the broker is unreachable; beyond that the oldest are discarded."""
LOOK_WITHIN = 5.0
"""Seconds for the first answer of a broker, in a check before a run."""
_log = logging.getLogger("edgead")


@dataclass(frozen=True)
class MqttOptions(TlsFiles):
    """Options of ``mqtt://``, all of them files. See `MqttSink`."""

    store: str = ""


def open_mqtt(uri: str) -> MqttSink:
    """``mqtt://user:password@host:1883/topic?store=FILE``, or ``mqtts://…?ca=FILE&cert=FILE&key=FILE`` for TLS.

    Raises:
        ConfigError: no topic, an unknown option, or a store in use by another process.
    """
    broker, topic, options = split_mqtt(uri, MqttOptions, "+#")
    return MqttSink(broker, topic, store=Path(at_home(options.store)) if options.store else None)


def default_store(broker: Broker, topic: str) -> Path:
    """Return the store for a broker and topic, in the user's state folder.

    Raises:
        ConfigError: there is no state folder, and unsent results must survive the process.
    """
    folder = state_folder()
    if folder is None:
        raise ConfigError(
            "MQTT stores unsent results in a file, and this user has no home folder.\n"
            "Give a file in the sink, ?store=FILE, or a folder in the environment variable XDG_STATE_HOME."
        )
    key = hashlib.sha256(f"{broker.host}:{broker.port}/{topic}".encode()).hexdigest()[:16]
    return folder / f"mqtt-{key}.sqlite"


def _open_store(path: Path) -> sqlite3.Connection:
    try:
        store = connect(path, exclusive=True)
        try:
            store.execute("CREATE TABLE IF NOT EXISTS waiting (id INTEGER PRIMARY KEY AUTOINCREMENT, payload TEXT)")
        except sqlite3.Error as error:
            store.close()
            raise unusable(f"{path} cannot hold unsent results", error) from error
        return store
    except ConfigError as error:
        if "locked" not in str(error):
            raise
        raise ConfigError(
            f"{path} is in use by another running MQTT sink.\nGive another file:  mqtt://…?store=FILE"
        ) from error


def _size_and_end(store: sqlite3.Connection) -> tuple[int, int]:
    """Return how many results a store has, and the number of the last one."""
    count, last = store.execute("SELECT COUNT(*), COALESCE(MAX(id), 0) FROM waiting").fetchone()
    return int(count), int(last)


class MqttSink(BaseSink):
    """Publishes each result on a topic with QoS 1: at least once, in order, also after an outage of broker or process.

    A result counts as taken when it is committed to the store, and as dropped, cause ``store_full``, when it is
    discarded there. If the file of the store is renamed, replaced or deleted, what is in it goes on in a new one under
    its name; if that cannot be made, what is unsent at the end is dropped, cause ``store_gone``.

    ``TOPIC/status`` holds ``online``, and ``offline`` after the end or, as the last will, after a crash; both are
    retained.

    Args:
        broker: it may still be unreachable.
        topic: of the results.
        store: SQLite file of unsent results; `default_store` if None. Only one process may use it at a time.
        most_stored: results kept while the broker is unreachable.
        patience: seconds that `close` waits for the broker's acknowledgements. Unsent results stay in the store.

    Attributes:
        given_up: results discarded unsent, including those of earlier runs.
    """

    def __init__(
        self,
        broker: Broker,
        topic: str,
        *,
        store: Path | None = None,
        most_stored: int = MOST_STORED,
        patience: float = 3.0,
    ) -> None:
        super().__init__(broker.at(topic))
        self.topic, self.most_stored, self.patience = topic, most_stored, patience
        self.given_up = 0
        self._lock = threading.Lock()
        self._client = broker.make_client(self.name)
        self._client.will_set(f"{self.topic}/status", "offline", qos=1, retain=True)
        self._client.on_connect, self._client.on_disconnect = self._on_connect, self._on_disconnect
        self._client.on_publish, self._client.on_connect_fail = self._on_publish, self._on_connect_fail
        self._path = store or default_store(broker, topic)
        self._store = _open_store(self._path)
        self._opened = self._path.stat()
        self._transactions = Transactions(self._store, self.stopped, self._lock)
        self._payloads: list[tuple[str]] = []
        self._stored, self._from_before = _size_and_end(self._store)
        self._acknowledged: deque[int] = deque()
        self._on_the_way: dict[int, int] = {}
        self._delivered: list[int] = []
        self._sent_up_to = 0
        self._wake = threading.Event()
        self._connected = self._closing = False
        self._outage = Outage(lambda text: None if self._closing else _log.warning("%s: %s", self.name, text))
        self._trouble = ""  # why there is no connection
        broker.connect(self._client)
        self._thread = threading.Thread(target=self._forward, name="mqtt-forward", daemon=True)
        self._thread.start()

    def write(self, result: Result) -> None:
        self._payloads.append((json.dumps(result.to_dict()),))

    def flush(self) -> None:
        payloads, self._payloads = self._payloads, []
        earlier = own = 0

        def store() -> None:
            nonlocal earlier, own
            self._store.executemany("INSERT INTO waiting (payload) VALUES (?)", payloads)
            rows = self._oldest_unsent(self._stored + len(payloads) - self.most_stored)
            self._delete(rows)
            own = sum(row > self._from_before for row in rows)
            earlier = len(rows) - own

        self._transactions.run(store)
        with self._lock:
            self._stored += len(payloads) - own - earlier
        if own + earlier and not self.given_up:
            _log.warning("%s: the store is full; the oldest results are discarded", self.name)
        self.given_up += own + earlier
        self.lost["store_full"] += own
        self._wake.set()

    def _oldest_unsent(self, count: int) -> list[int]:
        query = "SELECT id FROM waiting WHERE id > ? ORDER BY id LIMIT ?"
        return [row for (row,) in self._store.execute(query, (self._sent_up_to, max(count, 0)))]

    def _delete(self, rows: list[int]) -> None:
        self._store.executemany("DELETE FROM waiting WHERE id = ?", [(row,) for row in rows])

    @property
    def stored(self) -> int:
        """Results that the broker has not acknowledged yet."""
        return self._stored

    def details(self) -> dict[str, int]:
        """Return the numbers of stored and of discarded results."""
        return {"stored": self._stored, "given_up": self.given_up}

    def _forward(self) -> None:
        """Publish stored results and delete acknowledged ones until closed. No other thread does either."""
        failing = False
        while not self._closing:
            self._wake.wait(1.0)
            self._wake.clear()
            try:
                self._forget_acknowledged()
                if self._connected:
                    self._publish_more()
                self._follow()
                failing = False
            except Exception as error:  # for instance a full disk: the next turn tries again
                if not failing and not self._closing:
                    _log.warning("%s: the stored results cannot be kept or sent: %s", self.name, error)
                failing = True

    def _publish_more(self) -> None:
        room = WINDOW - len(self._on_the_way)
        with self._lock:
            query = "SELECT id, payload FROM waiting WHERE id > ? ORDER BY id LIMIT ?"
            rows = self._store.execute(query, (self._sent_up_to, max(room, 0))).fetchall()
            self._sent_up_to = rows[-1][0] if rows else self._sent_up_to  # from here on they are not discarded
        for row, payload in rows:
            message = self._client.publish(self.topic, payload, qos=1)
            self._on_the_way[message.mid] = row

    def _forget_acknowledged(self) -> None:
        messages = [self._acknowledged.popleft() for _ in range(len(self._acknowledged))]
        self._delivered += [self._on_the_way.pop(message) for message in messages if message in self._on_the_way]
        if self._delivered:
            self._transactions.try_once(lambda: self._delete(self._delivered))
            with self._lock:
                self._stored -= len(self._delivered)
            self._delivered = []
            self._wake.set()

    def _follow(self) -> None:
        """Go on in a new store if ours is not under its name any more: results would vanish with this process.

        Only by the thread that sends, or after it. What is on its way comes a second time.

        Raises:
            SinkError: its folder is gone, and is not made again: it may be a share.
            ConfigError: there is something else in its place.
        """
        if not was_moved(self._path, self._opened):
            return
        if not self._path.parent.is_dir():
            raise SinkError(f"the folder {self._path.parent} is not there any more")
        with self._lock:
            self._store.execute("PRAGMA journal_mode = MEMORY")  # its journal must not lie beside another store
            new = _open_store(self._path)
            try:
                there = self._copy_into(new)
            except BaseException:
                new.close()
                raise
            self._store.close()
            self._store = self._transactions.connection = new
            self._stored, _ = _size_and_end(new)
            self._from_before += there
            self._sent_up_to, self._on_the_way, self._delivered = 0, {}, []
            self._opened = self._path.stat()
        _log.warning("%s: the store %s was moved or deleted; it goes on in a new file", self.name, self._path)
        self._wake.set()

    def _copy_into(self, new: sqlite3.Connection) -> int:
        """Copy what is not delivered behind what a store has already; return the number of the last one there."""
        _, there = _size_and_end(new)
        known = set(self._delivered)
        old = self._store.execute("SELECT id, payload FROM waiting ORDER BY id")
        rows = ((there + row, payload) for row, payload in old if row not in known)
        insert = "INSERT INTO waiting (id, payload) VALUES (?, ?)"
        Transactions(new, self.stopped).try_once(lambda: new.executemany(insert, rows))
        return there

    def _on_connect(self, client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self._connected = not reason.is_failure
        if reason.is_failure:
            self._trouble = f"the broker refuses the connection: {printable(str(reason))}"
            self._outage.tell(f"{self._trouble}; results are kept on disk", refused=True)
            return
        self._outage.end("the broker is back")
        client.publish(f"{self.topic}/status", "online", qos=1, retain=True)
        self._wake.set()

    def _on_connect_fail(self, _client: Any, _data: Any) -> None:
        self._trouble = f"no connection ({why_no_connection()})"
        self._outage.tell(f"{self._trouble}; results are kept on disk")

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self._connected = False
        self._outage.tell(f"the broker is unreachable ({reason}); results are kept on disk")

    def _on_publish(self, _client: Any, _data: Any, message: int, _reason: Any, _properties: Any) -> None:
        self._acknowledged.append(message)
        self._wake.set()

    def look(self) -> str:
        """Wait for the first answer of the broker and return what came of it.

        Raises:
            SinkError: it cannot be reached, or refuses the connection.
        """
        until = time.monotonic() + LOOK_WITHIN
        while not self._connected and not self._trouble and time.monotonic() < until:
            self.stopped.wait(0.02)
        if not self._connected:
            raise SinkError(self._trouble or f"the broker does not answer within {LOOK_WITHIN:g} s")
        return "the broker answers"

    def close(self) -> None:
        until = time.monotonic() + self.patience
        while self._connected and self.stored and not self.stopped.is_set() and time.monotonic() < until:
            self.stopped.wait(0.02)
        self._closing = True
        self._wake.set()
        self._thread.join(2.0)
        if self._connected:
            farewell = self._client.publish(f"{self.topic}/status", "offline", qos=1, retain=True)
            with contextlib.suppress(RuntimeError, ValueError):  # without a connection, the last will is sent
                farewell.wait_for_publish(1.0)
        self._client.disconnect()
        self._client.loop_stop()
        with contextlib.suppress(Exception):  # as above
            self._follow()
        gone = was_moved(self._path, self._opened)
        if gone:
            query = "SELECT COUNT(*) FROM waiting WHERE id > ?"
            self.lost["store_gone"] += self._store.execute(query, (self._from_before,)).fetchone()[0]
        self._store.close()
        if self._stored:
            what = f"and lost: {self._path} is gone" if gone else "yet; the next run sends them"
            _log.warning("%s: %d results are not delivered %s", self.name, self._stored, what)
