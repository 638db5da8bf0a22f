"""Score tables of images with a bundle; the result is a table of verdicts."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgead.errors import ConfigError, DataError, require
from edgead.formats.decoding import decode_image
from edgead.runtime.handover import trained_limits
from edgead.runtime.inspector import Inspector, load
from edgead.runtime.result import Result
from edgead.runtime.sources.files import capture_file
from edgead.runtime.sources.source import Captured
from edgead.settings import check_batch
from edgead.signatures.trust import trusted_places
from edgead.text import valid

if TYPE_CHECKING:
    import pandas

COLUMNS = {
    "path": "string",
    "verdict": "string",
    "reason": "string",
    "cause": "string",
    "untrained": "string",
    "score": "double",
    "threshold": "double",
    "boxes": "string",
    "engine": "string",
    "bundle": "string",
    "bundle_digest": "string",
}
"""Columns of the result with their types, in order."""
ScoredRow = dict[str, object]
"""Column ↦ value."""
SPARK_SCHEMA = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
"""The schema for Spark's ``mapInPandas``."""


class Scorer:
    """Scores tables of images, row by row.

    The bundle is loaded with the first table, so that a scorer can be sent to other processes.

    Args:
        bundle: folder of the bundle, on the machine that scores.
        engine, threshold, roi, ignore, min_area: see `edgead.load`.
        boxes: fill the column ``boxes``.
        batch: most images per inference.
        trust: see `edgead.load`; the keys lie under these paths on every machine that scores.

    Raises:
        ConfigError: a batch that is not a whole number from 1 to 1,024.
    """

    def __init__(
        self,
        bundle: str | Path,
        *,
        engine: str = "auto",
        threshold: float | str | None = None,
        roi: Sequence[str] = (),
        ignore: Sequence[str] = (),
        min_area: int = 0,
        boxes: bool = False,
        batch: int = 1,
        trust: Sequence[str | Path] | None = None,
    ) -> None:
        check_batch(batch)
        self.bundle, self.threshold, self.boxes, self.batch = bundle, threshold, boxes, batch
        self._load = partial(
            load,
            bundle,
            engine=engine,
            threshold=threshold,
            roi=tuple(roi),
            ignore=tuple(ignore),
            min_area=min_area,
            batch=batch,
            trust=trusted_places() if trust is None else tuple(trust),
        )
        self._inspector: Inspector | None = None

    def __call__(self, table: pandas.DataFrame) -> pandas.DataFrame:
        """Score the images of a table.

        Args:
            table: with the column ``path`` (files) or ``bytes`` (contents of files), or both; a path next to bytes is
                copied to the result. Other columns are ignored.

        Returns:
            `COLUMNS`, one row per row of the table, with the same order and index. An unreadable image is UNKNOWN with
            the reason. A missing ``score`` is NaN. ``cause`` is None where there is none; ``untrained`` is None where
            the image is like the training images. ``boxes`` is a JSON list as in docs/results.md, or None.

        Raises:
            EdgeadError: the table has neither column, or the bundle cannot be loaded.
        """
        pandas = require("pandas", "ray")
        if "path" not in table and "bytes" not in table:
            raise ConfigError(f"The table has no column 'path' or 'bytes'. Available: {', '.join(map(str, table))}.")
        count = len(table)
        paths = table["path"] if "path" in table else itertools.repeat("", count)
        contents = table["bytes"] if "bytes" in table else itertools.repeat(None, count)
        images = [
            ("" if _is_missing(path) else str(path), None if _is_missing(content) else content)
            for path, content in zip(paths, contents)
        ]
        rows: list[ScoredRow] = []
        for start in range(0, count, self.batch):
            rows += self._decide(images[start : start + self.batch])
        answer = pandas.DataFrame(rows, columns=list(COLUMNS), index=table.index, dtype=object)
        return answer.astype({name: "float64" for name, kind in COLUMNS.items() if kind == "double"})

    def map_in_pandas(self, tables: Iterator[pandas.DataFrame]) -> Iterator[pandas.DataFrame]:
        """Score tables one by one: the function for Spark's ``mapInPandas``."""
        for table in tables:
            yield self(table)

    def close(self) -> None:
        """Release the engine; the next table loads the bundle again."""
        if self._inspector is not None:
            self._inspector.close()
        self._inspector = None

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_inspector": None}

    def _decide(self, images: list[tuple[str, object]]) -> Iterator[ScoredRow]:
        if self._inspector is None:
            self._inspector = self._load()
        inspector = self._inspector
        captured = [_capture(path, content, number, inspector) for number, (path, content) in enumerate(images)]
        results = inspector.try_to_infer([inspector.try_to_prepare(each) for each in captured])
        limits = trained_limits(inspector.bundle.manifest)
        for one, result in zip(captured, results):
            untrained = ""
            if one.image is not None and result.anomaly_map is not None:
                _, untrained = limits.why_untrained((one.image.shape[0], one.image.shape[1]))
            yield self._row(result, untrained)

    def _row(self, result: Result, untrained: str) -> ScoredRow:
        found = {**result.to_dict(), "untrained": untrained or None}
        score = math.nan if found["score"] is None else found["score"]
        boxes = json.dumps(result.boxes) if self.boxes else None
        return {**found, "path": valid(result.path), "score": score, "threshold": result.threshold, "boxes": boxes}


def _is_missing(value: object) -> bool:
    """Tell whether a cell is empty: None, NaN, or pandas' NA."""
    return value is None or type(value).__name__ == "NAType" or (isinstance(value, float) and math.isnan(value))


def _capture(path: str, content: object, number: int, inspector: Inspector) -> Captured:
    """Read a file, or decode its content; on failure the captured frame holds the reason."""
    if content is None and path:
        return capture_file(Path(path), "archive", number, inspector.pixels)
    try:
        if content is None:
            raise DataError("the row has neither path nor bytes")
        try:
            data = bytes(memoryview(content))  # type: ignore[arg-type]  # bytes() of a number are so many zeros
        except TypeError:
            raise DataError(f"the row's bytes are of type {type(content).__name__}") from None
        if inspector.depth_range is not None:
            raise DataError("a bundle with depth reads files, not bytes")
        return Captured(decode_image(data), "", "archive", number, time.monotonic(), path)
    except DataError as error:
        reason = f"{path}: {error}" if path else str(error)
        return Captured(None, reason, "archive", number, time.monotonic(), path, "unreadable")
