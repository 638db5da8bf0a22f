"""A console whose messages a test can read."""

from __future__ import annotations

from edgead.console import Console


class Listener(Console):
    """Keeps the messages.

    Attributes:
        said: each text given to `say`, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)
