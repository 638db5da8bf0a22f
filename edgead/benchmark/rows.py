"""Rows of a report from what was measured: comparison with the best row, and averages over categories."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgead.benchmark.accuracy import Accuracy
from edgead.benchmark.figures import Comparison
from edgead.benchmark.report import Average, Latency, Metrics, Percentiles, Row
from edgead.benchmark.uncertainty import auroc_difference
from edgead.datasets import Category
from edgead.files import names_apart
from edgead.runtime.engine_table import ENGINES
from edgead.runtime.inspector import Inspector


@dataclass(frozen=True, eq=False)
class Candidate:
    """A bundle that runs on an engine, and its accuracy.

    Attributes:
        path: of the bundle.
        inspector: open.
        requested: the engine as it was asked for.
        category: that it is measured on.
        copies: labelled images that are copies of training images.
        accuracy: on them.
    """

    path: Path
    inspector: Inspector
    requested: str
    category: Category
    copies: int
    accuracy: Accuracy

    @property
    def engine(self) -> str:
        """The engine to ask for to get the same one again: of ``auto`` the one that it chose."""
        if self.requested.partition(":")[0] != "auto":
            return self.requested
        known = [name for name in ENGINES if self.inspector.engine.name.startswith(name)]
        return max(known, key=len, default=self.requested)

    @property
    def size(self) -> int:
        """Bytes of the bundle's files."""
        return sum(file.stat().st_size for file in self.path.iterdir() if file.is_file())


def make_row(candidate: Candidate, latency: Latency) -> Row:
    """Return the row of a candidate."""
    manifest, accuracy = candidate.inspector.bundle.manifest, candidate.accuracy
    return Row(
        bundle=manifest.name,
        method=manifest.method,
        preset=manifest.preset,
        config=manifest.config,
        category=candidate.category.name,
        engine=candidate.inspector.engine.name,
        precision=manifest.precision,
        size=manifest.size,
        protocol=manifest.training.protocol or "",
        metrics=accuracy.metrics,
        decisions=accuracy.decisions,
        images=accuracy.images,
        copies_of_training=candidate.copies,
        latency=latency,
        kinds=accuracy.kinds,
        bundle_bytes=candidate.size,
    )


def tell_apart(rows: Sequence[Row], paths: Sequence[Path]) -> list[Row]:
    """Return rows whose bundles have different names on each category: those of one name have their paths.

    Args:
        rows: of bundles, one for each engine.
        paths: of the same bundles.
    """
    found = list(rows)
    for category in {row.category for row in rows}:
        own = [index for index, row in enumerate(rows) if row.category == category]
        names = names_apart([(rows[index].bundle, paths[index]) for index in own])
        for index, name in zip(own, names):
            found[index] = replace(rows[index], bundle=name)
    return found


def compare(rows: Sequence[Row], accuracies: Sequence[Accuracy]) -> tuple[Row, ...]:
    """Compare each row with the row of the highest image AUROC among those on the same images.

    The best is chosen by the figures that are compared, so each pair of bundles counts; engines decide alike.
    """
    groups: dict[tuple[Path, ...], list[int]] = {}
    for index, accuracy in enumerate(accuracies):
        groups.setdefault(tuple(sample.path for sample in accuracy.samples), []).append(index)
    found = list(rows)
    for members in groups.values():
        best = max(members, key=lambda index: rows[index].metrics.image_auroc)
        bundles = len({rows[index].bundle for index in members})
        pairs = max(1, bundles * (bundles - 1) // 2)
        labels = [sample.anomalous for sample in accuracies[best].samples]
        for index in members:
            if index != best:
                scores, highest = accuracies[index].scores, accuracies[best].scores
                difference, interval = auroc_difference(labels, scores, highest, pairs)
                name = f"{rows[best].bundle} on {rows[best].engine}"
                same = interval[0] <= 0 <= interval[1]
                found[index] = replace(rows[index], comparison=Comparison(name, difference, interval, same))
    return tuple(found)


def average(rows: Sequence[Row]) -> tuple[Average, ...]:
    """Average bundles that differ only in their category, over different categories."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.method, row.preset, row.precision, row.engine, json.dumps(row.config)), []).append(row)
    return tuple(
        Average(
            bundle=f"{method} {preset} {precision}",
            category=f"mean of {len(members)}",
            engine=engine,
            protocol=next((member.protocol for member in members if member.protocol), ""),
            latency_ms=None
            if any(member.latency.unstable for member in members)
            else Percentiles(*_means(member.latency.latency_ms.values() for member in members)),
            metrics=Metrics(*_means(member.metrics.values() for member in members)),
        )
        for (method, preset, precision, engine, _), members in groups.items()
        if 1 < len(members) == len({member.category for member in members})
    )


def _means(rows: Iterable[Sequence[float | None]]) -> list[Any]:
    """Average each column over the rows; None if a row lacks the figure: means of fewer could not be compared."""
    return [None if None in column else float(np.mean(column)) for column in zip(*rows)]
