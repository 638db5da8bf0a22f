"""Progress for people, on stderr: lines and progress bars."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, TextIO, TypeVar

import click

from edgead.redaction import printable, redact, shown
from edgead.terminal import is_screen, open_screen
from edgead.text import utc_now

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
LEVELS = {"Error: ": "error", "Warning: ": "warning"}
"""Levels of messages in a JSON log, by their beginning; the others are ``info``."""
ON_SCREEN, IN_LOG = 10.0, 60.0
"""Seconds between two lines about the progress of a task."""


class Track(Protocol):
    """Shows progress while a sequence is iterated."""

    def __call__(self, items: Sequence[T], /) -> Iterable[T]: ...


def guard_stderr() -> None:
    """Hide secrets in everything that Python writes to stderr from now on: errors, warnings, log lines, tracebacks."""
    if not isinstance(sys.stderr, _Redacting | _JsonLog):
        sys.stderr = _Redacting(sys.stderr)
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(_LogHandler(logging.WARNING))


class _Redacting:
    """A stream that hides credentials in what is written to it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redact(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def log_as_json() -> None:
    """Write each message to stderr as one line of JSON from now on: `time`, `level` and `message`. Again: no effect."""
    if not isinstance(sys.stderr, _JsonLog):
        sys.stderr = _JsonLog(sys.stderr._stream if isinstance(sys.stderr, _Redacting) else sys.stderr)


class _JsonLog:
    """A stream that writes each message, without credentials, as a JSON object on a line of its own.

    Everything that Python writes to stderr comes through it, so no message is forgotten. A message ends where what is
    written ends with a line's end: several lines that were written at once are one message. Its beginning tells its
    level.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._begun, self._lock = stream, "", threading.Lock()

    def write(self, text: str) -> int:
        with self._lock:
            self._begun += text
            if self._begun.endswith("\n"):
                message, self._begun = self._begun, ""
                self._stream.write(self._line(redact(click.unstyle(message).strip())))
        return len(text)

    def _line(self, message: str) -> str:
        start = next((start for start in LEVELS if message.startswith(start)), "")
        now = utc_now("milliseconds")
        value = {"time": now, "level": LEVELS.get(start, "info"), "message": message.removeprefix(start)}
        return json.dumps(value) + "\n" if message else ""

    def isatty(self) -> bool:
        """Nothing is drawn here."""
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _LogHandler(logging.Handler):
    """Writes log records as lines that no name in them can forge."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"Warning: {shown(self.format(record))}", err=True)


class Console:
    """Prints nothing: the default of functions that report progress."""

    def say(self, text: str) -> None:
        """Show one line."""

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[str], None]]:
        """Show a progress bar; each call of the yielded function is one step, with a short text beside the bar."""
        yield lambda text: None

    @contextmanager
    def clock(self, label: str) -> Iterator[Callable[[str], None]]:
        """Show the elapsed time of a task of unknown length; each call of what it yields sets the text beside it."""
        yield lambda text: None

    def track(self, label: str) -> Callable[[Sequence[T]], Iterable[T]]:
        """Return a function that iterates over a sequence with a progress bar."""

        def iterate(items: Sequence[T]) -> Iterable[T]:
            with self.bar(label, len(items)) as step:
                for item in items:
                    yield item
                    step("")

        return iterate


class Terminal(Console):
    """Lines on stderr; live progress bars on a terminal where rich is installed, elsewhere a line now and then.

    Args:
        line_every: seconds between two such lines; by default `ON_SCREEN` on a terminal, `IN_LOG` elsewhere.
    """

    def __init__(self, line_every: float | None = None) -> None:
        self._line_every = line_every

    def say(self, text: str) -> None:
        click.echo(shown(text), err=True)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[str], None]]:
        live = _open_progress(False)
        if live is None:
            yield self._lines(label, total)
            return
        with live:
            task = live.add_task(printable(label), total=total, text="")
            yield lambda text: live.update(task, advance=1, text=printable(text))

    def _pause(self) -> float:
        if self._line_every is not None:
            return self._line_every
        return ON_SCREEN if is_screen(sys.stderr) else IN_LOG

    def _lines(self, label: str, total: int) -> Callable[[str], None]:
        done, start, pause = 0, time.monotonic(), self._pause()
        told = start

        def step(text: str) -> None:
            nonlocal done, told
            done, now = done + 1, time.monotonic()
            if now - told >= pause and done < total:
                told = now
                left = timedelta(seconds=round((now - start) / done * (total - done)))
                self.say(f"{label}  {done}/{total}  {left} left  {text}".rstrip())

        return step

    @contextmanager
    def clock(self, label: str) -> Iterator[Callable[[str], None]]:
        live = _open_progress(True)
        if live is None:
            with self._clock_lines(label) as show:
                yield show
            return
        with live:
            task = live.add_task(printable(label), total=None, text="")
            yield lambda text: live.update(task, text=printable(text))

    @contextmanager
    def _clock_lines(self, label: str) -> Iterator[Callable[[str], None]]:
        texts, done, start, pause = [""], threading.Event(), time.monotonic(), self._pause()

        def show() -> None:
            while not done.wait(pause):
                minutes, seconds = divmod(int(time.monotonic() - start), 60)
                self.say(f"{label}  {minutes}:{seconds:02}  {texts[0]}".rstrip())

        thread = threading.Thread(target=show, daemon=True)
        thread.start()
        try:
            yield lambda text: texts.__setitem__(0, text)
        finally:
            done.set()
            thread.join()


def _open_progress(unknown_length: bool) -> Progress | None:
    """Return rich's live progress on stderr: a clock for a task of unknown length, else a bar. None without a screen.

    While it is drawn, lines on stderr appear above it. Standard output is left alone: it may be a file.
    """
    screen = open_screen(sys.stderr)
    if screen is None:
        return None
    from rich import progress

    label, text = (progress.TextColumn(part, markup=False) for part in ("{task.description}", "{task.fields[text]}"))
    columns: tuple[progress.ProgressColumn, ...]
    if unknown_length:
        columns = (progress.SpinnerColumn("line"), label, progress.TimeElapsedColumn(), text)
    else:
        left = progress.TimeRemainingColumn(elapsed_when_finished=True)
        columns = (label, progress.BarColumn(), progress.MofNCompleteColumn(), left, text)
    return progress.Progress(*columns, console=screen, transient=unknown_length, redirect_stdout=False)
