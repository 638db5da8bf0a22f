"""Results as lines of JSON."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from edgead.runtime.result import Result


def open_jsonl(uri: str) -> JsonLines:
    """``jsonl:FILE``, or ``jsonl:-`` for standard output."""
    return JsonLines(uri.partition(":")[2])


class JsonLines:
    """One JSON object per line, appended to a file. See `Result.to_dict` for the fields.

    Each line is handed to the system whole and at once. A line that a crash or a full disk cut short is ended before
    the next one, so that it spoils no other.
    """

    def __init__(self, name: str) -> None:
        self.name = f"jsonl:{name}"
        self._cut = False
        self._stream: BinaryIO
        if name == "-":
            self._stream = sys.stdout.buffer
            return
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("ab+" if path.is_file() or not path.exists() else "ab", buffering=0)
        if self._stream.readable() and self._stream.tell():
            self._stream.seek(-1, 2)
            self._cut = self._stream.read(1) != b"\n"

    def write(self, result: Result) -> None:
        self._write_line(json.dumps(result.to_dict(), ensure_ascii=False).encode())

    def _write_line(self, line: bytes) -> None:
        data = b"\n" * self._cut + line + b"\n"
        written = self._stream.write(data)
        self._stream.flush()
        if written != len(data):  # a raw stream on a disk that has become full takes what still fits
            self._cut = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._cut = False

    def close(self) -> None:
        if self._stream is not sys.stdout.buffer:
            self._stream.close()

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
