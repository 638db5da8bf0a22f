"""Text that every receiver accepts, and shares and the time as text."""

from __future__ import annotations

import shlex
from datetime import datetime, timezone

ROUNDING = 1e-9
"""What a share that is computed may miss 0 or 1 by."""


def valid(text: str) -> str:
    r"""Return text that UTF-8 can hold.

    Names of files may be any bytes. Python holds those that are not UTF-8 as half characters, which JSON, SQLite and
    MQTT cannot hold; they become escapes: ``caf\xe9.png``.
    """
    if text.isascii():
        return text
    try:
        return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    except UnicodeEncodeError:  # half a character that was no byte of a name
        return text.encode(errors="backslashreplace").decode()


def file_name(text: str) -> str:
    """Return a name that every file system and library accepts: other characters become ``_``."""
    return "".join(each if each.isprintable() and each not in '/\\:*?"<>|' else "_" for each in text)


def typed(path: object) -> str:
    """Return a path as it is typed in a shell: in quotes where it holds a space, for instance."""
    return shlex.quote(str(path))


def percent(share: float, digits: int = 1) -> str:
    """Format a share from 0 to 1 in percent, without the sign.

    Only nothing is 0 and only all is 100: other shares get as many more digits as it takes (99.96, 0.004).
    """
    exact = min(abs(share), abs(1 - share)) < ROUNDING
    while not exact and float(f"{100 * share:.{digits}f}") in (0.0, 100.0):
        digits += 1
    return f"{100 * share:.{digits}f}"


def utc_now(timespec: str = "seconds") -> str:
    """Return the time as UTC in ISO 8601, in ``seconds`` or ``milliseconds``."""
    return datetime.now(timezone.utc).isoformat(timespec=timespec)
