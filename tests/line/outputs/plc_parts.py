"""What the tests of PLC outputs share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from edgead.decision import Verdict
from edgead.errors import SinkError
from edgead.runtime.result import Result
from edgead.runtime.sinks.sink import LeftOut


def make_result(verdict: Verdict = Verdict.PASS, part: str = "part-1", **fields: Any) -> Result:
    """A result of a part."""
    return Result(
        fields.pop("score", 1.5),
        verdict,
        "made for a test",
        fields.pop("threshold", 2.5),
        part_id=part,
        recipe="bottle 3",
        **fields,
    )


class Writing:
    """A result on its way to the PLC: what became of it, once it is known."""

    def __init__(self, write: Callable[[Result], None], result: Result) -> None:
        self.error = ""
        self._write, self._result = write, result
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._write(self._result)
        except (SinkError, LeftOut) as error:
            self.error = str(error)

    @property
    def waits(self) -> bool:
        """It has neither been taken nor failed."""
        return self._thread.is_alive()

    def end(self) -> str:
        """Wait for the end and return why it failed; empty if it was taken."""
        self._thread.join(10.0)
        assert not self._thread.is_alive()
        return self.error


@contextmanager
def closing(thing: Any) -> Iterator[Any]:
    """Close it at the end."""
    try:
        yield thing
    finally:
        thing.close()
