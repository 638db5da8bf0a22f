"""`edgead run`: a stream with sinks, signals, metrics, recording and shadow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, cast

from edgead.console import Console
from edgead.errors import ConfigError, SourceError
from edgead.runtime.control import Control
from edgead.runtime.frame_inspector import FrameInspector, refuse_other_depth
from edgead.runtime.gate import Gate
from edgead.runtime.inspector import load
from edgead.runtime.ledger import Ledger, Snapshot
from edgead.runtime.metrics_server import MetricsServer, as_url, parse_address
from edgead.runtime.observer import Line, Observer
from edgead.runtime.on_time import OnTime
from edgead.runtime.pipeline import run_stream
from edgead.runtime.policy import Policy
from edgead.runtime.prometheus import bundle_to_prometheus, sinks_to_prometheus
from edgead.runtime.record import Recorder
from edgead.runtime.result import Result
from edgead.runtime.saying import harmless
from edgead.runtime.shadow import Shadow
from edgead.runtime.sink_worker import SinkAccount, SinkWorker, close_all
from edgead.runtime.sinks import open_sink, refuse_twice
from edgead.runtime.sources.opening import open_all
from edgead.runtime.sources.uri import fill_secrets
from edgead.runtime.speed import Percentiles
from edgead.runtime.stream import Stream
from edgead.runtime.systemd import Systemd
from edgead.runtime.watch import Watch


class RunSummary(Snapshot, total=False):
    """What became of a run's frames and results, as JSON.

    `shadow` is there only in a run with a shadow, `parts` in one with parts (`edgead.line.part_ledger.PartFigures`).
    """

    bundle: str
    failed_sources: dict[str, str]
    sinks: list[SinkAccount]
    shadow: dict[str, int]
    parts: Any
    speed_ms: dict[str, Percentiles]


def run(
    bundle: Path | FrameInspector,
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
    on_end: Callable[[RunSummary], None] = lambda summary: None,
    observer: Observer | None = None,
    gate: Gate | None = None,
    watch: Watch | None = None,
    configuration: Mapping[str, Any] | None = None,
    need_all_cameras: bool = False,
    console: Console | None = None,
    **policy: Any,
) -> None:
    """Run until the sources end or a signal arrives. In the main thread it handles signals, see `Control`.

    Args:
        bundle: the bundle; or an open inspector, which is not closed, and which signals do not replace.
        sources, sinks: URIs; a source may have a name, ``front=rtsp://…``.
        engine, threshold, min_area, shapes: see `edgead.load`.
        roi, ignore: see `edgead.runtime.rules.read_region`.
        record: folder of the recording.
        shadow: a second bundle. It may be written or replaced during the run: then it becomes the shadow.
        metrics: serve Prometheus metrics on this port of 127.0.0.1, or on ADDRESS:PORT.
        metrics_token: token of requests for metrics; see `edgead.runtime.metrics_server.MetricsServer`.
        max_frames: stop after that many results.
        on_result: called with each result.
        on_end: called once with the summary, also after an error.
        observer: watches the run, and is closed at its end, also if it does not start.
        gate: chooses frames and results, see `edgead.runtime.gate`; closed as the observer is.
        watch: looks at every inferred frame beside the decision, see `edgead.runtime.watch`.
        configuration: the run's settings as JSON values, which sinks keep with the results; None for nothing to keep.
        need_all_cameras: a camera that cannot be opened at the start ends the run, also if another one runs.
        console: shows lines to the user.
        **policy: fields of `edgead.runtime.policy.Policy`.

    Raises:
        ConfigError: a value that makes no sense, or a sink that is given twice.
        SourceError: a source cannot be opened or has failed, or no source delivered a frame.
        SinkError: a sink did not take every result.
        KeyboardInterrupt: after a clean end by Ctrl-C.
    """
    rules, console = Policy(**policy), console or Console()
    say = harmless(console.say)
    address = None if metrics is None else parse_address(metrics)
    refuse_twice(sinks)
    open_bundle = _Opener(
        partial(
            load,
            engine=engine,
            batch=rules.batch,
            threshold=threshold,
            roi=roi,
            ignore=ignore,
            min_area=min_area,
            shapes=tuple(shapes),
            console=console,
        ),
        threshold,
        say,
    )
    given = bundle if isinstance(bundle, FrameInspector) else None
    path = bundle.bundle.path if isinstance(bundle, FrameInspector) else bundle
    if given and shadow:
        raise ConfigError("A shadow needs a single bundle that decides, but this run has several products.")
    control = Control(None if given else open_bundle, say)
    reporter = _Reporter(path, control, gate, watch, observer, on_result, on_end)
    ledger, workers = reporter.ledger, reporter.workers
    with ExitStack() as stack:
        stack.callback(reporter.close)
        if gate:
            stack.callback(gate.close)
        stack.enter_context(control.signals())
        inspector = given or stack.enter_context(open_bundle(path))
        opened = open_all(sources, inspector.pixels, need_all_cameras)
        unused = stack.enter_context(ExitStack())  # closes the sources if a later step fails
        for source in opened:
            unused.callback(source.__exit__, None, None, None)
            if remark := getattr(source, "remark", ""):
                say(f"{source.name}: {remark}")
        unused.callback(close_all, workers)
        _open_sinks(workers, sinks, configuration)
        if record:
            workers.append(SinkWorker(Recorder(record, inspector)))
        if shadow:
            control.shadow, control.shadow_path = _open_shadow(shadow, inspector, open_bundle, stack, say), shadow
            workers.append(SinkWorker(control.shadow, capacity=1))
        stack.callback(control.close)
        if address:
            render, token = partial(reporter.to_prometheus, inspector), fill_secrets(metrics_token)
            server = MetricsServer(address[1], render, address[0], token, reporter.on_time.why_not)
            stack.callback(server.close)
            if not address[1]:
                say(f"Metrics: {as_url(address[0], server.port)}metrics")
        unused.pop_all()  # from here on `run_stream` closes them
        try:
            run_stream(
                inspector,
                opened,
                workers,
                ledger,
                policy=rules,
                max_frames=max_frames or 0,
                keep_frames=observer is not None,
                on_result=reporter.see,
                on_start=reporter.begin,
                gate=gate,
                watch=watch,
                say=lambda text: say(f"Warning: {text}"),
            )
        finally:
            reporter.end()
    if control.interrupted:
        raise KeyboardInterrupt
    if not ledger.captured and not control.asked_to_end:
        raise SourceError(f"The source {', '.join(source.name for source in opened)} delivered no frame.")


class _Reporter:
    """Tells the caller, the observer, systemd and Prometheus what becomes of a run.

    Attributes:
        ledger: of its frames.
        workers: of its sinks, as they are opened.
        on_time: whether its decisions are.
    """

    def __init__(
        self,
        bundle: Path,
        control: Control,
        gate: Gate | None,
        watch: Watch | None,
        observer: Observer | None,
        on_result: Callable[[Result], None] | None,
        on_end: Callable[[RunSummary], None],
    ) -> None:
        self.ledger, self.on_time = Ledger(), OnTime()
        self.workers: list[SinkWorker] = []
        self._bundle, self._control, self._gate, self._watch = bundle, control, gate, watch
        self._observer, self._on_result, self._on_end = observer, on_result, on_end
        self._systemd = Systemd(lambda: self.on_time.decides)
        self._told = threading.Lock()
        control.finish = self._finish

    def begin(self, stream: Stream) -> None:
        """Tell that the stream runs."""
        self._control.take(stream)
        self.on_time.begin(stream)
        self._systemd.ready()
        if self._observer:
            self._observer.begin(Line(stream, self._control, self.ledger, self.workers, self._watch))

    def see(self, result: Result) -> None:
        """Tell a result."""
        self.on_time.see(result)
        if self._on_result:
            self._on_result(result)
        if self._observer:
            self._observer.see(result)

    def end(self) -> None:
        """Tell the summary, once."""
        self.on_time.end()
        self._finish()

    def _finish(self) -> None:
        if self._told.acquire(blocking=False):  # `Control` may have told it already, from another thread
            self._on_end(self._summarise())

    def close(self) -> None:
        """Close the observer and the connection to systemd."""
        with closing(self._systemd):
            if self._observer:
                self._observer.close()

    def to_prometheus(self, inspector: FrameInspector) -> str:
        """Return the run's metrics in Prometheus' text format; `inspector` decides until the stream runs."""
        decides = (self._control.inspector or inspector).bundle.manifest
        parts = (
            self.ledger.to_prometheus(),
            bundle_to_prometheus(decides, self._control.reloads),
            self._gate.to_prometheus() if self._gate else "",
            self._watch.to_prometheus() if self._watch else "",
            sinks_to_prometheus(self.workers),
        )
        return "".join(parts)

    def _summarise(self) -> RunSummary:
        shadow = self._control.shadow
        summary = {
            "bundle": str(self._bundle),
            **self.ledger.snapshot(),
            "failed_sources": self._control.failed_sources,
            "sinks": [worker.account() for worker in self.workers],
            "speed_ms": self.ledger.speed_ms(),
            **({"shadow": shadow.account()} if shadow else {}),
            **(self._gate.summary() if self._gate else {}),
        }
        return cast(RunSummary, summary)


class _Opener:
    """Opens the bundle of a run and those that replace it, and warns of a threshold that was given for another."""

    def __init__(
        self, load_bundle: Callable[[Path], FrameInspector], threshold: float | str | None, say: Callable[[str], None]
    ) -> None:
        self._load, self._threshold, self._say = load_bundle, threshold, say
        self._digests: set[str] = set()

    def __call__(self, path: Path) -> FrameInspector:
        """Return the inspector of a bundle.

        Raises:
            EdgeadError: see `edgead.load`.
        """
        opened = self._load(path)
        manifest = opened.bundle.manifest
        replaced = self._threshold is not None and opened.threshold != manifest.threshold.value
        why = "Scores of another bundle may have another scale."
        if str(self._threshold).startswith("fpr:"):  # follows from the bundle's own scores
            why = "People have chosen that one (edgead review); it is not used." if manifest.changes else ""
        if replaced and why and self._digests and manifest.digest not in self._digests:
            self._say(
                f"Warning: {manifest.name} decides by --threshold {opened.threshold:.6g} instead of its own threshold, "
                f"{manifest.threshold.value:.6g}. {why}"
            )
        self._digests.add(manifest.digest)
        return opened


def _open_sinks(workers: list[SinkWorker], sinks: Sequence[str], configuration: Mapping[str, Any] | None) -> None:
    """Open sinks, each into `workers` at once: who closes these also closes them if a later one cannot be opened."""
    for sink in sinks:
        workers.append(SinkWorker(open_sink(sink)))
        if configuration is not None:
            workers[-1].configure(configuration)


def _open_shadow(
    path: Path,
    inspector: FrameInspector,
    open_bundle: Callable[[Path], FrameInspector],
    stack: ExitStack,
    say: Callable[[str], None],
) -> Shadow:
    """Return the shadow of an inspector; without a bundle where it has yet to be written into an existing folder."""
    if path.parent.is_dir() and not path.exists():
        say(f"{path} does not exist yet; it becomes the shadow when it is written.")
        return Shadow(None, say, path.stem)
    opened = stack.enter_context(open_bundle(path))
    refuse_other_depth(opened, inspector)
    if (opened.bundle.manifest.digest, opened.threshold) == (inspector.bundle.manifest.digest, inspector.threshold):
        say(f"Warning: the shadow {path} is the bundle that decides. Nothing is compared.")
    return Shadow(opened, say, path.stem)
