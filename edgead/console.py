"""Progress for people, on stderr: lines and progress bars."""

from __future__ import annotations

import logging
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol, TextIO, TypeVar

import click

from edgead.redaction import printable, redact, shown

T = TypeVar("T")


class Track(Protocol):
    """Shows progress while a sequence is iterated."""

    def __call__(self, items: Sequence[T], /) -> Iterable[T]: ...


def guard_stderr() -> None:
    """Hide secrets in everything that Python writes to stderr from now on: errors, warnings, log lines, tracebacks."""
    if not isinstance(sys.stderr, _Redacting):
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
    """Lines on stderr; progress bars on a terminal, one line per minute in a log."""

    def __init__(self, line_every: float = 60.0) -> None:
        self._line_every = line_every

    def say(self, text: str) -> None:
        click.echo(shown(text), err=True)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[str], None]]:
        if not sys.stderr.isatty():
            yield self._lines(label, total)
            return
        shown = click.progressbar(
            length=total,
            label=label,
            show_eta=True,
            show_pos=True,
            file=sys.stderr,
            item_show_func=lambda text: text and printable(text),
        )
        with shown as bar:
            yield lambda text: bar.update(1, text)

    def _lines(self, label: str, total: int) -> Callable[[str], None]:
        done, start = 0, time.monotonic()
        told = start

        def step(text: str) -> None:
            nonlocal done, told
            done, now = done + 1, time.monotonic()
            if now - told >= self._line_every and done < total:
                told = now
                left = timedelta(seconds=round((now - start) / done * (total - done)))
                self.say(f"{label}  {done}/{total}  {left} left  {text}".rstrip())

        return step

    @contextmanager
    def clock(self, label: str) -> Iterator[Callable[[str], None]]:
        terminal = sys.stderr.isatty()
        texts, done, start = [""], threading.Event(), time.monotonic()

        def show() -> None:
            while not done.wait(0.5 if terminal else self._line_every):
                minutes, seconds = divmod(int(time.monotonic() - start), 60)
                line = f"{label}  {minutes}:{seconds:02}  {printable(texts[0])}".rstrip()
                width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be rewritten
                click.echo(f"\r\033[K{line[:width]}" if terminal else line, err=True, nl=not terminal)

        thread = threading.Thread(target=show, daemon=True)
        thread.start()
        try:
            yield lambda text: texts.__setitem__(0, text)
        finally:
            done.set()
            thread.join()
            if terminal:
                click.echo("\r\033[K", err=True, nl=False)
