"""A line on a bench: cameras that show what a test asks for, and a run in a thread."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from level_bundle import frame_of

from edgead.line.parts import Parts
from edgead.runtime.frame_inspector import FrameInspector
from edgead.runtime.ledger import Ledger
from edgead.runtime.pipeline import run_stream
from edgead.runtime.policy import Policy
from edgead.runtime.result import Result
from edgead.runtime.sinks import Callback
from edgead.runtime.sources.source import Captured, FrameSource
from edgead.runtime.stream import Stream

GOOD, BAD = 50, 200
"""Grey levels that the level bundle passes and fails."""


class Hand(FrameSource):
    """A camera that shows a frame when it is told to."""

    live = True

    def __init__(self, name: str = "front") -> None:
        super().__init__(name)
        self._shown: queue.SimpleQueue[Captured] = queue.SimpleQueue()
        self._number = 0

    def show(self, level: int | None, made: float | None = None, unsure: bool = False) -> float:
        """Show a frame of a grey level, None for a damaged one. Returns when it was made, at the earliest."""
        now = time.monotonic()
        made = now if made is None else made
        image, error, cause = (None, "damaged", "unreadable") if level is None else (frame_of(level), "", "")
        self._shown.put(Captured(image, error, self.name, self._number, now, cause=cause, t_made=made, unsure=unsure))
        self._number += 1
        return made

    def read(self) -> Iterator[Captured]:
        while not self.stopped.is_set():
            try:
                yield self._shown.get(timeout=0.02)
            except queue.Empty:
                continue


class Bench:
    """A running line. `results` is what a sink got, in order."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.ledger, self.results = parts, Ledger(), list[Result]()
        self.stream: Stream | None = None
        self.error: BaseException | None = None
        self.begun = threading.Event()

    def wait(self, count: int, seconds: float = 10.0) -> list[Result]:
        """Wait for so many results, and return them all."""
        until = time.monotonic() + seconds
        while len(self.results) < count:
            assert time.monotonic() < until, f"{len(self.results)} results of {count}"
            time.sleep(0.002)
        return list(self.results)

    def start(self, stream: Stream) -> None:
        self.stream = stream
        self.begun.set()


@contextmanager
def running(
    inspector: FrameInspector, parts: Parts, cameras: Sequence[Any], *, sinks: Sequence[Any] = (), **options: Any
) -> Iterator[Bench]:
    """Run a line in a thread for as long as the block runs, and end it as a signal would."""
    bench = Bench(parts)
    options.setdefault("policy", Policy(health="off", capacity=16, silence=1e6))

    def go() -> None:
        try:
            every = [Callback(bench.results.append), *sinks]
            run_stream(inspector, list(cameras), every, bench.ledger, gate=parts, on_start=bench.start, **options)
        except BaseException as error:
            bench.error = error
            bench.begun.set()

    thread = threading.Thread(target=go)
    thread.start()
    try:
        assert bench.begun.wait(10)
        yield bench
    finally:
        if bench.stream:
            bench.stream.stop()
        thread.join(20)
        assert not thread.is_alive()


def is_balanced(figures: Any) -> bool:
    """The equation of parts."""
    verdicts = figures["passed"] + figures["failed"] + figures["unknown"]
    return bool(
        figures["triggered"] == figures["answered"] + figures["in_flight"]
        and figures["answered"] == verdicts
        and figures["unknown"] == sum(figures["unknown_by_cause"].values())
    )
