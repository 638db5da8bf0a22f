"""A reader of files that others may have made, and one execution of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from guard import REPOSITORY, Finding, watched
from mutate import Change

from edgead.errors import EdgeadError

LONGEST_ERROR = 10_000
"""Characters of an error: a hostile file must not fill a log."""


@dataclass(frozen=True)
class Reader:
    """A reader under test.

    Attributes:
        name: of its folder in ``corpus/``.
        read: takes a file's bytes and an empty or used folder of its own; raises `EdgeadError` for what it refuses.
        seeds: returns whole files; the argument is a folder for its work.
        change: makes a new file of one.
        memory: MiB that an execution may add to the process.
    """

    name: str
    read: Callable[[bytes, Path], object]
    seeds: Callable[[Path], list[bytes]]
    change: Change
    memory: int = 96


def execute(reader: Reader, data: bytes, folder: Path) -> str:
    """Read once; return the refusal, or an empty text where the file is accepted.

    Raises:
        Finding: another error than edgead's own, a hang, an access outside `folder`, or an endless error text.
    """
    try:
        with watched(folder):
            reader.read(data, folder)
    except EdgeadError as error:
        text = str(error)
        if len(text) > LONGEST_ERROR:
            raise Finding(f"an error of {len(text)} characters: {text[:80]!r}") from error
        return text or type(error).__name__
    except Finding:
        raise
    except Exception as error:
        raise Finding(f"{type(error).__name__} at {place_of(error)}: {str(error)[:120]}") from error
    return ""


def place_of(error: BaseException) -> str:
    """Return the innermost line of edgead that an error passed: findings with one place are one finding."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(str(REPOSITORY / "edgead"))]
    last = (ours or frames)[-1]
    return f"{Path(last.filename).relative_to(REPOSITORY) if ours else Path(last.filename).name}:{last.lineno}"
