"""A sink whose disk is full, or whose database is damaged, when the run begins. It is opened when that has passed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from edgead.errors import DiskError, SinkError
from edgead.runtime.result import Result
from edgead.runtime.sinks.sink import BaseSink, Sink

RETRY_AFTER = 5.0
"""Seconds between two attempts to open it."""
_log = logging.getLogger("edgead")


class LateSink(BaseSink):
    """Refuses results until the sink can be opened, and is that sink from then on.

    Args:
        name: in the account, without credentials.
        open_it: opens the sink; raises a DiskError while it cannot be opened.
        error: of the first attempt.
    """

    def __init__(self, name: str, open_it: Callable[[], Sink], error: DiskError) -> None:
        super().__init__(name)
        self._open_it, self._error = open_it, error
        self._next = time.monotonic() + RETRY_AFTER
        self._sink: Sink | None = None
        self._before: list[tuple[str, Any]] = []  # calls for the sink from before it was opened
        _log.warning("%s Its results are lost until it can be opened", error)

    def _opened(self) -> Sink:
        """Return the sink; try to open it from time to time.

        Raises:
            SinkError: it is not open yet.
        """
        if self._sink is None:
            if time.monotonic() < self._next:
                raise SinkError(str(self._error).rstrip("."))
            self._next = time.monotonic() + RETRY_AFTER
            try:
                self._sink = self._open_it()
            except DiskError as error:
                self._error = error
                raise SinkError(str(error).rstrip(".")) from error
            self.lost = self._sink.lost if isinstance(self._sink, BaseSink) else self.lost
            for name, argument in self._before:
                self._call(name, argument)
        return self._sink

    def _call(self, name: str, *arguments: Any) -> Any:
        method = getattr(self._sink, name, None)
        return method(*arguments) if callable(method) else None

    def write(self, result: Result) -> None:
        self._opened().write(result)

    def flush(self) -> None:
        """Let the sink take what was written."""
        self._call("flush")

    def configure(self, configuration: Mapping[str, Any]) -> None:
        """Pass the settings on, now or later."""
        self._pass_on("configure", configuration)

    def follow(self, deciding: Callable[[], str]) -> None:
        """Pass on where to learn what decides, now or later."""
        self._pass_on("follow", deciding)

    def begin(self, idle: Callable[[], float]) -> None:
        """Pass on that a stream runs, now or later."""
        self._pass_on("begin", idle)

    def _pass_on(self, name: str, argument: Any) -> None:
        if self._sink is None:
            self._before.append((name, argument))
        else:
            self._call(name, argument)

    def look(self) -> str:
        """Return what the sink finds.

        Raises:
            DiskError: it is not open yet.
        """
        if self._sink is None:
            raise self._error
        return str(self._call("look") or "")

    def details(self) -> Mapping[str, Any]:
        """Return the sink's figures; none before it is open."""
        return self._call("details") or {}

    def stop(self) -> None:
        super().stop()
        self._call("stop")

    def close(self) -> None:
        if self._sink is not None:
            self._sink.close()
