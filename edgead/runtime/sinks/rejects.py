"""Saves pictures of rejected frames."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from edgead.decision import Verdict
from edgead.errors import ConfigError
from edgead.files import atomic_file, intended_name
from edgead.folders import OVERLAY
from edgead.images import encode_png
from edgead.redaction import redact
from edgead.runtime.result import Result
from edgead.runtime.sinks.lines import append_configuration
from edgead.runtime.sinks.sink import BaseSink, LeftOut
from edgead.runtime.sources.uri import split_options

LOOK_SHARE = 0.05
"""Share of the time that counting the files of a full folder may take."""
_OURS = re.compile(r"(\d{8}T\d{6,}-.*?)(?:\.overlay|\.depth)?\.(?:json|png)")


@dataclass(frozen=True)
class RejectOptions:
    """Options of ``rejects:``, see `RejectFolder`. `max_mb` is in MB (10⁶ bytes)."""

    max_mb: float = 1000.0
    per_minute: float = 60.0
    verdicts: tuple[str, ...] = ("FAIL", "UNKNOWN")


def open_rejects(uri: str) -> RejectFolder:
    """``rejects:DIR?max_mb=1000&per_minute=60&verdicts=FAIL,UNKNOWN``.

    Raises:
        ConfigError: an unknown option or verdict, or a limit of 0.
    """
    name, options = split_options(uri, RejectOptions)
    verdicts = [verdict.upper() for verdict in options.verdicts]
    if not verdicts or not set(verdicts) <= {verdict.value for verdict in Verdict}:
        raise ConfigError(f"{redact(uri)}: verdicts must be PASS, FAIL or UNKNOWN, not {','.join(options.verdicts)}.")
    if not options.max_mb or not options.per_minute:
        raise ConfigError(f"{redact(uri)}: max_mb and per_minute must be above 0.")
    most_bytes = round(options.max_mb * 1e6)
    return RejectFolder(Path(name), most_bytes, options.per_minute, [Verdict(verdict) for verdict in verdicts])


class RejectFolder(BaseSink):
    """Saves frame, overlay and result of each reject: ``TIME-SOURCE-FRAME{.png,.overlay.png,.json}``.

    FRAME is ``report`` for a report about a source, and ``none`` for a part without a frame. Depth codes go into
    ``.depth.png``. SOURCE is the end of the source's name in ASCII letters and digits, followed by a hash of the
    result's id, so names are unique. The result of a part has the end of its id behind FRAME, ``-PART``. A reject is
    saved completely or not at all.

    Args:
        folder: the folder.
        max_bytes: of all files together; the oldest rejects are deleted first. A larger reject is dropped, cause
            ``max_mb``.
        per_minute: maximum rejects in any 60 s; further ones are dropped, cause ``per_minute``.
        verdicts: of rejects.

    Attributes:
        deleted: whole rejects that were deleted, to make room or because the same result came again. What a kill left
            of a reject does not count.
    """

    wants_frames = True

    def __init__(
        self,
        folder: Path,
        max_bytes: int = 1_000_000_000,
        per_minute: float = 60,
        verdicts: list[Verdict] | None = None,
    ) -> None:
        super().__init__(f"rejects:{folder}")
        self.folder, self.max_bytes, self.per_minute = folder, max_bytes, per_minute
        self.verdicts = verdicts or [Verdict.FAIL, Verdict.UNKNOWN]
        self.deleted = 0
        self._written_at: deque[float] = deque()
        self._next_look = 0.0
        self._rejects: dict[str, dict[Path, int]] = {}
        self._look()

    def _look(self) -> None:
        """Count what is in the folder. Somebody may have moved rejects away.

        Names begin with the time and so sort by age. Those that are known keep their order: the clock may have been set
        since. Other files are never touched. What a kill left of a file that was being written counts with its reject.
        """
        began = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        found: dict[str, dict[Path, int]] = {}
        for path in sorted(self.folder.iterdir(), key=lambda path: intended_name(path.name)):
            if (stem := stem_in(intended_name(path.name))) and (size := _size_of(path)) is not None:
                found.setdefault(stem, {})[path] = size
        known = {stem: found.pop(stem) for stem in self._rejects if stem in found}
        self._rejects = {**found, **known}
        self._bytes = sum(sum(sizes.values()) for sizes in self._rejects.values())
        now = time.monotonic()
        self._next_look = now + (now - began) / LOOK_SHARE

    def configure(self, configuration: Mapping[str, Any]) -> None:
        """Append it to ``configurations.jsonl`` in the folder."""
        append_configuration(self.folder / "configurations.jsonl", configuration)

    def wants(self, result: Result) -> bool:
        return result.verdict in self.verdicts

    def write(self, result: Result) -> None:
        if not self.wants(result):
            return
        now = time.monotonic()
        while self._written_at and now - self._written_at[0] >= 60:
            self._written_at.popleft()
        if len(self._written_at) >= self.per_minute:
            raise LeftOut("per_minute")
        self._save(stem_of(result), _files_of(result))
        self._written_at.append(now)

    def details(self) -> dict[str, int]:
        """Return the number of rejects that were deleted to make room."""
        return {"deleted": self.deleted}

    def _save(self, stem: str, files: dict[str, bytes]) -> None:
        size = sum(map(len, files.values()))
        if size > self.max_bytes:
            raise LeftOut("max_mb")
        self._forget(stem)  # the same result, written again
        if self._bytes + size > self.max_bytes and time.monotonic() >= self._next_look:
            self._look()
        if self._bytes + size > self.max_bytes:
            self._make_room(size)
        saved: dict[Path, int] = {}
        try:
            for ending, data in files.items():
                path = self.folder / f"{stem}{ending}"
                with atomic_file(path) as stream:
                    stream.write(data)
                saved[path] = len(data)
        except BaseException:
            for path in saved:
                path.unlink(missing_ok=True)
            raise
        self._rejects[stem] = saved
        self._bytes += size

    def _make_room(self, size: int) -> None:
        """Delete the oldest rejects. One that cannot be, as of a share where somebody looks at it, is left for later.

        Raises:
            OSError: there are none left that can be deleted.
        """
        stuck: OSError | None = None
        for stem in list(self._rejects):
            try:
                self._forget(stem)
            except OSError as error:
                stuck = error
            if self._bytes + size <= self.max_bytes:
                return
        if stuck:
            raise stuck

    def _forget(self, stem: str) -> None:
        files = self._rejects.get(stem, {})
        for path in sorted(files, key=lambda path: path.suffix):  # .json first: where it is, the pictures are, too
            there = os.path.lexists(path)
            path.unlink(missing_ok=True)
            self._bytes -= files.pop(path)
            self.deleted += there and path.suffix == ".json"
        self._rejects.pop(stem, None)


def stem_of(result: Result) -> str:
    """Return the name of a result's files, without their suffixes."""
    moment = re.sub(r"[-:.]|\+.*", "", result.captured_at)
    if not re.fullmatch(r"\d{8}T\d{6,}", moment):
        moment = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S%f")[:-3]
    without = "none" if result.part_id else "report"
    frame = without if result.frame_id is None else f"{result.frame_id:08d}"
    part = f"-{_plain(result.part_id)}" if result.part_id else ""
    identity = result.id or f"{result.source_id} {result.captured_at} {result.t_capture}"
    code = hashlib.sha256(identity.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return f"{moment}-{_plain(result.source_id)}_{code}-{frame}{part}"


def stem_in(name: str) -> str | None:
    """Return the stem of a file that belongs to a reject; None for any other file."""
    found = _OURS.fullmatch(name)
    return found[1] if found else None


def _size_of(path: Path) -> int | None:
    """Return the bytes of a file; None for what we have not made: a folder, a link, what is deleted meanwhile."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _plain(name: str) -> str:
    """Return the end of a name in characters that every file system takes."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[-40:]


def _files_of(result: Result) -> dict[str, bytes]:
    """Return the files of a reject by suffix. The JSON is last: if it exists, the others do."""
    files = {}
    if result.frame is not None:
        files[".png"] = encode_png(np.ascontiguousarray(result.frame[:, :, :3]))
        if result.frame.shape[2] == 4:
            files[".depth.png"] = encode_png(result.frame[:, :, 3])
        if result.anomaly_map is not None:
            files[OVERLAY] = encode_png(result.overlay())
    return {**files, ".json": json.dumps(result.to_dict(), indent=2).encode()}
