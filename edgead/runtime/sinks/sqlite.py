"""Results in an SQLite database."""

from __future__ import annotations

import errno
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

from edgead.errors import ConfigError, DiskError, SinkError
from edgead.runtime.result import Result
from edgead.runtime.sinks.lines import was_moved
from edgead.runtime.sinks.sink import BaseSink
from edgead.runtime.sources.uri import NoOptions, split_options
from edgead.text import utc_now

RETRY_FOR = 10.0
"""Seconds of retries for a database that is locked or on a full disk."""
_BUSY = 1.0
"""Seconds that SQLite itself waits for a lock: short, because this wait cannot be interrupted."""
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO}
_DAMAGED = "database disk image is malformed"
_PASSING_IN_SQLITE = {"database or disk is full", "disk I/O error", _DAMAGED}
Lock = AbstractContextManager[object]
_NO_LOCK = nullcontext()
_COLUMNS = (
    "result_id", "captured_at", "source_id", "frame_id", "verdict", "cause", "score", "result", "part_id", "recipe"
)  # fmt: skip
_ADDED = ("result_id", "part_id", "recipe")
"""Columns that tables of earlier versions may lack."""
_TABLE = """
CREATE TABLE IF NOT EXISTS results (
    id INTEGER PRIMARY KEY, captured_at TEXT, source_id TEXT, frame_id INTEGER, verdict TEXT, cause TEXT, score REAL,
    result TEXT NOT NULL, result_id TEXT, part_id TEXT, recipe TEXT
)"""

_CONFIGURATIONS = """
CREATE TABLE IF NOT EXISTS configurations (id INTEGER PRIMARY KEY, started_at TEXT, configuration TEXT NOT NULL)"""
_CONFIGURE = """
INSERT INTO configurations (started_at, configuration) SELECT ?1, ?2
WHERE NOT EXISTS (SELECT 1 FROM configurations WHERE started_at = ?1 AND configuration = ?2)"""


def connect(path: Path, *, exclusive: bool = False) -> sqlite3.Connection:
    """Open a database. Commits survive a kill and a power cut.

    Args:
        path: of the file; its folder is created.
        exclusive: lock out other processes while it is open.

    Raises:
        DiskError: the disk is full or fails, or the database is damaged.
        ConfigError: not a database, or it cannot be created, written or locked.
    """
    connection = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Opened by one thread and used by another, never at the same time: the worker ensures that.
        patience = _BUSY if exclusive else RETRY_FOR
        connection = sqlite3.connect(path, check_same_thread=False, timeout=patience, isolation_level=None)
        if exclusive:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")  # readers do not block the writer
        connection.execute("PRAGMA synchronous = FULL")  # every commit reaches the disk
        connection.execute("BEGIN IMMEDIATE")  # fails if the file cannot be written
        connection.execute("COMMIT")
        connection.execute(f"PRAGMA busy_timeout = {_BUSY * 1000:.0f}")
    except (OSError, sqlite3.Error) as error:
        if connection is not None:
            connection.close()  # it may hold the lock
        raise unusable(f"{path} cannot be used as an SQLite database", error) from error
    return connection


def unusable(what: str, error: OSError | sqlite3.Error) -> ConfigError:
    """Return the error for a database that cannot be used; a DiskError where that may pass, or the file be moved."""
    passing = error.errno in _PASSING if isinstance(error, OSError) else str(error) in _PASSING_IN_SQLITE
    remedy = " Move it away, and a new one is begun." if str(error) == _DAMAGED else ""
    return (DiskError if passing else ConfigError)(f"{what}: {error}.{remedy}")


