"""Progress for people, on stderr: lines and progress bars."""

from __future__ import annotations

import codecs
import json
import logging
import select
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
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
STDERR_WITHIN = 1.0
"""Seconds that a message may wait for a reader of stderr, see `limit_waiting`."""
_AT_ONCE = 1000
"""Characters of a message that are written at once: a pipe that is ready takes 4096 bytes."""


class Track(Protocol):
    """Shows progress while a sequence is iterated."""

    def __call__(self, items: Sequence[T], /) -> Iterable[T]: ...


def guard_stderr() -> None:
    """Hide secrets in everything that Python writes to stderr from now on: errors, warnings, log lines, tracebacks."""
    if not isinstance(sys.stderr, _Guarded):
        sys.stderr = _Redacting(sys.stderr)
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(_LogHandler(logging.WARNING))


def _is_ascii(stream: TextIO) -> bool:
    with suppress(LookupError):
        return codecs.lookup(getattr(stream, "encoding", None) or "utf-8").name == "ascii"
    return False


class _Guarded:
    """A stream for messages: writing to it never raises, because no message is worth the work that it is about.

    What a full disk or a reader that has gone does not take is lost. After `limit_waiting`, it never waits long either.

    Args:
        stream: to write to.

    Attributes:
        patience: seconds to wait for a reader that does not read; None for as long as it takes.
    """

    patience: float | None = None

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._left_out, self._lock = stream, 0, threading.RLock()
        self._cut = False  # in mid-line
        self._bytes = getattr(stream, "buffer", None) if _is_ascii(stream) else None

    def _put(self, text: str) -> None:
        with self._lock if self.patience is not None else nullcontext(), suppress(OSError, ValueError):
            for start in range(0, len(text), _AT_ONCE):
                if not self._has_room():
                    self._left_out, self._cut = self._left_out + 1, self._cut or start > 0
                    return
                if self._left_out:
                    notice = self._form(f"Warning: {self._left_out} messages were left out: nobody read them.\n")
                    self._left_out, before, self._cut = 0, "\n" * self._cut, False
                    self._write(before + notice)
                self._write(text[start : start + _AT_ONCE])

    def _write(self, text: str) -> None:
        """Write a text as UTF-8 where Python would write ASCII, as click does."""
        if self._bytes is None:
            self._stream.write(text)
        else:
            self._bytes.write(text.encode(errors="backslashreplace"))
            self._bytes.flush()

    def _form(self, message: str) -> str:
        return message

    def _has_room(self) -> bool:
        """Return whether a part of a message can be written without waiting. Only pipes and terminals can be full."""
        if self.patience is None or sys.platform == "win32":
            return True
        patience = 0.0 if self._left_out else self.patience  # once is enough
        try:
            return bool(select.select([], [self._stream.fileno()], [], patience)[1])
        except (OSError, ValueError):  # no stream of the system
            return True

    def flush(self) -> None:
        """Flush the stream, if it can be."""
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # click would write to it instead of here if the encoding is ASCII
            raise AttributeError(name)
        return getattr(self._stream, name)


class _Redacting(_Guarded):
    """Hides credentials in what is written."""

    def write(self, text: str) -> int:
        self._put(redact(text))
        return len(text)


def log_as_json() -> None:
    """Write each message to stderr as one line of JSON from now on: `time`, `level` and `message`. Again: no effect."""
    if not isinstance(sys.stderr, _JsonLog):
        sys.stderr = _JsonLog(sys.stderr._stream if isinstance(sys.stderr, _Redacting) else sys.stderr)


def limit_waiting() -> None:
    """Let no message to stderr wait longer than `STDERR_WITHIN` from now on. Those that would are left out, by number.

    For work that must not stand still because nobody reads its messages, for instance a pager that is not scrolled.
    """
    if isinstance(sys.stderr, _Guarded):
        sys.stderr.patience = STDERR_WITHIN


class _JsonLog(_Guarded):
    """Writes each message, without credentials, as a JSON object on a line of its own.

    Everything that Python writes to stderr comes through it, so no message is forgotten. A message ends where what is
    written ends with a line's end: several lines that were written at once are one message. Its beginning tells its
    level.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._begun, self._joining = "", threading.Lock()

    def write(self, text: str) -> int:
        with self._joining:
            self._begun += text
            if self._begun.endswith("\n"):
                message, self._begun = self._begun, ""
                self._put(self._form(message))
        return len(text)

    def _form(self, message: str) -> str:
        message = redact(click.unstyle(message).strip())
        start = next((start for start in LEVELS if message.startswith(start)), "")
        now = utc_now("milliseconds")
        value = {"time": now, "level": LEVELS.get(start, "info"), "message": message.removeprefix(start)}
        return json.dumps(value) + "\n" if message else ""

    def isatty(self) -> bool:
        """Nothing is drawn here."""
        return False


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
