"""What the live page costs the stream: capture to decision without it, with it, with one viewer and with ten.

    python benchmarks/live_page.py BUNDLE IMAGES --out benchmarks/results/live-page.json

One stream runs all the time. The variants alternate in short windows, in another order each round, so that a
disturbance of the machine affects all of them. The viewers read in a process of their own on this machine, so the
cost includes their reading.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgead import schema
from edgead.benchmark.latency import percentiles
from edgead.benchmark.report import Percentiles
from edgead.datasets import open_category
from edgead.decision import Verdict
from edgead.files import write_json
from edgead.images import Frame, cv2, read_frame
from edgead.machine import Machine, describe_measurement
from edgead.runtime.control import Control
from edgead.runtime.inspector import Inspector, load
from edgead.runtime.ledger import Ledger
from edgead.runtime.observer import Line
from edgead.runtime.pipeline import run_stream
from edgead.runtime.policy import Policy
from edgead.runtime.result import Result
from edgead.runtime.sources.source import Captured, FrameSource
from edgead.runtime.stream import Stream
from edgead.view.view import View

VARIANTS = {"without": None, "page": 0, "page, 1 viewer": 1, "page, 10 viewers": 10}
"""Viewers by name; None for no page."""
WARM_UP = 0.4
"""Share of a window that is not counted: viewers connect."""
MOST_IMAGES = 40
READER = """
import selectors, socket, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
selector = selectors.DefaultSelector()
for _ in range(count):
    link = socket.create_connection(("127.0.0.1", port))
    link.sendall(b"GET /api/events HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
    selector.register(link, selectors.EVENT_READ)
received = 0
while selector.get_map():
    for key, _ in selector.select():
        data = key.fileobj.recv(1 << 20)
        received += len(data)
        if not data:
            selector.unregister(key.fileobj)
print(received)
"""


@dataclass(frozen=True)
class Variant:
    """One variant.

    Attributes:
        viewers: None without a page.
        total_ms: capture to decision, all windows together.
        frames: number of frames behind it.
        over_without_p50, over_without_p99: median over the rounds of the ratio to the same round without a page.
        lowest_p50, highest_p50: of those ratios.
        megabytes_per_viewer: received in one window, 10⁶ bytes; 0 without viewers.
    """

    viewers: int | None
    total_ms: Percentiles
    frames: int
    over_without_p50: float
    over_without_p99: float
    lowest_p50: float
    highest_p50: float
    megabytes_per_viewer: float


@dataclass(frozen=True)
class Conditions:
    """How it was measured. `frame` is (height, width) in pixels, `load_average` of the minute before."""

    bundle: str
    engine: str
    frame: tuple[int, int]
    pause_ms: float
    seconds_a_window: float
    rounds: int
    failed_share: float
    load_average: float


@dataclass(frozen=True)
class LivePageReport:
    """The results file. `schema` is its version."""

    schema: int
    created: str
    command: str
    machine: Machine
    versions: dict[str, str]
    conditions: Conditions
    variants: dict[str, Variant]


class Camera(FrameSource):
    """A live source that delivers frames at a pace until it is stopped."""

    live = True

    def __init__(self, frames: Sequence[Frame], pause: float) -> None:
        super().__init__("camera")
        self._frames, self._pause = frames, pause

    def read(self) -> Iterator[Captured]:
        for number, frame in enumerate(itertools.cycle(self._frames)):
            if self.stopped.wait(self._pause):
                return
            yield Captured(frame.copy(), "", self.name, number, time.monotonic())


class Window:
    """What happened in one window.

    Attributes:
        times: capture to decision of each counted frame, milliseconds.
        failed: how many of them failed.
        received: by all viewers, bytes.
    """

    def __init__(self) -> None:
        self.times: list[float] = []
        self.failed = self.received = 0


class Meter:
    """Observes a stream, with and without a page.

    Args:
        seconds: of a window.
        folder: for the pages.
    """

    def __init__(self, seconds: float, folder: Path) -> None:
        self._seconds, self._folder = seconds, folder
        self._view: View | None = None
        self._window: Window | None = None

    def see(self, result: Result) -> None:
        if self._view:
            self._view.see(result)
        if window := self._window:
            window.times.append(result.latency_ms["total"])
            window.failed += result.verdict is Verdict.FAIL

    def measure(self, line: Line, viewers: int | None) -> Window:
        """Measure one window of the running stream."""
        window = Window()
        view = None if viewers is None else View("0", folder=self._folder)
        if view:
            view.begin(line)
        self._view = view
        readers = _start_readers(view.port, viewers) if view and viewers else None
        time.sleep(self._seconds * WARM_UP)
        self._window = window
        time.sleep(self._seconds * (1 - WARM_UP))
        self._window = self._view = None
        if view:
            view.close()
        if readers:
            window.received = int(readers.communicate(timeout=20)[0])
        return window


def _start_readers(port: int, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", READER, str(port), str(count)], stdout=subprocess.PIPE, text=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path, help="data set, as for edgead benchmark --data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2.5, help="of one window")
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between two frames")
    parser.add_argument("--size", default="1280x720", help="WIDTHxHEIGHT of the camera's frames")
    options = parser.parse_args()
    head = describe_measurement("benchmarks/live_page.py")
    width, height = map(int, options.size.split("x"))
    labelled = open_category(options.images).labelled()
    samples = labelled[:: max(1, len(labelled) // MOST_IMAGES)]
    frames = [cv2().resize(read_frame(sample.path), (width, height)) for sample in samples]
    with load(options.bundle, engine=options.engine) as inspector, tempfile.TemporaryDirectory() as folder:
        windows = measure(
            inspector, Camera(frames, options.pause), Meter(options.seconds, Path(folder)), options.rounds
        )
        every = [window for own in windows.values() for window in own]
        conditions = Conditions(
            bundle=inspector.bundle.manifest.name,
            engine=inspector.engine.name,
            frame=(height, width),
            pause_ms=options.pause * 1e3,
            seconds_a_window=options.seconds,
            rounds=options.rounds,
            failed_share=round(sum(one.failed for one in every) / sum(len(one.times) for one in every), 3),
            load_average=head.machine.load_before,
        )
    report = LivePageReport(
        schema=1,
        **vars(head),
        conditions=conditions,
        variants={name: _variant(name, windows) for name in VARIANTS},
    )
    write_json(options.out, schema.write(report))
    for name, variant in report.variants.items():
        print(f"{name:18} p50 {variant.total_ms.p50:.3f} ms ({variant.over_without_p50:.4f} of without), ", end="")
        print(f"p99 {variant.total_ms.p99:.3f} ms ({variant.over_without_p99:.4f})")


def measure(inspector: Inspector, camera: Camera, meter: Meter, rounds: int) -> dict[str, list[Window]]:
    """Return the windows of each variant, one for each round."""
    windows: dict[str, list[Window]] = {name: [] for name in VARIANTS}
    control, ledger, names = Control(lambda path: inspector, lambda text: None), Ledger(), list(VARIANTS)

    def take_turns(line: Line) -> None:
        try:
            for number in range(rounds + 1):
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    window = meter.measure(line, VARIANTS[name])
                    if number:  # the first round warms up
                        windows[name].append(window)
        finally:
            camera.stop()

    def start(stream: Stream) -> None:
        threading.Thread(target=take_turns, args=(Line(stream, control, ledger, ()),), daemon=True).start()

    policy = Policy(health="off")
    run_stream(inspector, [camera], (), ledger, policy=policy, keep_frames=True, on_result=meter.see, on_start=start)
    return windows


def _variant(name: str, windows: dict[str, list[Window]]) -> Variant:
    own = [percentiles(window.times) for window in windows[name]]
    bare = [percentiles(window.times) for window in windows["without"]]
    p50, p99 = ([getattr(one, at) / getattr(other, at) for one, other in zip(own, bare)] for at in ("p50", "p99"))
    times = [one for window in windows[name] for one in window.times]
    viewers = VARIANTS[name]
    received = statistics.mean(window.received for window in windows[name])
    return Variant(
        viewers=viewers,
        total_ms=percentiles(times),
        frames=len(times),
        over_without_p50=round(statistics.median(p50), 4),
        over_without_p99=round(statistics.median(p99), 4),
        lowest_p50=round(min(p50), 4),
        highest_p50=round(max(p50), 4),
        megabytes_per_viewer=round(received / viewers / 1e6, 2) if viewers else 0.0,
    )


if __name__ == "__main__":
    main()