class Transactions:
    """Atomic transactions of one connection, with retries.

    Args:
        connection: as `connect` returns it.
        stopped: ends the retries when set.
        lock: held during each attempt, so that no other thread's statement enters the transaction.

    Attributes:
        connection: who holds the lock may replace it.
    """

    def __init__(self, connection: sqlite3.Connection, stopped: threading.Event, lock: Lock = _NO_LOCK) -> None:
        self.connection, self._stopped, self._lock = connection, stopped, lock
        self._failing = False

    def run(self, work: Callable[[], object]) -> None:
        """Run `work` in one transaction.

        Temporary errors (locked, disk full, input or output) are retried for `RETRY_FOR` seconds. After a failure each
        call has one attempt until one succeeds, so that a lasting error does not delay every result.

        Raises:
            sqlite3.Error: the transaction was rolled back.
        """
        until, delay = time.monotonic() + (0.0 if self._failing else RETRY_FOR), 0.05
        self._failing = True
        while True:
            try:
                self.try_once(work)
            except sqlite3.OperationalError:
                if time.monotonic() + delay > until or self._stopped.wait(delay):
                    raise
                delay = min(2 * delay, 1.0)
            else:
                self._failing = False
                return

    def try_once(self, work: Callable[[], object]) -> None:
        """Run `work` in one transaction, with one attempt."""
        with self._lock:
            try:
                self.connection.execute("BEGIN IMMEDIATE")
                work()
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:  # a full disk rolls it back itself
                    self.connection.execute("ROLLBACK")
                raise


def open_sqlite(uri: str) -> SqliteSink:
    """``sqlite:FILE``."""
    name, _ = split_options(uri, NoOptions)
    return SqliteSink(Path(name))


class SqliteSink(BaseSink):
    """Writes rows of a table ``results``: some columns for searches, and the complete result as JSON.

    `flush` commits all results since the last one, or none. ``result_id`` is unique, so a repeated commit adds no row
    twice. If the file is renamed, replaced or deleted, the next ones go into a new database under its name, which has
    the configuration, too.

    Raises:
        DiskError: the disk is full or fails, or the database is damaged.
        ConfigError: the file cannot be written, or has another table of that name.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(f"sqlite:{path}")
        self._path = path
        self._rows: list[tuple[object, ...]] = []
        self._configuration: tuple[str, str] | None = None
        self._open(path)

    def _open(self, path: Path) -> None:
        self._connection = connect(path)
        self._transactions = Transactions(self._connection, self.stopped)
        try:
            self._transactions.try_once(self._make_table)
        except sqlite3.Error as error:
            self._connection.close()
            raise unusable(f"{path}: its table 'results' cannot be used", error) from error
        self._opened = path.stat()

    def _make_table(self) -> None:
        self._connection.execute(_TABLE)
        there = {row[1] for row in self._connection.execute("PRAGMA table_info(results)")}
        for column in _ADDED:
            if column not in there:
                self._connection.execute(f"ALTER TABLE results ADD COLUMN {column} TEXT")
        self._connection.execute("CREATE UNIQUE INDEX IF NOT EXISTS results_by_id ON results (result_id)")
        self._connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM results LIMIT 0")
        self._store_configuration()

    def _store_configuration(self) -> None:
        if self._configuration:
            self._connection.execute(_CONFIGURATIONS)
            self._connection.execute(_CONFIGURE, self._configuration)

    def configure(self, configuration: Mapping[str, Any]) -> None:
        """Add a row to a table ``configurations``."""
        self._configuration = utc_now("milliseconds"), json.dumps(configuration)
        self._transactions.run(self._store_configuration)

    def write(self, result: Result) -> None:
        fields = result.to_dict()
        place = fields["captured_at"], fields["source_id"], fields["frame_id"]
        decision = fields["verdict"], fields["cause"], fields["score"]
        part = fields["part_id"], fields["recipe"]
        self._rows.append((fields["id"] or None, *place, *decision, json.dumps(fields), *part))

    def flush(self) -> None:
        rows, self._rows = self._rows, []
        marks = ", ".join("?" * len(_COLUMNS))
        insert = f"INSERT INTO results ({', '.join(_COLUMNS)}) VALUES ({marks}) ON CONFLICT (result_id) DO NOTHING"
        self._follow()
        self._transactions.run(lambda: self._connection.executemany(insert, rows))
        if self._follow():  # it was deleted meanwhile
            self._transactions.run(lambda: self._connection.executemany(insert, rows))

    def _follow(self) -> bool:
        """Open a new database if ours is not under its name any more: rows would vanish in a file without a name."""
        if not was_moved(self._path, self._opened):
            return False
        if not self._path.parent.is_dir():
            raise SinkError(f"the folder {self._path.parent} is not there any more")
        with suppress(sqlite3.Error):  # a renamed file is to have all its rows, and no journal may meet another file
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()
        self._open(self._path)
        return True

    def close(self) -> None:
        self._connection.close()
