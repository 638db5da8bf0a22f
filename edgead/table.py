"""Tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table of texts. `str` returns it as plain text: a line per row, below the names of the columns.

    Attributes:
        head: names of the columns.
        rows: the cells, as many in each row as there are columns.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def width(self) -> int:
        """Characters of the longest line of the plain text."""
        return len(self._join(self.head))

    def _widths(self) -> list[int]:
        return [max(len(line[column]) for line in (self.head, *self.rows)) for column in range(len(self.head))]

    def _join(self, line: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(line, self._widths()))

    def __str__(self) -> str:
        head, *rows = (self._join(line).rstrip() for line in (self.head, *self.rows))
        return "\n".join([head, "-" * self.width, *rows])
