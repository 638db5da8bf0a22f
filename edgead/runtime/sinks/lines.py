"""Appends lines to a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgead.text import utc_now


class LineFile:
    """Writes each line at once and without a buffer.

    A line that a crash or a full disk has truncated is ended before the next one, so that it damages no other line.

    Args:
        path: of a file, a device or a pipe; its folder is created.
        descriptor: an open file to write to instead; it is not closed.
    """

    def __init__(self, path: Path | None, descriptor: int = -1) -> None:
        self._own = path is not None
        self._cut = False
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
            self._cut = _ends_in_mid_line(path)
        self._descriptor = descriptor

    def write(self, line: bytes) -> None:
        """Append a line.

        Raises:
            OSError: the line was not written, or not completely.
        """
        data = b"\n" * self._cut + line + b"\n"
        written = 0
        try:
            while written < len(data):  # a disk that becomes full writes only a part
                written += os.write(self._descriptor, data[written:])
        finally:
            self._cut = written < len(data) and (written > 0 or self._cut)

    def close(self) -> None:
        if self._own:
            os.close(self._descriptor)


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
