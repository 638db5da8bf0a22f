"""What a run shows to an observer, for instance a live page, and what the observer may ask of it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from edgead.errors import ConfigError
from edgead.runtime.control import Control
from edgead.runtime.frame_inspector import FrameInspector
from edgead.runtime.ledger import Ledger, Snapshot
from edgead.runtime.policy import Policy
from edgead.runtime.result import Result
from edgead.runtime.sink_worker import SinkAccount, SinkWorker
from edgead.runtime.sinks.rejects import RejectFolder
from edgead.runtime.stream import Stream
from edgead.runtime.watch import Watch

ANSWER_WITHIN = 5.0
"""Seconds for a change between two frames."""
OTHER_DECIDES = "Another bundle or product decides now. Look at its scores before you set a threshold."


class Line:
    """A running stream as an observer sees it. Everything is thread-safe and waits for no frame."""

    def __init__(
        self,
        stream: Stream,
        control: Control,
        ledger: Ledger,
        workers: Sequence[SinkWorker],
        watch: Watch | None = None,
    ) -> None:
        self._watch = watch
        self._stream, self._control, self._ledger, self._workers = stream, control, ledger, workers

    @property
    def inspector(self) -> FrameInspector:
        """The inspector that decides now."""
        return self._stream.inspector

    @property
    def policy(self) -> Policy:
        """The settings of the stream."""
        return self._stream.policy

    @property
    def cameras(self) -> list[str]:
        """Names of the live sources."""
        return [source.name for source in self._stream.sources if source.live]

    @property
    def failed_sources(self) -> dict[str, str]:
        """Sources that ended because of an error, with the error."""
        return dict(self._stream.failed)

    @property
    def reject_folder(self) -> Path | None:
        """Folder of the first ``rejects:`` sink."""
        return next((one.sink.folder for one in self._workers if isinstance(one.sink, RejectFolder)), None)

    def ledger(self) -> Snapshot:
        """What became of the frames."""
        return self._ledger.snapshot()

    def sinks(self) -> list[SinkAccount]:
        """What became of the results."""
        return [worker.account() for worker in self._workers]

    def alarms(self) -> dict[str, list[str]]:
        """Present alarms about drift by source, as sentences."""
        return self._watch.alarms() if self._watch else {}

    @property
    def paused(self) -> bool:
        """Nothing is inferred; see `Stream`."""
        return self._stream.paused

    def pause(self) -> None:
        """Infer nothing until `resume`."""
        self._stream.paused = True

    def resume(self) -> None:
        """Infer again."""
        self._stream.paused = False

    def set_threshold(self, digest: str, threshold: float, recipe: str = "") -> None:
        """Let a bundle decide by another threshold from the next frame on. It returns when it does.

        It is set between two frames, as bundles are exchanged, so that none that leaves at the same moment takes the
        threshold with it.

        Args:
            digest: of the bundle.
            threshold: of its scores.
            recipe: of the product, several of which may share a bundle; empty without products.

        Raises:
            ConfigError: another bundle or product decides, the threshold is invalid, or nothing is decided now.
        """
        done: queue.SimpleQueue[ConfigError | None] = queue.SimpleQueue()
        given_up = threading.Event()

        def put() -> None:
            try:
                if given_up.is_set():
                    return
                inspector = self.inspector
                if (inspector.bundle.manifest.digest, inspector.recipe) != (digest, recipe):
                    raise ConfigError(OTHER_DECIDES)
                inspector.threshold = threshold
            except ConfigError as error:
                done.put(error)
            else:
                done.put(None)

        if not self._stream.call_soon(put):
            raise ConfigError("The run has ended.")
        try:
            error = done.get(timeout=ANSWER_WITHIN)
        except queue.Empty:
            given_up.set()
            error = ConfigError("The line decides nothing now, and the threshold is as it was.")
        if error is not None:
            raise error

    def change_over(self, bundle: Path) -> None:
        """Let another bundle decide; see `Control.change_over`. It returns when it does.

        Raises:
            EdgeadError: the old bundle still decides.
        """
        self._control.change_over(self._stream, bundle)


class Observer(Protocol):
    """Watches a run."""

    def begin(self, line: Line) -> None:
        """Called once, when the stream runs."""

    def see(self, result: Result) -> None:
        """Called with each result and its frame, by the thread that decides: it must return at once and not raise."""

    def close(self) -> None:
        """Called at the end of the run, also after an error."""
