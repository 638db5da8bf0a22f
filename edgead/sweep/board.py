"""Progress of a sweep for people: a table on a terminal, lines of changes in a log."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence

import click

from edgead.console import Console
from edgead.redaction import printable
from edgead.sweep.cell import Cell
from edgead.sweep.store import CellState, Store

LINE_EVERY = 60.0
"""Seconds between progress lines of running cells in a log."""
FREE_LINES = 5
"""Lines of the terminal below the table."""


class Board:
    """Shows the states of the cells; call `show` about every second.

    Args:
        store: of the sweep.
        cells: all cells of the sweep.
        console: shows the lines of a log.
    """

    def __init__(self, store: Store, cells: Sequence[Cell], console: Console) -> None:
        self._store, self._cells, self._console = store, cells, console
        self._drawn = 0
        self._printed: dict[tuple[str, str], CellState] = {}
        self._printed_at = time.monotonic()

    def show(self, running: Sequence[Cell]) -> None:
        """Show the states of the cells.

        Args:
            running: cells that Ray has not finished.
        """
        if sys.stderr.isatty():
            self._draw()
        else:
            self._print_changes(running)

    def _states(self) -> dict[tuple[str, str], tuple[Cell, CellState, str]]:
        return {
            (cell.key, precision): (cell, *self._store.state(cell, precision))
            for cell in self._cells
            for precision in cell.precisions
        }

    def _draw(self) -> None:
        size = shutil.get_terminal_size()
        states = self._states()
        counts = Counter(state.value for _, state, _ in states.values())
        lines = [", ".join(f"{counts[state.value]} {state.value}" for state in CellState)]
        order = {CellState.STARTED: 0, CellState.FAILED: 1, CellState.TO_DO: 2, CellState.DONE: 3}
        for (_, precision), (cell, state, why) in sorted(states.items(), key=lambda item: order[item[1][1]]):
            text = self._store.last_line(cell) if state is CellState.STARTED else why
            lines.append(f"{state.value:<8} {cell.title}, {precision}  {text}")
        shown = [printable(line)[: size.columns - 1] for line in lines[: size.lines - FREE_LINES]]
        up = f"\033[{self._drawn}A" if self._drawn else ""
        click.echo(up + "\r\033[J" + "\n".join(shown), err=True)
        self._drawn = len(shown)

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
