"""What a person sees while something runs: lines and progress bars, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import click

T = TypeVar("T")


class Console:
    """Says nothing: what functions use when no one is watching."""

    def say(self, text: str) -> None:
        """Show one line."""

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[str], None]]:
        """Show a progress bar; each call of the yielded function is one step, with a short text beside the bar."""
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
    """Lines on stderr; bars only where stderr is a terminal."""

    def say(self, text: str) -> None:
        click.echo(text, err=True)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[str], None]]:
        if not sys.stderr.isatty():
            yield lambda text: None
            return
        shown = click.progressbar(
            length=total, label=label, show_eta=True, show_pos=True, file=sys.stderr, item_show_func=lambda text: text
        )
        with shown as bar:
            yield lambda text: bar.update(1, text)
