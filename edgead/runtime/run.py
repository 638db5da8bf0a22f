"""`edgead run`: a stream with sinks, signals, metrics, recording and shadow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
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
from edgead.runtime.metrics_server import MetricsServer, parse_address
from edgead.runtime.observer import Line, Observer
from edgead.runtime.on_time import OnTime
from edgead.runtime.pipeline import run_stream
from edgead.runtime.policy import Policy
from edgead.runtime.prometheus import bundle_to_prometheus, sinks_to_prometheus
from edgead.runtime.record import Recorder
from edgead.runtime.result import Result
from edgead.runtime.rules import describe_threshold
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
    ledger, rules, console = Ledger(), Policy(**policy), console or Console()
    say = console.say
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
    workers: list[SinkWorker] = []
    given = bundle if isinstance(bundle, FrameInspector) else None
    path = bundle.bundle.path if isinstance(bundle, FrameInspector) else bundle
    if given and shadow:
        raise ConfigError("A shadow needs a single bundle that decides, but this run has several products.")
    control = Control(None if given else open_bundle, say)
    told = threading.Lock()

    def finish() -> None:
        if told.acquire(blocking=False):
            on_end(_summarise(path, ledger, workers, control, gate))

    control.finish = finish

    on_time = OnTime()
    systemd = Systemd(lambda: on_time.decides)

    def see(result: Result) -> None:
        on_time.see(result)
        if on_result:
            on_result(result)
        if observer:
            observer.see(result)

    def start(stream: Stream) -> None:
        control.take(stream)
        on_time.begin(stream)
        systemd.ready()
        if observer:
            observer.begin(Line(stream, control, ledger, workers, watch))

    with ExitStack() as stack:
        stack.callback(systemd.close)
        if observer:
            stack.callback(observer.close)
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
        for sink in sinks:
            workers.append(SinkWorker(open_sink(sink)))
            if configuration is not None:
                workers[-1].configure(configuration)
        if record:
            workers.append(SinkWorker(Recorder(record, inspector)))
        if shadow:
            control.shadow, control.shadow_path = _open_shadow(shadow, inspector, open_bundle, stack, say), shadow
            workers.append(SinkWorker(control.shadow, capacity=1))
        stack.callback(control.close)
        if address:
            render = partial(_render_metrics, inspector, ledger, control, gate, watch, workers)
            server = MetricsServer(address[1], render, address[0], fill_secrets(metrics_token), on_time.why_not)
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
                keep_frames=observer is not None,
                on_result=see,
                on_start=start,
                gate=gate,
                watch=watch,
                say=lambda text: say(f"Warning: {text}"),
            )
        finally:
            on_time.end()
            finish()
    if control.interrupted:
        raise KeyboardInterrupt
    if not ledger.captured and not control.asked_to_end:
        raise SourceError(f"The source {', '.join(source.name for source in opened)} delivered no frame.")


class _Opener:
    """Opens the bundle of a run and those that replace it, and says what their thresholds promise."""

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
        if promise := describe_threshold(manifest, self._threshold):
            self._say(f"{manifest.name}: {promise}")
        elif self._threshold is not None and self._digests and manifest.digest not in self._digests:
            self._say(
                f"Warning: {manifest.name} is decided by --threshold {opened.threshold:.6g} instead of its own, "
                f"{manifest.threshold.value:.6g}. Scores of another bundle may have another scale."
            )
        self._digests.add(manifest.digest)
        return opened


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
    return Shadow(opened, say, path.stem)


def _render_metrics(
    inspector: FrameInspector,
    ledger: Ledger,
    control: Control,
    gate: Gate | None,
    watch: Watch | None,
    workers: Sequence[SinkWorker],
) -> str:
    """Return the run's metrics in Prometheus' text format; `inspector` decides until the stream runs."""
    decides = (control.inspector or inspector).bundle.manifest
    parts = (
        ledger.to_prometheus(),
        bundle_to_prometheus(decides, control.reloads),
        gate.to_prometheus() if gate else "",
        watch.to_prometheus() if watch else "",
        sinks_to_prometheus(workers),
    )
    return "".join(parts)


def _summarise(
    bundle: Path, ledger: Ledger, workers: Sequence[SinkWorker], control: Control, gate: Gate | None
) -> RunSummary:
    summary = {
        "bundle": str(bundle),
        **ledger.snapshot(),
        "failed_sources": control.failed_sources,
        "sinks": [worker.account() for worker in workers],
        "speed_ms": ledger.speed_ms(),
        **({"shadow": control.shadow.account()} if control.shadow else {}),
        **(gate.summary() if gate else {}),
    }
    return cast(RunSummary, summary)
