"""What `edgead train` is asked for, and what it decides for every run of the command before the first one starts."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from edgead import schema
from edgead.console import Console
from edgead.datasets import Category
from edgead.errors import ConfigError, DataError
from edgead.geometry import STRETCH, Geometry, GeometryRequest
from edgead.images import PixelFormat
from edgead.schema import OneOf, Within
from edgead.train.budget import read_budget
from edgead.train.canvas import describe_shrink, describe_tiles, fix_geometry
from edgead.train.configuration import configure
from edgead.train.donors import find_donors
from edgead.train.estimate import choose_preset
from edgead.train.foreground import is_masks_folder
from edgead.train.method import Method
from edgead.train.method_config import MethodConfig
from edgead.train.run import Workers, choose_workers
from edgead.train.run_config import BitDepth, Seed

MIXED_PRECISIONS = ("auto", "no", "bf16", "fp16")


@dataclass(frozen=True, kw_only=True)
class Request:
    """The arguments of `edgead.train.train` that hold for each category; their meaning is described there."""

    method: type[Method]
    preset: str | None
    settings: tuple[str, ...]
    seed: Seed
    device: str
    mixed_precision: Annotated[str, OneOf(MIXED_PRECISIONS)]
    budget: str | None
    workers: Workers | None
    holdout: Annotated[float, Within()]
    textures: str | Path | None
    weights: str | Path | None
    donors: Sequence[str | Path]
    bit_depth: BitDepth
    geometry: GeometryRequest
    scale: Annotated[float, Within()] | None
    marked: str | Path | None

    def check(self) -> None:
        """Refuse what makes no sense, before any work.

        Raises:
            ConfigError: with the option.
        """
        kind, name = self.method, self.method.name
        schema.check(self)
        configure(kind, self.preset or next(iter(kind.presets)), self.settings)
        if self.budget is not None:
            self._check_budget(self.budget)
        if self.scale is not None and not 0 < self.scale < math.inf:
            raise ConfigError(
                f"--scale is the number of pixels per millimetre and must be above 0, not {self.scale:g}."
            )
        if not 0 < self.holdout < 1:
            raise ConfigError(f"--holdout must be a share between 0 and 1, not {self.holdout}.")
        if self.textures and not kind.takes_textures:
            raise ConfigError(f"{name} uses no textures; leave out --textures.")
        if self.donors and not kind.takes_donors:
            raise ConfigError(f"{name} learns only from good images; leave out --donor.")

    def _check_budget(self, budget: str) -> None:
        read_budget(budget)
        counts = self.method.Config.step_settings
        if not counts:
            raise ConfigError(
                f"{self.method.name} optimises nothing, so there is no schedule to scale; leave out --budget."
            )
        if named := {setting.partition("=")[0] for setting in self.settings} & {"epochs", *counts}:
            raise ConfigError(f"--budget sets the number of steps; leave out --set {min(named)}=….")

    def choose_preset(self, categories: Sequence[Category], console: Console) -> tuple[str, str]:
        """Return the preset for this machine, and why it was chosen, in words."""
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:  # all processes must choose alike
            return next(iter(self.method.presets)), "several processes train the published one"
        donors = find_donors(self.donors, categories[0], self.method.name, {}, Console())
        preset, why = choose_preset(
            self.method,
            self.settings,
            categories,
            self.device,
            self.mixed_precision,
            choose_workers(self.workers),
            tuple(len(donor.anomalies) for donor in donors if donor.anomalies),
            bool(self.textures),
            console,
            read_budget(self.budget) if self.budget else None,
        )
        console.say(f"Preset '{preset}': {why}.")
        return preset, why

    def configure(self, preset: str, category: str | None) -> MethodConfig:
        """Return the method's configuration for the category that is asked for, ``"all"`` for several.

        Raises:
            ConfigError: marked pictures do not fit it.
        """
        config = configure(self.method, preset, self.settings)
        if self.marked is not None and category == "all":
            raise ConfigError("Marked pictures belong to one product. Name it with --category, or leave out --marked.")
        if self.marked is not None and config.reads_depth:
            raise ConfigError("Marked pictures hold colours only. Leave out --marked, or --set depth=true.")
        if is_masks_folder(config.foreground):  # a resumed run finds the masks from any folder
            config = config.replaced(foreground=str(Path(config.foreground).resolve()))
        return config

    def fix_geometry(self, category: Category, config: MethodConfig, console: Console) -> Geometry | None:
        """Return a category's geometry, None for the usual one, and say what becomes of its pictures."""
        paths = [*category.normals, *category.validation]
        try:
            geometry, picture = fix_geometry(self.geometry, paths, config.size, PixelFormat(self.bit_depth), console)
        except DataError:
            if category.normals and self.geometry != GeometryRequest():
                raise
            return None  # the split and the training say what is wrong with the pictures
        for line in describe_shrink(geometry, picture, config.size, self.scale):
            console.say(f"{category.name}: {line}" if not line.startswith("Warning") else line)
        if geometry.count > 1:
            console.say(describe_tiles(geometry, config.size, len(paths), config.channels))
        return None if geometry == STRETCH else geometry


def take_at_most(count: int, category: Category, seed: int, console: Console) -> Category:
    """Return a category with so many of its good images at most, in their order."""
    found = len(category.normals)
    if found <= count:
        return category
    console.say(f"{category.name}: {count} of {found} good images are used")
    chosen = np.random.default_rng((seed, 0x3057)).permutation(found)[:count]
    return dataclasses.replace(category, normals=tuple(category.normals[index] for index in sorted(chosen)))
