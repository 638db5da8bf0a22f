"""`edgead run`: the stream as a process beside the line, with its sinks, signals, metrics, recording and shadow."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from edgead.bundle import read_bundle
from edgead.console import Console
from edgead.errors import EdgeadError, SourceError
from edgead.runtime.inspector import Inspector, load, refuse_other_depth
from edgead.runtime.ledger import Ledger
from edgead.runtime.metrics_server import MetricsServer
from edgead.runtime.outbox import Outbox, to_prometheus
from edgead.runtime.record import Recorder
from edgead.runtime.result import Result
from edgead.runtime.rules import describe_threshold, read_region
from edgead.runtime.shadow import Shadow
from edgead.runtime.sinks import open_sink
from edgead.runtime.sources import open_source
from edgead.runtime.stream import Policy, Stream, run_stream


def run(
    bundle: Path,
    *,
    sources: Sequence[str],
    sinks: Sequence[str] = (),
    engine: str = "auto",
    threshold: float | str | None = None,
    roi: Sequence[str] = (),
    ignore: Sequence[str] = (),
    min_area: int = 0,
    shapes: Sequence[str] = (),
    record: Path | None = None,
    shadow: Path | None = None,
    metrics_port: int | None = None,
    max_frames: int | None = None,
    on_result: Callable[[Result], None] | None = None,
    on_end: Callable[[dict[str, Any]], None] = lambda summary: None,
    console: Console | None = None,
    **policy: Any,
) -> None:
    """Run until the sources end or a signal comes.

    Args:
        bundle: what decides.
        sources, sinks: names.
        engine, threshold, min_area, shapes: see `edgead.load`.
        roi, ignore: see `edgead.runtime.rules.read_region`.
        record: folder of the recording.
        shadow: a second bundle.
        metrics_port: of 127.0.0.1.
        max_frames: stop after that many results.
        on_result: called with each result.
        on_end: called once with the ledger's snapshot and the accounts, also after an error.
        console: shows lines to a person.
        **policy: fields of `edgead.runtime.stream.Policy`.

    Raises:
        SourceError: a source cannot be opened, or none gave a frame.
        SinkError: a sink did not take every result.
        KeyboardInterrupt: after a clean end by Ctrl-C.
    """
    ledger, rules, console = Ledger(), Policy(**policy), console or Console()
    say = console.say

    def open_inspector(path: Path) -> Inspector:
        region = read_region(roi, ignore, read_bundle(path).manifest.size)
        return load(
            path,
            engine=engine,
            batch=rules.batch,
            threshold=threshold,
            region=region,
            min_area=min_area,
            shapes=tuple(shapes),
            console=console,
        )

    with ExitStack() as stack:
        inspector = stack.enter_context(open_inspector(bundle))
        promise = describe_threshold(inspector.bundle.manifest, threshold, inspector.region)
        if promise:
            say(promise)
        opened = [open_source(source, inspector.pixels) for source in sources]
        for source in opened:
            if remark := getattr(source, "remark", ""):
                say(f"{source.name}: {remark}")
        outboxes = [Outbox(open_sink(sink)) for sink in sinks]
        if record:
            outboxes.append(Outbox(Recorder(record, inspector)))
        challenger = None
        if shadow:
            beside = stack.enter_context(open_inspector(shadow))
            refuse_other_depth(beside, inspector)
            challenger = Shadow(beside, say)
            outboxes.append(Outbox(challenger, capacity=1))
        control = Control(lambda: stack.enter_context(open_inspector(bundle)), challenger, say)
        if metrics_port is not None:
            server = MetricsServer(metrics_port, lambda: ledger.to_prometheus() + to_prometheus(outboxes))
            stack.callback(server.close)
        try:
            with control.signals():
                run_stream(
                    inspector,
                    opened,
                    outboxes,
                    ledger,
                    policy=rules,
                    max_frames=max_frames or 0,
                    on_result=on_result,
                    on_start=control.take,
                )
        finally:
            summary = {**ledger.snapshot(), "sinks": [outbox.account() for outbox in outboxes]}
            if challenger:
                summary["shadow"] = challenger.account()
            on_end(summary)
    if control.interrupted:
        raise KeyboardInterrupt
    if not ledger.captured:
        raise SourceError(f"The source {', '.join(source.name for source in opened)} gave no frame.")


class Control:
    """What signals do to the running stream.

    INT and TERM end it cleanly, a second INT at once; HUP reads the bundle again; USR1 exchanges champion and shadow.

    Args:
        reopen: opens the bundle again.
        shadow: what runs beside, or None.
        console: shows lines to a person.
    """

    def __init__(self, reopen: Callable[[], Inspector], shadow: Shadow | None, say: Callable[[str], None]) -> None:
        self._reopen, self._shadow, self._say = reopen, shadow, say
        self._stream: Stream | None = None
        self.interrupted = False

    def take(self, stream: Stream) -> None:
        """Begin to act on this stream."""
        self._stream = stream

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Handle signals for as long as the block runs; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {"SIGINT": self._end, "SIGTERM": self._end, "SIGHUP": self._reload, "SIGUSR1": self._exchange}
        before = {
            number: signal.signal(number, handler)
            for name, handler in handlers.items()
            if (number := getattr(signal, name, None)) is not None
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, number: int, _frame: object) -> None:
        if self.interrupted or not self._stream:
            raise KeyboardInterrupt
        self.interrupted = number == signal.SIGINT
        # A thread of its own: a handler interrupts whatever runs, which may hold the locks that stopping needs.
        threading.Thread(target=self._stream.stop, name="stop").start()

    def _reload(self, _number: int, _frame: object) -> None:
        threading.Thread(target=self._swap_in, name="reload", daemon=True).start()

    def _swap_in(self) -> None:
        try:
            successor = self._reopen()
            if self._stream:
                self._stream.swap(successor, retire=Inspector.close)
        except EdgeadError as error:
            self._say(f"Warning: the bundle was not read again, the old one goes on: {error}")
            return
        self._say(f"The bundle was read again: {successor.bundle.manifest.name}")

    def _exchange(self, _number: int, _frame: object) -> None:
        threading.Thread(target=self._promote, name="promote", daemon=True).start()

    def _promote(self) -> None:
        if not self._shadow or not self._stream:
            self._say("Warning: there is no shadow to exchange with.")
            return
        promoted = self._shadow.exchange(self._stream.inspector)
        self._stream.swap(promoted)
        self._say(f"The shadow {promoted.bundle.manifest.name} now decides; the former champion is the shadow.")
