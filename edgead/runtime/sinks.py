"""Where results go."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

from edgead.errors import ConfigError
from edgead.runtime.result import Result


class Sink(Protocol):
    """Takes results, in order."""

    def write(self, result: Result) -> None:
        """Take one result. It is on its way to the disk when this returns."""

    def close(self) -> None:
        """Finish; nothing more will be written."""


def open_sink(uri: str) -> Sink:
    """Make a sink from its name: ``jsonl:FILE``, or ``jsonl:-`` for standard output.

    Raises:
        ConfigError: not one of these.
    """
    kind, separator, rest = uri.partition(":")
    if kind != "jsonl" or not separator or not rest:
        raise ConfigError(f"The sink '{uri}' is not known; give jsonl:FILE (or jsonl:- for standard output).")
    return JsonLines(rest)


class JsonLines:
    """One JSON object per line, appended to a file. See `Result.to_dict` for the fields.

    Each line is handed to the system whole and at once. A line that an earlier crash cut short is ended first, so
    that it spoils no other.
    """

    def __init__(self, name: str) -> None:
        self._stream: BinaryIO
        if name == "-":
            self._stream = sys.stdout.buffer
            return
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("ab+", buffering=0)
        if self._stream.tell():
            self._stream.seek(-1, 2)
            if self._stream.read(1) != b"\n":
                self._stream.write(b"\n")

    def write(self, result: Result) -> None:
        self._stream.write(json.dumps(result.to_dict()).encode() + b"\n")
        self._stream.flush()

    def close(self) -> None:
        if self._stream is not sys.stdout.buffer:
            self._stream.close()

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
