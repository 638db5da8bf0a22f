"""What every sink is, and what most of them share."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Protocol

from edgead.runtime.result import Result


class LeftOut(Exception):  # noqa: N818
    """Raised by `write` for a result that is left out on purpose: it counts as dropped.

    Args:
        cause: why, in one word.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class Sink(Protocol):
    """Takes results, in order. One thread calls it. `BaseSink` lists what it may have beside these two methods."""

    def write(self, result: Result) -> None:
        """Take one result. An exception means that it was not taken."""

    def close(self) -> None:
        """Finish; nothing more will be written."""


class BaseSink:
    """A `Sink` whose subclass has only `write` to write. It may also have:

    * ``flush()``: called after some writes. Their results are taken when it returns, and none of them where it raises.
    * ``drop(captured, cause)``: called for every frame that got no result.
    * ``details()``: more figures for the account, as JSON values.

    Attributes:
        name: what the account calls it, without credentials.
        wants_frames: results come with their frame.
        may_miss: results that it is too slow for are no error.
        lost: results that were taken and are given up later, by cause. The account counts them as dropped.
        stopped: set when the run ends without waiting any longer. Whatever waits for somebody else must look at it.
    """

    wants_frames = may_miss = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.lost: Counter[str] = Counter()
        self.stopped = threading.Event()

    def wants(self, result: Result) -> bool:
        """Tell whether a result is for this sink. One that is not does not count. Called by the stream's thread."""
        return True

    def write(self, result: Result) -> None:
        """Take one result. An exception means that it was not taken."""
        raise NotImplementedError

    def stop(self) -> None:
        """End what still waits. Any thread may call it."""
        self.stopped.set()

    def close(self) -> None:
        """Finish; nothing more will be written."""
