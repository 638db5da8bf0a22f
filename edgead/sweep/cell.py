"""A cell: one training with its bundles and their figures."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from edgead import schema
from edgead.datasets import Category, open_categories, open_category
from edgead.errors import ConfigError
from edgead.geometry import AUTO
from edgead.sweep import fingerprint
from edgead.sweep.file import Entry, replace_paths
from edgead.sweep.fingerprint import make_key
from edgead.text import file_name


@dataclass(frozen=True)
class Training:
    """Everything that determines the result of a training, with hashes of contents instead of paths.

    A field with its default value is not part of the key, so that later fields do not change existing keys.

    Attributes:
        method, preset, category, seed, holdout, bit_depth, mixed_precision, budget: see `Entry`.
        settings: as there, but with the hash of the files for a path.
        data: hash of the category.
        textures, weights, donors: hashes of files.
        geometry: ``NAME=VALUE`` of its fields that are given; the hash of the file for ``align``.
        code: the label of the sweep file, or the hash of the sources.
    """

    method: str
    preset: str
    category: str
    seed: int
    data: str
    code: str
    settings: tuple[str, ...] = ()
    textures: str = ""
    weights: str = ""
    donors: tuple[str, ...] = ()
    holdout: float = 0.2
    bit_depth: int = 16
    mixed_precision: str = "no"
    budget: str = ""
    geometry: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The cell's key, which is also the name of its folder."""
        return make_key(schema.write({field: value for field, value in _changed(self).items()}))


@dataclass(frozen=True)
class Measuring:
    """Everything that determines a bundle and its figures, apart from training and precision; see `Entry`."""

    code: str
    false_reject: float = 0.01
    engine: str = "auto"
    rounds: int = 100
    pixel_size: int = 256

    @property
    def key(self) -> str:
        """Differs from the stored key if the figures are out of date."""
        return make_key(_changed(self))


@dataclass(frozen=True)
class Cell:
    """A training with its bundles.

    Attributes:
        training, measuring: everything that determines the results.
        precisions: one bundle each.
        entry: paths, device and resources.
        root: folder of the category.
    """

    training: Training
    measuring: Measuring
    precisions: tuple[str, ...]
    entry: Entry
    root: Path

    @property
    def key(self) -> str:
        """See `Training.key`."""
        return self.training.key

    @property
    def name(self) -> str:
        """The name of its bundles: method, preset, category and seed."""
        training = self.training
        return f"{training.method}-{training.preset}-{file_name(training.category)}-{training.seed}"

    @property
    def label(self) -> str:
        """The label of the sweep file, or method, preset and settings."""
        return self.entry.label or " ".join((self.training.method, self.training.preset, *self.entry.settings))

    @property
    def title(self) -> str:
        """The name for people: label, category and seed."""
        return f"{self.label}, {self.training.category}, seed {self.training.seed}"


def _changed(value: Training | Measuring) -> dict[str, object]:
    fields = dataclasses.fields(value)
    return {field.name: each for field in fields if (each := getattr(value, field.name)) != field.default}


def make_cells(entries: list[Entry]) -> list[Cell]:
    """Return the cells of a sweep file, in its order.

    Raises:
        ConfigError: two entries describe the same training, or different ones under one label.
        DataError: a data set is unreadable.
    """
    fingerprint.files_fingerprint.cache_clear()  # the data may have changed since the last sweep of this process
    cells: dict[str, Cell] = {}
    averaged: dict[tuple[str, str], Cell] = {}
    for entry in entries:
        for category in _categories(entry):
            for seed in entry.seeds:
                cell = _make_cell(entry, category, seed)
                if cell.key in cells:
                    raise ConfigError(f"Two [[methods]] tables or seeds describe the same training, {cell.name}.")
                cells[cell.key] = cell
                _refuse_mixed(cell, averaged.setdefault((cell.label, cell.training.category), cell))
    return list(cells.values())


def _refuse_mixed(cell: Cell, first: Cell) -> None:
    """Refuse cells of one label and category that differ in more than the seed: results would be averaged over them."""
    one, other = (dataclasses.replace(each.training, seed=0) for each in (first, cell))
    names = [
        field.name
        for pair in ((one, other), (first.measuring, cell.measuring))
        for field in dataclasses.fields(pair[0])
        if getattr(pair[0], field.name) != getattr(pair[1], field.name)
    ]
    if names:
        raise ConfigError(
            f"Two [[methods]] tables have the label '{cell.label}' for {cell.training.category} and differ in "
            f"{', '.join(names)}: their figures would be averaged as if they were seeds.\n"
            'Give each table a label of its own:  label = "NAME"'
        )


def _categories(entry: Entry) -> list[Category]:
    if entry.categories:
        return [open_category(entry.data, name) for name in entry.categories]
    return open_categories(entry.data)


def _make_cell(entry: Entry, category: Category, seed: int) -> Cell:
    def content(path: str | None) -> str:
        return fingerprint.files_fingerprint(Path(path)) if path else ""

    def written(name: str, value: str | float) -> str:
        if isinstance(value, str):
            return content(value) if name == "align" and value != AUTO else value
        return f"{value:g}"  # 180 and 180.0 are one angle

    training = Training(
        method=entry.method,
        preset=entry.preset,
        category=category.name,
        seed=seed,
        data=fingerprint.category_fingerprint(category),
        code=entry.code or fingerprint.code_fingerprint(fingerprint.NOT_IN_TRAINING),
        settings=replace_paths(entry.settings, content),
        textures=content(entry.textures),
        weights=content(entry.weights),
        donors=tuple(content(donor) for donor in entry.donors),
        holdout=entry.holdout,
        bit_depth=entry.bit_depth,
        mixed_precision=entry.mixed_precision,
        budget=entry.budget,
        geometry=tuple(f"{name}={written(name, value)}" for name, value in entry.geometry.items()),
    )
    measuring = Measuring(
        code=entry.code or fingerprint.code_fingerprint(fingerprint.NOT_IN_MEASURING),
        false_reject=entry.false_reject,
        engine=entry.engine,
        rounds=entry.rounds,
        pixel_size=entry.pixel_size,
    )
    return Cell(training, measuring, entry.precisions, entry, category.root.resolve())
