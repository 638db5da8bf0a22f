"""Lines for the user from any thread: what shows them must not end a thread, and says the same thing once."""

from __future__ import annotations

import logging
from collections.abc import Callable

_log = logging.getLogger(__name__)


def harmless(say: Callable[[str], None]) -> Callable[[str], None]:
    """Return a function that says the same, and logs what raises: threads of sources call it."""

    def say_it(text: str) -> None:
        try:
            say(text)
        except (Exception, SystemExit) as error:
            _log.warning("%s (not shown: %s: %s)", text, type(error).__name__, error)

    return say_it


class SayOnce:
    """Says only the first line about a subject."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._said = say, set[object]()

    def __call__(self, text: str, about: object) -> None:
        """Say a line, unless one about the same subject was said."""
        if about not in self._said:
            self._said.add(about)
            self._say(text)
