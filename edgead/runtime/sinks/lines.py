"""Appends lines to a file."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgead.text import utc_now

_log = logging.getLogger("edgead")


class LineFile:
    """Writes each line at once and without a buffer.

    A line that a crash or a full disk has truncated is ended before the next one, so that it damages no other line. If
    the file is renamed, replaced or deleted, the next line begins a new one under its name: otherwise lines would
    vanish in a file that nobody can open. A folder that is gone is not made again.

    Args:
        path: of a file, a device or a pipe; its folder is created.
        descriptor: an open file to write to instead; it is not closed.
    """

    def __init__(self, path: Path | None, descriptor: int = -1) -> None:
        self._path, self._descriptor, self._cut = path, descriptor, False
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open(path)

    def write(self, line: bytes) -> None:
        """Append a line.

        Raises:
            OSError: the line was not written, or not completely.
        """
        if self._path is not None and self._was_moved(self._path):
            self._open(self._path)
        self._append(line)
        if self._path is not None and os.fstat(self._descriptor).st_nlink == 0 and self._was_moved(self._path):
            self._open(self._path)  # it was deleted meanwhile
            self._append(line)

    def _append(self, line: bytes) -> None:
        data = b"\n" * self._cut + line + b"\n"
        written = 0
        try:
            while written < len(data):  # a disk that becomes full writes only a part
                written += os.write(self._descriptor, data[written:])
        finally:
            self._cut = written < len(data) and (written > 0 or self._cut)

    def _open(self, path: Path) -> None:
        if path.is_fifo() and not _is_read(path):
            _log.warning("%s: waiting for a program that reads this pipe", path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        self.close()
        self._descriptor, self._cut = descriptor, _ends_in_mid_line(path)

    def _was_moved(self, path: Path) -> bool:
        return was_moved(path, os.fstat(self._descriptor))

    def close(self) -> None:
        if self._path is not None and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def was_moved(path: Path, opened: os.stat_result) -> bool:
    """Return whether an open file is not the one under its name any more: it was renamed, replaced or deleted."""
    try:
        return not os.path.samestat(os.stat(path), opened)
    except FileNotFoundError:
        return True
    except OSError:  # for instance a share that is away: what is written will tell
        return False


def _is_read(pipe: Path) -> bool:
    try:
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def append_configuration(path: Path, configuration: Mapping[str, Any]) -> None:
    """Append the settings of a run that begins now to a file, as a line of JSON."""
    now = utc_now("milliseconds")
    lines = LineFile(path)
    try:
        lines.write(json.dumps({"started_at": now, "configuration": configuration}).encode())
    finally:
        lines.close()


def _ends_in_mid_line(path: Path) -> bool:
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
