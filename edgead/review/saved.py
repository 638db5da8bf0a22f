"""Rejects that a ``rejects:`` sink has saved, and marks of them from the command line."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgead.audit import Audit
from edgead.decision import Verdict
from edgead.errors import ConfigError
from edgead.marks import Mark, Marks, check_mark
from edgead.runtime.sinks.rejects import stem_in

COMMAND_LINE = "command line"
"""Address in the audit log."""


@dataclass(frozen=True)
class SavedReject:
    """A FAIL that was saved.

    Attributes:
        stem: name of its files.
        picture: the frame as captured, PNG.
        result: `edgead.runtime.result.ResultFields`.
        mark: the last one; None if nobody has marked it.
    """

    stem: str
    picture: Path
    result: dict[str, Any]
    mark: Mark | None = None


def saved_rejects(folder: Path, marks: Marks) -> list[SavedReject]:
    """Return the FAIL results with a picture that a ``rejects:`` sink has saved in a folder, oldest first."""
    known = marks.all()
    found = []
    for path in sorted(folder.glob("*.json")):
        stem = stem_in(path.name)
        if stem is not None and (reject := _read(path.with_name(stem))) is not None:
            found.append(SavedReject(stem, reject.picture, reject.result, known.get(reject.result["id"])))
    return found


def mark_files(
    files: Sequence[Path], mark: str, *, by: str = "", why: str = "", marks: Path | None = None
) -> list[SavedReject]:
    """Mark saved rejects; nothing is marked if one of the files is none. Each mark is a line in the audit log first.

    Args:
        files: of rejects: the picture, the overlay or the JSON; or a picture among the marks, to mark it again.
        mark: see `edgead.marks.FOLDERS`.
        by, why: kept with the mark.
        marks: folder of the marks; ``marks`` beside the reject where None.

    Returns:
        The rejects as they were before.

    Raises:
        ConfigError: a file that belongs to no reject, or an unknown mark.
        OSError: mark or audit log cannot be written; what is left is not marked.
    """
    check_mark(mark)
    marks_in = functools.cache(Marks)  # read once, not once for each file
    found = [_reject_of(file, marks, marks_in) for file in files]
    for reject, folder in found:
        place = marks_in(folder)
        Audit(folder).write(
            by, COMMAND_LINE, "mark", id=reject.result["id"], mark=mark, **({"why": why} if why else {})
        )
        place.set(reject.stem, reject.result, mark, by, reject.picture.read_bytes, why)
    return [reject for reject, _ in found]


def _reject_of(file: Path, marks: Path | None, marks_in: Callable[[Path], Marks]) -> tuple[SavedReject, Path]:
    """Return the reject of a file, and the folder of its marks."""
    stem = stem_in(file.name)
    if stem is not None:
        for above in file.resolve().parents[:3]:  # a picture among the marks
            again = [each for each in marks_in(above).all().values() if each.picture.endswith(f"/{stem}.png")]
            if again and (above / again[0].picture).is_file():
                kept = again[0]
                return SavedReject(stem, above / kept.picture, dict(kept.result), kept), marks or above
        if (reject := _read(file.with_name(stem))) is not None:
            return reject, marks or file.parent / "marks"
    if not file.exists():
        raise ConfigError(f"{file} does not exist.")
    raise ConfigError(f"{file} belongs to no FAIL with a picture that a sink rejects:DIR has saved.")


def _read(stem: Path) -> SavedReject | None:
    """Read a saved FAIL; None if it is none, or damaged."""
    picture = stem.with_name(f"{stem.name}.png")
    try:
        result = json.loads(stem.with_name(f"{stem.name}.json").read_bytes())
        if result["verdict"] != Verdict.FAIL.value or not isinstance(result["id"], str) or not picture.is_file():
            return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return SavedReject(stem.name, picture, result)
