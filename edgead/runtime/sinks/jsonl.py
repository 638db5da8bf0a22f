"""Results as lines of JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from edgead.errors import ConfigError
from edgead.runtime.result import Result
from edgead.runtime.sinks.lines import LineFile, append_configuration
from edgead.runtime.sinks.sink import BaseSink
from edgead.runtime.sources.uri import NoOptions, split_options
from edgead.terminal import CLOSED

BEGINNING = b'{"schema": '
"""How a result begins."""


def open_jsonl(uri: str) -> JsonLines:
    """``jsonl:FILE``, or ``jsonl:-`` for standard output."""
    name, _ = split_options(uri, NoOptions)
    return JsonLines(name)


class JsonLines(BaseSink):
    """One JSON object per line, appended to a file. See `Result.to_dict` for the fields.

    Args:
        name: path of the file; ``-`` for standard output.

    Raises:
        ConfigError: standard output is closed, or the file holds something else.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"jsonl:{name}")
        self._path = None if name == "-" else Path(name)
        if name == "-":
            if sys.stdout is None or "stdout" in CLOSED:
                raise ConfigError("jsonl:- writes to standard output, which is closed. Write to a file:  jsonl:FILE")
            sys.stdout.flush()
            self._lines = LineFile(None, sys.stdout.fileno())
        else:
            _refuse_others(Path(name))
            self._lines = LineFile(Path(name))

    def configure(self, configuration: Mapping[str, Any]) -> None:
        """Append it to ``FILE.configurations``; with standard output, it is kept nowhere."""
        if self._path and not (self._path.exists() and not self._path.is_file()):  # not beside a device or a pipe
            append_configuration(self._path.with_name(f"{self._path.name}.configurations"), configuration)

    def write(self, result: Result) -> None:
        self._lines.write(json.dumps(result.to_dict()).encode())

    def close(self) -> None:
        self._lines.close()

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _refuse_others(path: Path) -> None:
    """Refuse a file that does not begin as results do: a picture, a bundle's manifest. A damaged disk leaves zeros."""
    if path.is_file():
        with path.open("rb") as file:
            begin = file.read(len(BEGINNING))
            if begin[:1] not in (b"\n", b"\0") and not BEGINNING.startswith(begin):  # a first line may be cut off
                raise ConfigError(f"{path} holds something other than results as JSON. Name another file.")
