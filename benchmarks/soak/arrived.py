"""Reads what the line has left in files and databases."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def read_lines(path: Path) -> list[bytes]:
    """Return the lines of a file with their ends; none if it is not there."""
    return path.read_bytes().splitlines(keepends=True) if path.exists() else []


def rows_of_lines(lines: Sequence[bytes]) -> tuple[list[tuple[str, bytes]], int]:
    """Return id and text of each whole line, and the number of the others."""
    values = [(value["id"], line.rstrip(b"\n")) for line in lines if (value := parse(line))]
    return values, len(lines) - len(values)


def rows_of_database(path: Path, above: int) -> tuple[list[tuple[str, bytes]], int]:
    """Return id and text of the rows with larger numbers, and the largest number."""
    if not path.exists():
        return [], above
    connection = sqlite3.connect(path, timeout=20.0)
    try:
        found = connection.execute("SELECT id, result_id, result FROM results WHERE id > ? ORDER BY id", (above,))
        rows = found.fetchall()
        healthy = connection.execute("PRAGMA quick_check").fetchone()[0]
    finally:
        connection.close()
    if healthy != "ok":
        raise sqlite3.DatabaseError(str(healthy))
    return [(str(identity), str(text).encode()) for _, identity, text in rows], max([above, *(row[0] for row in rows)])


def parse(line: bytes) -> dict[str, Any] | None:
    """Return a result; None if the text is damaged."""
    if not line.endswith((b"\n", b"}")):
        return None
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "id" in value else None
