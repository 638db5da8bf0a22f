"""`edgead predict --ray`: an archive of image files to a Parquet file, on all cores or a cluster."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgead.archive.scorer import COLUMNS, Scorer
from edgead.bundle import read_bundle
from edgead.cluster import LOCAL, connected, resources
from edgead.console import Console
from edgead.errors import DeviceError, require
from edgead.files import atomic_file
from edgead.runtime.predict import Collected, collect_images

BLOCK = 64
"""Images in a table that a process decides on: what is done again when its machine fails."""


@dataclass(frozen=True)
class Scored:
    """What was decided: images of each verdict, and what was not an image, in words."""

    verdicts: dict[str, int]
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
    cpus: int | None = None,
    gpus: float | None = None,
    console: Console | None = None,
) -> Scored:
    """Decide on every image below some paths and write a row for each to a Parquet file.

    The rows are in the order of `edgead predict`. Each image, and each folder that cannot be read, has one: what cannot
    be read is UNKNOWN with the reason.

    Args:
        scorer: decides. On a cluster, all machines find its bundle under the same path.
        paths: files and folders; on a cluster, the same for all machines.
        out: the Parquet file; it appears when it is complete.
        ray: ``"local"``, or a cluster's ``HOST:PORT``.
        cpus, gpus: of each process that decides; see `edgead.cluster.resources`.
        console: shows progress.

    Raises:
        SourceError: a path does not exist, or there is no image.
        DeviceError: the rows are not those of the images.
    """
    console = console or Console()
    arrow, parquet = require("pyarrow", "ray"), require("pyarrow.parquet", "ray")
    read_bundle(scorer.bundle)  # a damaged one is reported before Ray starts
    collected = collect_images([Path(path).resolve() for path in paths])
    kinds = {"string": arrow.string(), "double": arrow.float64()}
    schema = arrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    verdicts, total = Counter[str](), len(collected)
    with (
        atomic_file(out) as stream,
        parquet.ParquetWriter(stream, schema) as writer,
        connected(ray) as module,
        console.bar("inspecting", total) as step,
    ):
        asked = resources(module, cpus, gpus)
        for rows in _rows(module, scorer, collected, asked):
            verdicts.update(row["verdict"] for row in rows)
            writer.write_table(arrow.Table.from_pylist(rows, schema=schema))
            for _ in rows:
                step("")
    return Scored(dict(verdicts), collected.left_out)


def _rows(ray: Any, scorer: Scorer, collected: Collected, asked: dict[str, float]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of the images, in their order.

    Raises:
        DeviceError: a row is missing, or there twice.
    """
    pandas = require("pandas", "ray")
    paths = [path for path, _ in collected.images]
    readable = [number for number, path in enumerate(paths) if path not in collected.unreadable]
    waiting: dict[int, dict[str, Any]] = {
        number: _unreadable(path, collected.unreadable[path])
        for number, path in enumerate(paths)
        if path in collected.unreadable
    }
    given, next_number = set(waiting), 0
    for table in _scored(ray, pandas, scorer, [(number, str(paths[number])) for number in readable], asked):
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
    ray: Any, pandas: Any, scorer: Scorer, images: list[tuple[int, str]], asked: dict[str, float]
) -> Iterator[Any]:
    """Have processes of Ray Data decide; yield tables with the column ``number`` beside those of the scorer."""
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
    """What a process of Ray Data holds: it keeps the numbers of the images."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def __call__(self, table: Any) -> Any:
        return self._scorer(table).assign(number=table["number"])


def _unreadable(path: Path, why: str) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    return {
        **row,
        "path": str(path),
        "verdict": "UNKNOWN",
        "reason": f"cannot read {path}: {why}",
        "cause": "unreadable",
    }
