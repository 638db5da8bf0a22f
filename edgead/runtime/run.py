"""`edgead run`: the stream as a process beside the line, with its sinks, signals, metrics, recording and shadow."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from edgead.console import Console
from edgead.errors import INTERRUPTED, SourceError, describe
from edgead.runtime.frame_inspector import FrameInspector, refuse_other_depth
from edgead.runtime.inspector import load
from edgead.runtime.ledger import Ledger
from edgead.runtime.metrics_server import MetricsServer, parse_address
from edgead.runtime.record import Recorder
from edgead.runtime.result import Result
from edgead.runtime.rules import describe_threshold
from edgead.runtime.shadow import Shadow
from edgead.runtime.signals import listen
from edgead.runtime.sink_worker import SinkWorker, close_all, to_prometheus
from edgead.runtime.sinks import open_sink
from edgead.runtime.sources.opening import open_all
from edgead.runtime.sources.uri import fill_secrets
from edgead.runtime.stream import Policy, Stream, run_stream

END_WITHIN = 15.0
"""Seconds after the first INT or TERM in which a run ends, whatever a source, sink, callback or engine does."""
ENDED_LATE = 2
"""Exit code where `END_WITHIN` was not enough."""


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
    metrics: str | None = None,
    metrics_token: str = "",
    max_frames: int | None = None,
    on_result: Callable[[Result], None] | None = None,
    on_end: Callable[[dict[str, Any]], None] = lambda summary: None,
    console: Console | None = None,
    **policy: Any,
) -> None:
    """Run until the sources end or a signal comes. In the main thread it handles signals, see `Control`.

    Args:
        bundle: what decides.
        sources, sinks: their URIs; a source's perhaps with a name, ``front=rtsp://…``.
        engine, threshold, min_area, shapes: see `edgead.load`.
        roi, ignore: see `edgead.runtime.rules.read_region`.
        record: folder of the recording.
        shadow: a second bundle.
        metrics: serve Prometheus metrics on this port of 127.0.0.1, or on ADDRESS:PORT.
        metrics_token: what a request for them must carry; see `edgead.runtime.metrics_server.MetricsServer`.
        max_frames: stop after that many results.
        on_result: called with each result.
        on_end: called once with the bundle, the ledger's snapshot and the accounts, also after an error.
        console: shows lines to a person.
        **policy: fields of `edgead.runtime.stream.Policy`.

    Raises:
        SourceError: a source cannot be opened or failed for good, or none gave a frame.
        SinkError: a sink did not take every result.
        KeyboardInterrupt: after a clean end by Ctrl-C.
    """
    ledger, rules, console = Ledger(), Policy(**policy), console or Console()
    say = console.say
    address = None if metrics is None else parse_address(metrics)

    def open_inspector(path: Path) -> FrameInspector:
        opened = load(
            path,
            engine=engine,
            batch=rules.batch,
            threshold=threshold,
            roi=roi,
            ignore=ignore,
            min_area=min_area,
            shapes=tuple(shapes),
            console=console,
        )
        manifest = opened.bundle.manifest
        if promise := describe_threshold(manifest, threshold):
            say(f"{manifest.name}: {promise}")
        return opened

    workers: list[SinkWorker] = []
    control = Control(open_inspector, say)
    told = threading.Lock()

    def finish() -> None:
        if told.acquire(blocking=False):
            on_end({"bundle": str(bundle), **_summarise(ledger, workers, control)})

    control.finish = finish
    with ExitStack() as stack:
        stack.enter_context(control.signals())
        inspector = stack.enter_context(open_inspector(bundle))
        opened = open_all(sources, inspector.pixels)
        unused = stack.enter_context(ExitStack())  # closes them where something after them cannot be opened
        for source in opened:
            unused.callback(source.__exit__, None, None, None)
            if remark := getattr(source, "remark", ""):
                say(f"{source.name}: {remark}")
        unused.callback(close_all, workers)
        for sink in sinks:
            workers.append(SinkWorker(open_sink(sink)))
        if record:
            workers.append(SinkWorker(Recorder(record, inspector)))
        if shadow:
            beside = stack.enter_context(open_inspector(shadow))
            refuse_other_depth(beside, inspector)
            control.shadow = Shadow(beside, say)
            workers.append(SinkWorker(control.shadow, capacity=1))
        stack.callback(control.close)
        if address:
            render, token = lambda: ledger.to_prometheus() + to_prometheus(workers), fill_secrets(metrics_token)
            server = MetricsServer(address[1], render, address[0], token)
            stack.callback(server.close)
        unused.pop_all()  # from here on `run_stream` closes them
        try:
            run_stream(
                inspector,
                opened,
                workers,
                ledger,
                policy=rules,
                max_frames=max_frames or 0,
                on_result=on_result,
                on_start=control.take,
                say=lambda text: say(f"Warning: {text}"),
            )
        finally:
            finish()
    if control.interrupted:
        raise KeyboardInterrupt
    if not ledger.captured and not control.asked_to_end:
        raise SourceError(f"The source {', '.join(source.name for source in opened)} gave no frame.")


def _summarise(ledger: Ledger, workers: Sequence[SinkWorker], control: Control) -> dict[str, Any]:
    return {
        **ledger.snapshot(),
        "failed_sources": control.failed_sources,
        "sinks": [worker.account() for worker in workers],
        **({"shadow": control.shadow.account()} if control.shadow else {}),
    }


class Control:
    """What signals do to the running stream.

    INT and TERM end it cleanly within `END_WITHIN`, a second one at once; HUP reads the bundle that decides again; USR1
    exchanges champion and shadow. Handlers only note what is wanted. The exchange itself is done between two frames, by
    the thread that infers: one engine is never handed over before it is given up.

    Args:
        open_inspector: opens a bundle.
        say: shows a line to a person.

    Attributes:
        shadow: what runs beside, or None.
        finish: tells the account. Called once more where the process ends at once.
        interrupted, asked_to_end: by INT; by INT or TERM.
    """

    def __init__(self, open_inspector: Callable[[Path], FrameInspector], say: Callable[[str], None]) -> None:
        self._open, self._say = open_inspector, say
        self.shadow: Shadow | None = None
        self.finish: Callable[[], None] = lambda: None
        self._stream: Stream | None = None
        self._reloads: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self._early: list[Callable[[], None]] = []
        self._opened: set[FrameInspector] = set()
        self._ends = 0
        self._ended = threading.Event()
        self.interrupted = self.asked_to_end = False

    @property
    def failed_sources(self) -> dict[str, str]:
        """Sources that ended for good because of an error, with the error."""
        return dict(self._stream.failed) if self._stream else {}

    def take(self, stream: Stream) -> None:
        """Begin to act on this stream, also on what was wanted before there was one."""
        self._stream = stream
        for action in self._early:
            stream.call_soon(action)
        threading.Thread(target=self._reload, args=(stream,), name="reload", daemon=True).start()

    def close(self) -> None:
        """Release what was opened for the stream and still runs."""
        for inspector in list(self._opened):
            inspector.close()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Handle signals for as long as the block runs; only the main thread can."""
        handlers = {
            "SIGINT": self._end,
            "SIGTERM": self._end,
            "SIGHUP": self._want_reload,
            "SIGUSR1": self._want_exchange,
        }
        try:
            with listen(handlers, self._hear):
                yield
        finally:
            self._ended.set()

    def _end(self, number: int, _frame: object) -> None:
        """Runs in the main thread, which may be busy for long; `_hear` does not wait for it."""
        if not self._stream:
            raise KeyboardInterrupt
        self.interrupted, self.asked_to_end = number == signal.SIGINT, True
        # A thread of its own: a handler interrupts whatever runs, which may hold the locks that stopping needs.
        threading.Thread(target=self._stream.stop, name="stop", daemon=True).start()

    def _hear(self, number: int) -> None:
        """Runs in the thread that hears signals."""
        if number not in (signal.SIGINT, signal.SIGTERM):
            return
        self._ends += 1
        if self._ends > 1:
            self._leave("ended at once by a second signal; what waited is lost.", INTERRUPTED)
        if self._stream:
            threading.Thread(target=self._stream.stop, name="stop", daemon=True).start()
        threading.Thread(target=self._leave_late, name="end", daemon=True).start()

    def _leave_late(self) -> None:
        if not self._ended.wait(END_WITHIN):
            self._leave(f"a source, sink or callback did not end within {END_WITHIN:g} s; it is left.", ENDED_LATE)

    def _leave(self, reason: str, code: int) -> None:
        """End the process now. Even telling so may hang, for instance in a pipe that nobody reads."""

        def tell() -> None:
            self._say(f"Error: {reason}")
            self.finish()

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        teller.join(1.0)
        os._exit(code)

    def _want_reload(self, _number: int, _frame: object) -> None:
        self._soon(lambda: self._reloads.put(self._deciding()))

    def _want_exchange(self, _number: int, _frame: object) -> None:
        self._soon(self._exchange)

    def _soon(self, action: Callable[[], None]) -> None:
        if self._stream:
            self._stream.call_soon(action)
        else:
            self._early.append(action)

    def _deciding(self) -> Path:
        assert self._stream
        return self._stream.inspector.bundle.path

    def _reload(self, stream: Stream) -> None:
        """Read a bundle again for each request. Runs in a thread of its own, without end."""
        while True:
            path = self._reloads.get()
            try:
                self._replace(stream, path)
            except Exception as error:  # whatever a new bundle is like, this thread must be there for the next one
                self._say(f"Warning: the bundle was not read again, the old one goes on: {describe(error)}")

    def _replace(self, stream: Stream, path: Path) -> None:
        """Put a bundle's new state where its old one is by then: USR1 may come while it is read."""
        new = self._open(path)
        self._opened.add(new)
        done: queue.SimpleQueue[FrameInspector | Exception] = queue.SimpleQueue()

        def exchange() -> None:
            try:
                shadow = self.shadow
                if shadow and shadow.inspector.bundle.path == path != stream.inspector.bundle.path:
                    refuse_other_depth(new, stream.inspector)
                    old, shadow.inspector = shadow.inspector, new
                else:
                    old = stream.take_over(new)
                done.put(old)
            except Exception as error:
                done.put(error)

        stream.call_soon(exchange)
        outcome = done.get()
        if isinstance(outcome, Exception):
            self._retire(new)
            raise outcome
        self._say(f"The bundle was read again: {new.bundle.manifest.name}")
        self._retire(outcome)

    def _retire(self, inspector: FrameInspector) -> None:
        self._opened.discard(inspector)
        try:
            inspector.close()
        except Exception as error:  # it decides no more, so that nothing depends on it
            self._say(f"Warning: an engine that is no longer needed cannot be released: {describe(error)}")

    def _exchange(self) -> None:
        """Make the shadow decide and the champion the shadow. Between two frames."""
        if not self.shadow or not self._stream:
            self._say("Warning: there is no shadow to exchange with.")
            return
        promoted = self.shadow.inspector
        self.shadow.inspector = self._stream.take_over(promoted)
        self._say(f"The shadow {promoted.bundle.manifest.name} now decides; the former champion is the shadow.")
