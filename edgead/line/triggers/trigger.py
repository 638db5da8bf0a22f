"""The interface of triggers, and their base class."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from edgead.errors import ConfigError

LATE_AFTER = 0.1
"""Seconds after which a trigger is late: a frame of its part may have come before it, and been taken for none."""
_log = logging.getLogger("edgead")


class OpenPart(Protocol):
    """Opens a part and returns its id; see `edgead.line.parts.Parts.trigger`."""

    def __call__(self, part_id: str = "", at: float | None = None, doubt: str = "") -> str: ...


class Trigger(Protocol):
    """Opens parts.

    Attributes:
        name: for people, without credentials.
    """

    name: str

    def begin(self, open_part: OpenPart) -> None:
        """Open a part at each signal from now on, from any thread."""

    def close(self) -> None:
        """Open no more parts, and release everything. It may be called before `begin`, and again."""


class BaseTrigger:
    """Base class of triggers: a subclass calls `fire`. Thread-safe.

    Args:
        name: for people, without credentials.
        debounce: milliseconds after a signal in which further ones are its bounces: counted, and no parts.

    Attributes:
        bounced: called for each bounce.
        say: shows a line to the user.
        ready: signals arrive.
    """

    ready = True

    def __init__(self, name: str, debounce: float = 0.0) -> None:
        self.name, self.debounce = name, debounce
        self.bounced: Callable[[], None] = lambda: None
        self.say: Callable[[str], None] = _log.warning
        self.stopped = threading.Event()
        self._open_part: OpenPart | None = None
        self._lock = threading.Lock()
        self._last: float | None = None

    def begin(self, open_part: OpenPart) -> None:
        self._open_part = open_part

    def fire(self, part_id: str = "", at: float | None = None, doubt: str = "") -> str:
        """Open a part.

        Args:
            part_id: that the signal brought; empty for none.
            at: when it fired, `time.monotonic` seconds; None for now.
            doubt: why nobody knows when it fired; empty if it is known.

        Returns:
            The part's id; empty for a bounce.

        Raises:
            ConfigError: the run has not begun, or has ended.
        """
        now = time.monotonic() if at is None else at
        if self._open_part is None or self.stopped.is_set():
            raise ConfigError("The run has ended, or has not begun: no part can be triggered.")
        with self._lock:
            if self._last is not None and abs(now - self._last) * 1e3 < self.debounce:  # threads overtake each other
                self.bounced()
                return ""
            self._last = now
        return self._open_part(part_id, at, doubt)

    def close(self) -> None:
        self.stopped.set()
