"""Marks of the page's rejects; `edgead.marks` keeps them."""

from __future__ import annotations

from pathlib import Path

from edgead.errors import ConfigError
from edgead.images import encode_png
from edgead.marks import Marks
from edgead.runtime.sinks.rejects import stem_of
from edgead.view.rejects import Reject


def mark_reject(marks: Marks, reject: Reject, mark: str, who: str, rejects: Path | None) -> None:
    """Keep a mark.

    Args:
        marks: that it goes to.
        reject: of the page.
        mark: see `edgead.marks.FOLDERS`.
        who: marks it.
        rejects: folder of a ``rejects:`` sink, which may have the full picture; or None.

    Raises:
        ConfigError: an unknown mark, or the full picture is no longer there.
        OSError: it cannot be written.
    """
    stem = stem_of(reject.result)

    def picture() -> bytes:
        if reject.is_full:
            return encode_png(reject.frame[:, :, :3].copy())
        try:
            return (rejects / f"{stem}.png").read_bytes() if rejects else _no_picture()
        except FileNotFoundError:
            return _no_picture()

    marks.set(stem, reject.result.to_dict(), mark, who, picture)


def _no_picture() -> bytes:
    raise ConfigError("The full picture is no longer in memory. A sink rejects:DIR keeps rejects on the disk.")
