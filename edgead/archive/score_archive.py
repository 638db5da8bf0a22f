"""`edgead predict --ray`: score an archive of image files on all cores or a cluster, into a Parquet file."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgead.archive.scorer import COLUMNS, ScoredRow, Scorer
from edgead.bundle import read_bundle
from edgead.cluster import LOCAL, connected, resources
from edgead.console import Console
from edgead.errors import DeviceError, require
from edgead.files import atomic_file
from edgead.runtime.predict import Collected, collect_images
from edgead.runtime.rules import describe_threshold
from edgead.text import valid

BLOCK = 64
"""Images per table; a process scores one table at a time, and repeats it after a failure."""


@dataclass(frozen=True)
class Scored:
    """Number of images per verdict, of those that are unlike the training images, and a note on other files."""

    verdicts: dict[str, int]
    untrained: int
    left_out: str

    @property
    def images(self) -> int:
        return sum(self.verdicts.values())


def score_archive(
    scorer: Scorer,
    paths: Sequence[Path],
    out: Path,
    *,
    ray: str = LOCAL,
    console: Console | None = None,
) -> Scored:
    """Score every image in some files and folders and write one row per image to a Parquet file.

    The rows are in the order of `edgead predict`. Unreadable images and folders have a row with UNKNOWN and the reason.

    Args:
        scorer: holds the bundle. All machines of a cluster must find it under the same path.
        paths: files and folders, the same on all machines.
        out: the Parquet file, which appears when it is complete.
        ray: ``"local"``, or a cluster's ``HOST:PORT``.
        console: shows progress.

    Raises:
        SourceError: a path does not exist, or there is no image.
        DeviceError: Ray returned missing or repeated rows, or its processes decided by different bundles.
    """
    console = console or Console()
    arrow, parquet = require("pyarrow", "ray"), require("pyarrow.parquet", "ray")
    manifest = read_bundle(scorer.bundle).manifest  # reports a damaged bundle before Ray starts
    if meaning := describe_threshold(manifest, scorer.threshold):
        console.say(f"{manifest.name}: {meaning}")
    collected = collect_images([Path(path).resolve() for path in paths])
    kinds = {"string": arrow.string(), "double": arrow.float64()}
    schema = arrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    verdicts, untrained, total = Counter[str](), 0, len(collected)
    with (
        atomic_file(out) as stream,
        parquet.ParquetWriter(stream, schema) as writer,
        connected(ray) as module,
        console.bar("inspecting", total) as step,
    ):
        asked = resources(module, None, None)
        for rows in _rows(module, scorer, collected, asked):
            _refuse_another_bundle(rows, scorer, manifest.digest)
            verdicts.update(str(row["verdict"]) for row in rows)
            untrained += sum(row["untrained"] is not None for row in rows)
            writer.write_table(arrow.Table.from_pylist(rows, schema=schema))
            for _ in rows:
                step("")
    return Scored(dict(verdicts), untrained, collected.left_out)


def _refuse_another_bundle(rows: Sequence[ScoredRow], scorer: Scorer, digest: str) -> None:
    """Each process loads the bundle when it begins, on a machine that may have another one under this path."""
    if other := next((row for row in rows if row["bundle_digest"] not in (None, digest)), None):
        raise DeviceError(
            f"{other['path']} was decided by another bundle: {scorer.bundle} was replaced meanwhile, or is not the "
            "same on all machines. Nothing is written."
        )


def _rows(ray: Any, scorer: Scorer, collected: Collected, asked: dict[str, float]) -> Iterator[list[ScoredRow]]:
    """Yield the rows in the order of the images.

    Raises:
        DeviceError: a row is missing or repeated.
    """
    pandas = require("pandas", "ray")
    paths = [path for path, _ in collected.images]
    readable = [number for number, path in enumerate(paths) if path not in collected.unreadable]
    waiting: dict[int, ScoredRow] = {
        number: _unreadable(path, collected.unreadable[path])
        for number, path in enumerate(paths)
        if path in collected.unreadable
    }
    given, next_number = set(waiting), 0
    for table in _scored(ray, pandas, scorer, [(number, os.fsencode(paths[number])) for number in readable], asked):
        for number, row in zip(table["number"], table.drop(columns="number").to_dict("records")):
            if number in given:
                raise DeviceError(f"Ray returned two rows for {paths[number]}. Nothing is written.")
            given.add(number)
            waiting[number] = {name: None if value != value else value for name, value in row.items()}
        ready = []
        while next_number in waiting:
            ready.append(waiting.pop(next_number))
            next_number += 1
        yield ready
    rest = [waiting.pop(number) for number in sorted(waiting)]
    if len(given) != len(paths):
        raise DeviceError(f"Ray returned {len(given)} rows for {len(paths)} images. Nothing is written.")
    yield rest


def _scored(
    ray: Any, pandas: Any, scorer: Scorer, images: list[tuple[int, bytes]], asked: dict[str, float]
) -> Iterator[Any]:
    """Score in processes of Ray Data; yield the scorer's tables with a column ``number``.

    Paths travel as bytes: the name of a file need not be text that a table can hold.
    """
    if not images:
        return
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    blocks = math.ceil(len(images) / BLOCK)
    tables = [pandas.DataFrame(images[start::blocks], columns=["number", "path"]) for start in range(blocks)]

    places = (node["Resources"].get("CPU", 0) // asked["num_cpus"] for node in ray.nodes() if node["Alive"])
    most = max(1, min(blocks, int(sum(places))))
    found = ray.data.from_pandas(tables).map_batches(
        _Decider,
        fn_constructor_args=(scorer,),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=most),
        batch_format="pandas",
        batch_size=None,
        **asked,
    )
    yield from found.iter_batches(batch_format="pandas", batch_size=None)


class _Decider:
    """Runs a scorer in a process of Ray Data and keeps the numbers of the images."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def __call__(self, table: Any) -> Any:
        names = require("pandas", "ray").Series([*map(os.fsdecode, table["path"])], table.index, dtype=object)
        return self._scorer(table.assign(path=names)).assign(number=table["number"])


def _unreadable(path: Path, why: str) -> ScoredRow:
    row: ScoredRow = dict.fromkeys(COLUMNS)
    return {
        **row,
        "path": valid(str(path)),
        "verdict": "UNKNOWN",
        "reason": valid(f"cannot read {path}: {why}"),
        "cause": "unreadable",
    }
