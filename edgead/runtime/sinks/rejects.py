"""Pictures of what did not pass."""

from __future__ import annotations

import json
import re
import time
from collections import deque
from pathlib import Path

import numpy as np

from edgead.decision import Verdict
from edgead.errors import ConfigError
from edgead.files import atomic_file
from edgead.images import draw_overlay, encode_png
from edgead.runtime.result import Result
from edgead.runtime.sources.uri import number, split_options

_DEFAULTS = {"max_mb": "1000", "per_minute": "60", "verdicts": "FAIL,UNKNOWN"}


def open_rejects(uri: str) -> RejectFolder:
    """``rejects:DIR?max_mb=1000&per_minute=60&verdicts=FAIL,UNKNOWN``."""
    _, options = split_options(uri, _DEFAULTS)
    verdicts = options["verdicts"].upper().split(",")
    if not set(verdicts) <= {verdict.value for verdict in Verdict}:
        raise ConfigError(f"{uri}: verdicts are PASS, FAIL and UNKNOWN; not {options['verdicts']}.")
    folder = Path(uri.partition(":")[2].partition("?")[0])
    largest = round(number(uri, options, "max_mb") * 1e6)
    return RejectFolder(folder, largest, number(uri, options, "per_minute"), [Verdict(name) for name in verdicts])


class RejectFolder:
    """For each reject the frame, the overlay and the result: ``TIME-SOURCE-FRAME{.png,.overlay.png,.json}``.

    Where frames have depth, its codes are in ``.depth.png``.

    Args:
        folder: where.
        max_bytes: of all files together; the oldest rejects are deleted first.
        per_minute: most rejects written in any 60 s; those above are left out and counted in `limited`.
        verdicts: what counts as a reject.
    """

    wants_frames = True

    def __init__(
        self,
        folder: Path,
        max_bytes: int = 1_000_000_000,
        per_minute: float = 60,
        verdicts: list[Verdict] | None = None,
    ) -> None:
        self.name = f"rejects:{folder}"
        self.folder, self.max_bytes, self.per_minute = folder, max_bytes, per_minute
        self.verdicts = verdicts or [Verdict.FAIL, Verdict.UNKNOWN]
        self.limited = 0
        self._written_at: deque[float] = deque()
        folder.mkdir(parents=True, exist_ok=True)
        # Names begin with the time, so that their order is the order of their age. Only files of this form are ours.
        found = sorted(path for path in folder.iterdir() if _OURS.fullmatch(path.name))
        self._files = deque((path, path.stat().st_size) for path in found)
        self._bytes = sum(size for _, size in self._files)

    def write(self, result: Result) -> None:
        if result.verdict not in self.verdicts:
            return
        now = time.monotonic()
        while self._written_at and now - self._written_at[0] >= 60:
            self._written_at.popleft()
        if len(self._written_at) >= self.per_minute:
            self.limited += 1
            return
        self._written_at.append(now)
        moment = re.sub(r"[-:]|\+.*", "", result.captured_at).replace(".", "")
        source = re.sub(r"[^A-Za-z0-9]+", "_", result.source_id).strip("_")[-40:]
        number = "" if result.frame_id is None else f"{result.frame_id:08d}"
        stem = f"{moment}-{source}-{number}"
        self._save(f"{stem}.json", json.dumps(result.to_dict(), indent=2).encode())
        if result.frame is None:
            return
        self._save(f"{stem}.png", encode_png(np.ascontiguousarray(result.frame[:, :, :3])))
        if result.frame.shape[2] == 4:
            self._save(f"{stem}.depth.png", encode_png(result.frame[:, :, 3]))
        if result.anomaly_map is not None:
            heat = 2 * result.mask_threshold
            picture = draw_overlay(result.frame, result.anomaly_map, result.mask, heat)
            self._save(f"{stem}.overlay.png", encode_png(picture))

    def _save(self, name: str, data: bytes) -> None:
        while self._files and self._bytes + len(data) > self.max_bytes:
            oldest, size = self._files.popleft()
            oldest.unlink(missing_ok=True)
            self._bytes -= size
        if len(data) > self.max_bytes:
            return
        with atomic_file(self.folder / name) as stream:
            stream.write(data)
        self._files.append((self.folder / name, len(data)))
        self._bytes += len(data)

    def close(self) -> None:
        """Nothing is kept open."""


_OURS = re.compile(r"\d{8}T\d{9}-.*\.(json|png)")
