"""Signals of `edgead run`: a clean end, reloading the bundle, and exchanging champion and shadow."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgead.bundle import MANIFEST, read_manifest
from edgead.errors import INTERRUPTED, ConfigError, EdgeadError, describe
from edgead.runtime.frame_inspector import FrameInspector, refuse_other_depth
from edgead.runtime.shadow import Shadow
from edgead.runtime.signals import listen
from edgead.runtime.stream import Stream

END_WITHIN = 15.0
"""Seconds after the first INT or TERM in which a run ends, whatever a source, sink, callback or engine does."""
LOOK_AGAIN = 1.0
"""Seconds between two looks at the folder of the shadow."""
LEAVE_WITHIN = 2.0
"""Seconds at the end of a run for a bundle that is being opened; then its thread is left behind."""
ENDED_LATE = 2
"""Exit code if `END_WITHIN` was not enough."""


class Control:
    """The effect of signals on a running stream.

    INT and TERM end it cleanly within `END_WITHIN`, a second one at once. HUP reloads the bundle that decides. USR1
    exchanges champion and shadow. Handlers only queue a request. The exchange itself happens between two frames, in the
    thread that infers, so that no engine is closed or exchanged while it runs.

    Args:
        open_inspector: opens a bundle; None if bundles cannot be replaced in this run.
        say: shows a line to the user.

    Attributes:
        shadow: the shadow, or None.
        shadow_path: of its bundle. A bundle that comes there, or replaces the one there, becomes the shadow.
        finish: reports the summary. Also called if the process ends at once.
        interrupted, asked_to_end: by INT; by INT or TERM.
        reloads: how many were asked for by HUP and done, or refused because the bundle cannot be used.
    """

    def __init__(self, open_inspector: Callable[[Path], FrameInspector] | None, say: Callable[[str], None]) -> None:
        self._open, self._say = open_inspector, say
        self.shadow: Shadow | None = None
        self.shadow_path: Path | None = None
        self.finish: Callable[[], None] = lambda: None
        self._stream: Stream | None = None
        self._reloads: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._early: list[Callable[[], None]] = []
        self._opened: set[FrameInspector] = set()
        self._ends = 0
        self._ended, self._closing = threading.Event(), threading.Event()
        self._helpers: list[threading.Thread] = []
        self._changing = threading.Lock()
        self.interrupted = self.asked_to_end = False
        self.reloads = {"done": 0, "refused": 0}

    @property
    def failed_sources(self) -> dict[str, str]:
        """Sources that ended because of an error, with the error."""
        return dict(self._stream.failed) if self._stream else {}

    @property
    def inspector(self) -> FrameInspector | None:
        """What decides; None before the stream runs."""
        return self._stream.inspector if self._stream else None

    def take(self, stream: Stream) -> None:
        """Begin to act on this stream, beginning with earlier requests.

        Raises:
            KeyboardInterrupt: the run was asked to end before. A library that opens a camera may swallow this error.
        """
        if self.asked_to_end:
            raise KeyboardInterrupt
        self._stream = stream
        for action in self._early:
            stream.call_soon(action)
        self._helpers.append(threading.Thread(target=self._reload, args=(stream,), name="reload", daemon=True))
        if self.shadow_path:
            arguments = stream, self.shadow_path
            self._helpers.append(threading.Thread(target=self._follow, args=arguments, name="shadow", daemon=True))
        for thread in self._helpers:
            thread.start()

    def close(self) -> None:
        """End what is being opened, and release the inspectors that were opened for the stream and are still open."""
        self._closing.set()
        self._reloads.put(None)
        until = time.monotonic() + LEAVE_WITHIN
        for thread in self._helpers:
            thread.join(max(0.0, until - time.monotonic()))
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
        except EdgeadError as error:  # as in `take`: what was opened then has failed, because it was interrupted
            if self.asked_to_end and not self._stream:
                raise KeyboardInterrupt from error
            raise
        finally:
            self._ended.set()
            self._closing.set()
            self._reloads.put(None)

    def _end(self, number: int, _frame: object) -> None:
        """Runs in the main thread, which may be busy for a long time; `_hear` does not wait for it."""
        self.interrupted, self.asked_to_end = number == signal.SIGINT, True
        if not self._stream:
            raise KeyboardInterrupt
        # A separate thread: a handler interrupts code that may hold the locks that `stop` needs.
        threading.Thread(target=self._stream.stop, name="stop", daemon=True).start()

    def _hear(self, number: int) -> None:
        """Runs in the thread that receives signals."""
        if number not in (signal.SIGINT, signal.SIGTERM):
            return
        self._ends += 1
        if self._ends > 1:
            self._leave("ended at once by a second signal; waiting results are lost.", INTERRUPTED)
        if self._stream:
            threading.Thread(target=self._stream.stop, name="stop", daemon=True).start()
        threading.Thread(target=self._leave_late, name="end", daemon=True).start()

    def _leave_late(self) -> None:
        if not self._ended.wait(END_WITHIN):
            self._leave(
                f"a source, sink or callback did not end within {END_WITHIN:g} s; ended without it.", ENDED_LATE
            )

    def _leave(self, reason: str, code: int) -> None:
        """End the process now. Even the message may hang, for instance in a pipe that nobody reads."""

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
        """Reload a bundle for each request, in a separate thread, until the run ends."""
        while (path := self._reloads.get()) and not self._closing.is_set():
            try:
                self._replace(stream, path)
                self.reloads["done"] += 1
            except Exception as error:  # a bad bundle must not end this thread
                self.reloads["refused"] += 1
                self._say(f"Warning: the bundle could not be reloaded; the old one stays in use: {describe(error)}")

    def _follow(self, stream: Stream, path: Path) -> None:
        """Look at the shadow's folder until the run ends, and take a bundle that comes there."""
        before: object = None
        tried: object = None
        while not self._closing.wait(LOOK_AGAIN):
            seen = _files_of(path)
            if seen != before:  # it may still be copied
                before = seen
                continue
            if seen is None or seen == tried:
                continue
            tried = seen
            try:
                self._take_shadow(stream, path)
            except Exception as error:  # the run and its present shadow go on
                self._say(f"Warning: {path} cannot become the shadow: {describe(error)}")

    def _take_shadow(self, stream: Stream, path: Path) -> None:
        """Make a bundle the shadow, unless it is that already, or decides."""
        shadow = self.shadow
        assert shadow is not None
        known = [each.bundle.manifest.digest for each in (stream.inspector, shadow.inspector) if each]
        if read_manifest(path).digest in known:
            return

        def put(new: FrameInspector) -> FrameInspector | None:
            refuse_other_depth(new, stream.inspector)
            old, shadow.inspector = shadow.inspector, new
            return old

        self._say(f"Shadow: {self._bring_in(stream, path, put)} is the shadow now; it decides nothing.")

    def _replace(self, stream: Stream, path: Path) -> None:
        """Replace a bundle where it is in use by then: USR1, or a changeover, may come while it is loaded."""

        def put(new: FrameInspector) -> FrameInspector | None:
            shadow, decides = self.shadow, stream.inspector
            beside = shadow.inspector if shadow else None
            if _is_of(decides, path):
                self._keep_threshold(decides, new)
                return stream.take_over(new)
            if not shadow or not beside or not _is_of(beside, path):
                raise ConfigError(
                    f"{path.stem} no longer decides: {decides.bundle.manifest.name} was chosen meanwhile."
                )
            refuse_other_depth(new, decides)
            old, shadow.inspector = shadow.inspector, new
            return old

        self._say(f"Bundle reloaded: {self._bring_in(stream, path, put)}")

    def _keep_threshold(self, old: FrameInspector, new: FrameInspector) -> None:
        """Let the same bundle, read again, decide by the threshold that was set during the run."""
        if old.bundle.manifest.digest == new.bundle.manifest.digest and old.threshold != new.threshold:
            new.threshold = old.threshold
            self._say(
                f"{new.bundle.manifest.name} is unchanged and keeps the threshold of this run, {old.threshold:.6g}"
            )

    def change_over(self, stream: Stream, path: Path) -> None:
        """Let another bundle decide. It is opened and validated first; this returns when it decides. Thread-safe.

        Raises:
            EdgeadError: it cannot be opened or cannot take the running frames, another changeover is running, or the
                run has ended. The old bundle still decides.
        """
        if not self._changing.acquire(blocking=False):
            raise ConfigError("A changeover is already running. Wait until it has ended.")
        try:
            self._say(f"Changeover: {self._bring_in(stream, path, stream.take_over)} now decides.")
        finally:
            self._changing.release()

    def _bring_in(self, stream: Stream, path: Path, put: Callable[[FrameInspector], FrameInspector | None]) -> str:
        """Open a bundle, put it in its place between two frames, and release the one that was there.

        Args:
            stream: that runs.
            path: of the bundle.
            put: puts the new inspector in its place and returns the old one, or None if there was none.

        Returns:
            The bundle's name.
        """
        if self._open is None:
            raise ConfigError("This run has products. Change over by a product's name; restart the run to reload them.")
        new = self._open(path)
        self._opened.add(new)
        done: queue.SimpleQueue[FrameInspector | Exception | None] = queue.SimpleQueue()

        def exchange() -> None:
            try:
                done.put(put(new))
            except Exception as error:
                done.put(error)

        outcome = self._wait_for(done) if stream.call_soon(exchange) else ConfigError("The run has ended.")
        if isinstance(outcome, Exception):
            self._retire(new)
            raise outcome
        if outcome is not None:
            self._retire(outcome)
        return new.bundle.manifest.name

    def _wait_for(
        self, done: queue.SimpleQueue[FrameInspector | Exception | None]
    ) -> FrameInspector | Exception | None:
        """Wait for an exchange. A stream that has ended makes no more exchanges."""
        while not self._closing.is_set():
            with suppress(queue.Empty):
                return done.get(timeout=0.2)
        return ConfigError("The run has ended.")

    def _retire(self, inspector: FrameInspector) -> None:
        self._opened.discard(inspector)
        try:
            inspector.close()
        except Exception as error:  # it no longer decides, so nothing depends on it
            self._say(f"Warning: an engine that is no longer needed could not be released: {describe(error)}")

    def _exchange(self) -> None:
        """Make the shadow decide and the champion the shadow. Between two frames."""
        if not self.shadow or not self._stream:
            self._say("Warning: signal USR1 has no effect without a shadow.")
            return
        promoted = self.shadow.inspector
        if promoted is None:
            self._say("Warning: signal USR1 has no effect before the shadow's bundle is there.")
            return
        self.shadow.inspector = left = self._stream.take_over(promoted)
        if over := left.restore_threshold():
            self._say(over)
        self._say(
            f"The shadow {promoted.bundle.manifest.name} now decides; the bundle that decided before is now the shadow."
        )


def _is_of(inspector: FrameInspector, bundle: Path) -> bool:
    """Return whether an inspector is of a bundle, however its path is written."""
    return bundle.resolve() == inspector.bundle.path.resolve() or bundle == inspector.bundle.path


def _files_of(bundle: Path) -> object:
    """Return what changes with any file of a bundle; None where there is none yet, or it is being replaced."""
    try:
        if not (bundle / MANIFEST).is_file():
            return None
        facts = {file.name: file.stat() for file in bundle.iterdir()}
    except OSError:
        return None
    return {name: (each.st_mtime_ns, each.st_size, each.st_ino) for name, each in facts.items()}
