"""Progress of a sweep for people: a live list on a terminal where rich is installed, elsewhere lines of changes."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from edgead.console import Console, Terminal
from edgead.redaction import printable
from edgead.sweep.cell import Cell
from edgead.sweep.store import CellState, Store
from edgead.terminal import open_screen

if TYPE_CHECKING:
    from rich.live import Live

LINE_EVERY = 60.0
"""Seconds between progress lines of running cells in a log."""
FREE_LINES = 5
"""Lines of the terminal below the list."""


class Board:
    """Shows the states of the cells; use it with ``with``, and call `show` about every second.

    Args:
        store: of the sweep.
        cells: all cells of the sweep.
        console: shows the lines of changes. Only a `Terminal` has a live list.
    """

    def __init__(self, store: Store, cells: Sequence[Cell], console: Console) -> None:
        self._store, self._cells, self._console = store, cells, console
        self._live: Live | None = None
        self._closing = ExitStack()
        self._printed: dict[tuple[str, str], CellState] = {}
        self._printed_at = time.monotonic()

    def __enter__(self) -> Board:
        screen = open_screen(sys.stderr) if isinstance(self._console, Terminal) else None
        if screen is not None:
            from rich.live import Live

            live = Live(console=screen, auto_refresh=False, redirect_stdout=False)
            self._live = self._closing.enter_context(live)
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing.close()

    def show(self, running: Sequence[Cell]) -> None:
        """Show the states of the cells.

        Args:
            running: cells that Ray has not finished.
        """
        if self._live is None:
            self._print_changes(running)
        else:
            self._draw(self._live)

    def _states(self) -> dict[tuple[str, str], tuple[Cell, CellState, str]]:
        return {
            (cell.key, precision): (cell, *self._store.state(cell, precision))
            for cell in self._cells
            for precision in cell.precisions
        }

    def _draw(self, live: Live) -> None:
        from rich.text import Text

        size = live.console.size
        states = self._states()
        counts = Counter(state.value for _, state, _ in states.values())
        lines = [", ".join(f"{counts[state.value]} {state.value}" for state in CellState)]
        order = {CellState.STARTED: 0, CellState.FAILED: 1, CellState.TO_DO: 2, CellState.DONE: 3}
        for (_, precision), (cell, state, why) in sorted(states.items(), key=lambda item: order[item[1][1]]):
            text = self._store.last_line(cell) if state is CellState.STARTED else why
            lines.append(f"{state.value:<8} {cell.title}, {precision}  {text}")
        shown = "\n".join(printable(line) for line in lines[: size.height - FREE_LINES])
        live.update(Text(shown, no_wrap=True, overflow="ellipsis"), refresh=True)

    def _print_changes(self, running: Sequence[Cell]) -> None:
        first = not self._printed
        for name, (cell, state, why) in self._states().items():
            if self._printed.get(name, CellState.TO_DO) is not state and not (first and state is CellState.DONE):
                self._console.say(f"{state.value}: {cell.title}, {name[1]}{f'  {why}' if why else ''}")
            self._printed[name] = state
        if time.monotonic() - self._printed_at >= LINE_EVERY:
            self._printed_at = time.monotonic()
            for cell in running:
                if line := self._store.last_line(cell):
                    self._console.say(f"{cell.title}: {line}")
