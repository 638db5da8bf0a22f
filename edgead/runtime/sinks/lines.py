"""A file of lines that is appended to."""

from __future__ import annotations

import os
from pathlib import Path


class LineFile:
    """Each line is handed to the system whole and at once, without a buffer.

    A line that a crash or a full disk cut short is ended before the next one, so that it spoils no other.

    Args:
        path: of a file, a device or a pipe; its folder is made.
        descriptor: write to this open file instead, and leave it open.
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
            OSError: it is not there, or not whole.
        """
        data = b"\n" * self._cut + line + b"\n"
        written = 0
        try:
            while written < len(data):  # a disk that has become full takes what still fits
                written += os.write(self._descriptor, data[written:])
        finally:
            self._cut = written < len(data) and (written > 0 or self._cut)

    def close(self) -> None:
        if self._own:
            os.close(self._descriptor)


def _ends_in_mid_line(path: Path) -> bool:
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
