"""What a terminal can show: colours, and live progress and tables by rich where it is installed."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

import click

from edgead.errors import is_installed

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

CLOSED: set[str] = set()
"""Standard streams, as ``"stdout"``, that were closed when the process began. What is written to them is lost."""


def is_screen(stream: TextIO | Any) -> bool:
    """Tell whether a stream is a terminal on which lines can be drawn again."""
    return bool(stream.isatty()) and os.environ.get("TERM") != "dumb"


def wants_colour(stream: TextIO | Any) -> bool:
    """Tell whether to write colours to a stream: NO_COLOR says no, FORCE_COLOR yes, else whether it is a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or is_screen(stream)


def echo(text: str, *, err: bool = False) -> None:
    """Print a text whose styles are kept only where colours are wanted."""
    click.echo(text, err=err, color=wants_colour(sys.stderr if err else sys.stdout))


def open_screen(stream: TextIO | Any) -> RichConsole | None:
    """Return rich's console on a stream; None if the stream is no screen, or rich is not installed."""
    if not is_screen(stream) or not is_installed("rich"):
        return None
    from rich.console import Console

    return Console(file=stream, force_terminal=True, no_color=not wants_colour(stream), highlight=False, markup=False)
