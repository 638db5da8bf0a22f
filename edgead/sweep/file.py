"""The sweep file: TOML, described in docs/sweep.md."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from edgead import schema
from edgead.errors import ConfigError
from edgead.geometry import AUTO
from edgead.home import at_home
from edgead.schema import FilePath, SchemaError, Share, Within
from edgead.settings import WORKERS_LIMIT
from edgead.toml import read_toml

TABLES = "methods"
"""Name of the array of tables in the file."""
PATHS = ("data", "textures", "weights", "align")
"""Fields with paths; relative paths start at the file's folder, like those in `donors` and `settings`."""
GEOMETRY = ("crop", "fit", "tiles", "overlap", "align", "max_shift", "max_rotation")
"""Fields of the geometry, written as the options of `edgead train`."""


@dataclass(frozen=True)
class Entry:
    """One ``[[methods]]`` table, with the fields at the top of the file as defaults.

    Attributes:
        method, preset, settings: as for `edgead.train.train`.
        data: folder of one category, or of several.
        categories: to train on; all if empty.
        seeds, precisions: one training per seed, with one bundle per precision.
        textures, weights, donors, holdout, bit_depth, mixed_precision, budget: as for `edgead.train.train`.
        crop, fit, tiles, overlap, align, max_shift, max_rotation: as for `edgead.train.train`.
        false_reject: as for `edgead.export.export`.
        engine, rounds, pixel_size: as for `edgead.benchmark.benchmark`.
        device, workers: as for `edgead.train.train`; not part of the key.
        cpus, gpus: resources of one cell. None: all CPUs of the smallest machine, and one GPU if there is any.
        label: name in the results; by default method, preset and settings.
        code: version of the program in the keys; by default the hash of its sources.
    """

    method: str
    preset: str
    data: FilePath
    settings: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    seeds: tuple[Annotated[int, Within(0)], ...] = (0,)
    precisions: tuple[str, ...] = ("fp32",)
    textures: FilePath | None = None
    weights: FilePath | None = None
    donors: tuple[FilePath, ...] = ()
    holdout: Share = 0.2
    bit_depth: Annotated[int, Within(9, 16)] = 16
    mixed_precision: str = "auto"
    budget: str = ""
    crop: str | None = None
    fit: str = "stretch"
    tiles: str | None = None
    overlap: float | None = None
    align: str | None = None
    max_shift: float | None = None
    max_rotation: float | None = None
    false_reject: Share = 0.01
    engine: str = "auto"
    rounds: Annotated[int, Within(1, 100_000)] = 100
    pixel_size: Annotated[int, Within(32, 4096)] = 256
    device: str = "auto"
    workers: Annotated[int, Within(0, WORKERS_LIMIT)] | None = None
    cpus: Annotated[int, Within(1)] | None = None
    gpus: Annotated[float, Within(0)] | None = None
    label: str = ""
    code: str = ""

    @property
    def geometry(self) -> dict[str, Any]:
        """The fields of `GEOMETRY` that are given."""
        return {
            field.name: value
            for field in dataclasses.fields(self)
            if field.name in GEOMETRY and (value := getattr(self, field.name)) != field.default
        }


def read_sweep_file(path: Path) -> list[Entry]:
    """Read a sweep file.

    Raises:
        ConfigError: it is missing, not TOML, or has a field that is unknown, missing or wrong.
    """
    found, _ = read_toml(path, "sweep file", "ray")
    tables = found.pop(TABLES, None)
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{path} has no [[{TABLES}]] table. docs/sweep.md shows an example.")
    return [
        _read_entry(path, number, {**_for_method(found, table.get("method")), **table})
        for number, table in enumerate(tables, start=1)
    ]


def _for_method(fields: Mapping[str, object], name: object) -> dict[str, object]:
    """Return the fields from the top of the file without the files that this method does not take."""
    from edgead.train.method import Method
    from edgead.train.methods import METHODS, get_method  # imports torch

    if not isinstance(name, str) or name not in METHODS:
        return dict(fields)  # the table is refused later
    method = get_method(name)
    taken = {
        "textures": method.takes_textures,
        "donors": method.takes_donors,
        "weights": method.load_pretrained is not Method.load_pretrained,
    }
    return {field: value for field, value in fields.items() if taken.get(field, True)}


def _read_entry(path: Path, number: int, table: Mapping[str, object]) -> Entry:
    known = [field.name for field in dataclasses.fields(Entry)]
    if unknown := [name for name in table if name not in known]:
        raise ConfigError(f"{path}: unknown field '{unknown[0]}'. Available: {', '.join(known)}.")
    try:
        entry = schema.read(Entry, dict(table))
    except SchemaError as error:
        raise ConfigError(f"{path}, [[{TABLES}]] number {number}: {error}.") from error
    for name in ("seeds", "precisions", "categories"):
        if table.get(name) == []:
            raise ConfigError(f"{path}, [[{TABLES}]] number {number}: {name} is an empty list.")
    if len({*entry.precisions}) < len(entry.precisions):
        raise ConfigError(f"{path}, [[{TABLES}]] number {number}: precisions names one twice.")
    folder = path.resolve().parent
    given = {name: value for name in PATHS if (value := getattr(entry, name)) is not None}
    if entry.align == AUTO:
        del given["align"]
    paths = {name: str(folder / at_home(value)) for name, value in given.items()}
    donors = tuple(str(folder / at_home(donor)) for donor in entry.donors)
    settings = replace_paths(entry.settings, lambda path: str(folder / at_home(path)))
    return dataclasses.replace(entry, donors=donors, settings=settings, **paths)  # type: ignore[arg-type]


def replace_paths(settings: Iterable[str], replace: Callable[[str], str]) -> tuple[str, ...]:
    """Return ``NAME=VALUE`` settings with other paths: of a folder of foreground masks, and of a student's teacher."""
    from edgead.train.foreground import is_masks_folder  # imports torch

    replaced = []
    for setting in settings:
        name, value = (part.strip() for part in setting.partition("=")[::2])
        is_path = name == "teacher" or (name == "foreground" and is_masks_folder(value))
        replaced.append(f"{name}={replace(value)}" if value and is_path else setting)
    return tuple(replaced)
