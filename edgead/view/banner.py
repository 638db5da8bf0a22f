"""The word on a camera's banner. It is never PASS unless the newest result is a PASS and is recent."""

from __future__ import annotations

from dataclasses import dataclass

from edgead.decision import Verdict
from edgead.redaction import printable, redact
from edgead.runtime.result import Result
from edgead.text import valid
from edgead.view.causes import advice_on


@dataclass(frozen=True)
class Banner:
    """What is shown large.

    Attributes:
        kind: ``pass``, ``fail``, ``unknown``, ``paused`` or ``waiting``: shape and colour.
        word: one or two words.
        text: why, in plain words; may be empty.
        check: what to do; may be empty.
        reason: the result's own reason, for the engineer.
    """

    kind: str
    word: str
    text: str = ""
    check: str = ""
    reason: str = ""


def banner_of(result: Result | None, age: float, *, paused: bool, failure: str, recent: float) -> Banner:
    """Choose the banner of a camera.

    Args:
        result: the newest one; None if there is none.
        age: seconds since it came.
        paused: the inspection is paused.
        failure: why the source has ended; empty if it runs.
        recent: seconds for which a verdict is shown as the present one.
    """
    if failure:
        return Banner("unknown", "UNKNOWN", "The camera has ended", advice_on("lost").check, _shown(failure))
    if paused:
        return Banner("paused", "PAUSED", *advice_on("paused"))
    if result is None:
        return Banner("waiting", "WAITING", "No picture yet", "If this stays, check the trigger and the camera.")
    if result.verdict is Verdict.UNKNOWN:
        return Banner("unknown", "UNKNOWN", *advice_on(result.cause), reason=_shown(result.reason))
    if age > recent:
        text = f"No new result. The last verdict was {result.verdict.value}"
        return Banner("waiting", "WAITING", text, "If the line runs, check the trigger and the camera.")
    reason = "" if result.reason in ("score above threshold", "score within threshold") else _shown(result.reason)
    return Banner(result.verdict.value.lower(), result.verdict.value, "", "", reason)


def _shown(text: str) -> str:
    """Return a reason as one short line without credentials."""
    return printable(redact(valid(text)))[:300]
