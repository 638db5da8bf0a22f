"""A line whose camera shows what a test asks for. As a program it takes the words of `Hand.show` from stdin."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from level_bundle import frame_of

from edgead.errors import SourceError
from edgead.runtime.run import run
from edgead.runtime.sources.source import Captured, FrameSource
from edgead.view import view
from edgead.view.view import View

view.TICK, view.IDLE_TICK = 0.1, 0.2  # tests wait for states
TOKEN = "correct-horse-battery"


class Hand(FrameSource):
    """A camera that repeats ``good``, ``bad`` or ``damaged`` pictures, or ``none``."""

    live = True

    def __init__(self, name: str = "front", pause: float = 0.03) -> None:
        super().__init__(name)
        self.shown, self._pause, self.delivered = "none", pause, 0

    def show(self, what: str) -> None:
        self.shown = what

    def read(self) -> Iterator[Captured]:
        number = 0
        while not self.stopped.wait(self._pause):
            if self.shown == "none":
                continue
            self.delivered += 1
            yield self._picture(number)
            number += 1

    def _picture(self, number: int) -> Captured:
        if self.shown == "damaged":
            return Captured(None, "the JPEG is truncated", self.name, number, time.monotonic(), cause="unreadable")
        frame = frame_of(100)
        if self.shown == "bad":
            frame[20:36, 30:50] = 220
        return Captured(frame, "", self.name, number, time.monotonic())


@contextmanager
def running(bundle: Path, page: View, camera: Hand, sinks: Sequence[str] = (), **options: Any) -> Iterator[list[Any]]:
    """Run a line in a thread; yields a list that holds the summary at its end."""

    def work(*arguments: Any, **keywords: Any) -> None:
        try:
            run(*arguments, **keywords)
        except SourceError:
            if camera.delivered:  # else no test of this worker has shown the camera anything
                raise

    ends: list[Any] = []
    sources: Any = [camera]
    settings = {"engine": "onnxruntime", "health": "off", "observer": page, "on_end": ends.append, **options}
    line = threading.Thread(target=work, args=(bundle,), kwargs={"sources": sources, "sinks": sinks, **settings})
    line.start()
    try:
        yield ends
    finally:
        camera.stop()
        line.join(20)
        assert not line.is_alive()


def main() -> None:
    bundle, folder = map(Path, sys.argv[1:3])
    port, name = sys.argv[3:] or ("0", "<b>front</b>")  # a name is text, whatever is in it
    camera = Hand(name)
    page = View(port, token="${VIEW_TOKEN}", folder=folder)
    # A browser may take long to start: meanwhile the camera waits, and is not silent.
    with running(bundle, page, camera, silence=120.0):
        print(page.url, flush=True)
        for line in sys.stdin:
            camera.show(line.strip())


if __name__ == "__main__":
    main()
