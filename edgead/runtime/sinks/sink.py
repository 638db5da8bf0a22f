"""The interface of sinks, and their base class."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Protocol

from edgead.runtime.result import Result


class LeftOut(Exception):  # noqa: N818
    """Raised by `write` for a result that is skipped on purpose; it counts as dropped.

    Args:
        cause: one word.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class Sink(Protocol):
    """Takes results in order. Only one thread calls it. `BaseSink` lists further, optional methods."""

    def write(self, result: Result) -> None:
        """Take one result. An exception means that it was not taken."""

    def close(self) -> None:
        """Finish; nothing more will be written."""


class BaseSink:
    """Base class of sinks: a subclass needs only `write`. It may also define:

    * ``flush()``: called after some writes. Their results are taken when it returns; if it raises, none of them is.
    * ``begin(idle)``: called once when a stream runs. ``idle()`` returns the seconds since the thread that decides last
      finished a turn, so that a sink can tell a receiver that it hangs.
    * ``follow(deciding)``: called once when a stream runs, before ``begin``. ``deciding()`` returns the name of what
      decides now: the recipe, or the bundle without products.
    * ``configure(configuration)``: called at most once, before the first result, with the settings of the run as JSON
      values, to keep them with the results.
    * ``drop(captured, cause)``: called for every frame without a result.
    * ``look()``: tries the receiver and returns what it found, for a check before a run; it raises an `EdgeadError`.
    * ``details()``: further figures for the account, as JSON values.

    Attributes:
        name: its name in the account, without credentials.
        wants_frames: results come with their frame.
        may_miss: results that it misses because it is slow are no error.
        lost: results that were taken and discarded later, by cause. The account counts them as dropped.
        stopped: set when the run no longer waits for the sink. Code that waits must check it.
    """

    wants_frames = may_miss = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.lost: Counter[str] = Counter()
        self.stopped = threading.Event()

    def wants(self, result: Result) -> bool:
        """Return whether this sink wants a result; others do not count. Called by the stream's thread."""
        return True

    def write(self, result: Result) -> None:
        """Take one result. An exception means that it was not taken."""
        raise NotImplementedError

    def stop(self) -> None:
        """End any waiting. Thread-safe."""
        self.stopped.set()

    def close(self) -> None:
        """Finish; nothing more will be written."""
