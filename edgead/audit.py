"""The audit log: one JSON line for every change that somebody made. See docs/live-page.md."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from edgead.files import file_lock
from edgead.text import utc_now

FILE = "audit.jsonl"


class Audit:
    """Appends to ``audit.jsonl``. A line is written before its change: no line, no change.

    Args:
        folder: of the file; created with the first line.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def write(self, who: str, address: str, action: str, **values: object) -> None:
        """Append a line: when, who (as they said), from which address, what, and its values.

        Raises:
            OSError: it cannot be written.
        """
        append_line(
            self.path, {"at": utc_now("milliseconds"), "who": who, "address": address, "action": action, **values}
        )


def append_line(path: Path, values: dict[str, object]) -> int:
    """Append a JSON line that is on the disk when this returns, and return its bytes; the folder is created.

    Several processes may append to one file. A line that cannot be written completely is taken back, so that it
    damages no other one. A cut last line, of a machine that lost its power, is ended first.

    Raises:
        OSError: it was not written; the file is as before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(path.with_name(f".{path.name}.lock"), lambda: None):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        try:
            return _append(descriptor, json.dumps(values).encode() + b"\n")
        finally:
            os.close(descriptor)


def _append(descriptor: int, line: bytes) -> int:
    before = os.lseek(descriptor, 0, os.SEEK_END)
    os.lseek(descriptor, max(before - 1, 0), os.SEEK_SET)
    data = line if os.read(descriptor, 1) in (b"", b"\n") else b"\n" + line
    try:
        written = 0
        while written < len(data):  # a disk that becomes full writes only a part
            written += os.write(descriptor, data[written:])
        os.fsync(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):  # not a file, but a device
            os.ftruncate(descriptor, before)
        raise
    return written
