"""Marks of rejects by people, kept as labelled images: see docs/live-page.md."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

from edgead.errors import ConfigError
from edgead.files import atomic_file
from edgead.images import encode_png
from edgead.runtime.sinks.lines import LineFile
from edgead.runtime.sinks.rejects import stem_of
from edgead.schema import parse_json
from edgead.view.rejects import Reject

FOLDERS = {"false reject": "good", "real defect": "bad", "unsure": "unsure"}
"""Mark ↦ folder of the picture. ``good`` and ``bad`` together are a data set for ``edgead benchmark --data``."""


class Marks:
    """Writes ``marks.jsonl`` and the pictures ``images/good``, ``images/bad`` and ``unsure``. Thread-safe.

    Args:
        folder: for both.
        rejects: folder of a ``rejects:`` sink, which may have the full picture; or None.
    """

    def __init__(self, folder: Path, rejects: Path | None) -> None:
        self.folder, self._rejects = folder, rejects
        self._lock = threading.Lock()
        self._marks: dict[str, str] = _read(folder / "marks.jsonl")

    def of(self, result_id: str) -> str:
        """Return the mark of a result; empty if there is none."""
        return self._marks.get(result_id, "")

    def set(self, reject: Reject, mark: str, who: str) -> None:
        """Keep a mark: the picture first, then the line, so that a line always has its picture.

        Raises:
            ConfigError: an unknown mark, or the full picture is no longer there.
            OSError: it cannot be written.
        """
        if mark not in FOLDERS:
            raise ConfigError(f"A mark must be one of {', '.join(FOLDERS)}.")
        with self._lock:
            self._write(reject, mark, who)

    def _write(self, reject: Reject, mark: str, who: str) -> None:
        result, stem = reject.result, stem_of(reject.result)
        path = self._place(mark, stem)
        self._save_picture(reject, path, stem)
        line = {
            "id": result.id,
            "mark": mark,
            "by": who,
            "at": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "picture": path.relative_to(self.folder).as_posix(),
            "result": result.to_dict(),
        }
        _append(self.folder / "marks.jsonl", line)
        before = self._marks.get(result.id, mark)
        self._marks[result.id] = mark
        if before != mark:
            self._place(before, stem).unlink(missing_ok=True)

    def _place(self, mark: str, stem: str) -> Path:
        folder = FOLDERS[mark]
        return (self.folder if folder == "unsure" else self.folder / "images") / folder / f"{stem}.png"

    def _save_picture(self, reject: Reject, path: Path, stem: str) -> None:
        saved = self._rejects / f"{stem}.png" if self._rejects else None
        if reject.is_full:
            with atomic_file(path) as stream:
                stream.write(encode_png(reject.frame[:, :, :3].copy()))
            return
        with contextlib.suppress(FileNotFoundError):
            if saved:
                with saved.open("rb") as source, atomic_file(path) as stream:
                    shutil.copyfileobj(source, stream)
                return
        raise ConfigError("The full picture is no longer in memory. A sink rejects:DIR keeps rejects on the disk.")


def _append(path: Path, line: Mapping[str, object]) -> None:
    file = LineFile(path)
    try:
        file.write(json.dumps(dict(line)).encode())
    finally:
        file.close()


def _read(path: Path) -> dict[str, str]:
    """Read the marks of earlier runs; the last one of a result counts."""
    marks: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                values = parse_json(line)
                if values["mark"] in FOLDERS:
                    marks[str(values["id"])] = values["mark"]
    return marks
