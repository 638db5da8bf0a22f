"""Results in an SQLite database."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from edgead.errors import ConfigError
from edgead.runtime.result import Result

_TABLE = """
CREATE TABLE IF NOT EXISTS results (
    id INTEGER PRIMARY KEY, captured_at TEXT, source_id TEXT, frame_id INTEGER, verdict TEXT, cause TEXT, score REAL,
    result TEXT NOT NULL
)"""


def connect(path: Path) -> sqlite3.Connection:
    """Open a database in which what is committed survives a kill and a power cut.

    Raises:
        ConfigError: not a database, or it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Opened by one thread and used by another; the outbox sees to it that they take turns.
        connection = sqlite3.connect(path, check_same_thread=False, timeout=10.0)
        connection.execute("PRAGMA journal_mode = WAL")  # readers do not block the writer
        connection.execute("PRAGMA synchronous = FULL")  # every commit reaches the disk
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(f"{path} cannot be used as an SQLite database: {error}.") from error
    return connection


def open_sqlite(uri: str) -> SqliteSink:
    """``sqlite:FILE``."""
    return SqliteSink(Path(uri.partition(":")[2]))


class SqliteSink:
    """Rows of a table ``results``: some columns to search by, and the whole result as JSON.

    Several results share a commit; they count as taken after it.
    """

    def __init__(self, path: Path) -> None:
        self.name = f"sqlite:{path}"
        self._connection = connect(path)
        self._connection.execute(_TABLE)
        self._connection.commit()

    def write(self, result: Result) -> None:
        fields = result.to_dict()
        columns = ("captured_at", "source_id", "frame_id", "verdict", "cause", "score")
        row = (*(fields[name] for name in columns), json.dumps(fields))
        self._connection.execute(
            f"INSERT INTO results ({', '.join(columns)}, result) VALUES (?, ?, ?, ?, ?, ?, ?)", row
        )

    def flush(self) -> None:
        try:
            self._connection.commit()
        except sqlite3.Error:
            self._connection.rollback()  # or the rows would come back with the next commit, counted twice
            raise

    def close(self) -> None:
        self._connection.close()
