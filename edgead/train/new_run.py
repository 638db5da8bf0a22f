"""The configuration of a new run: first what the command decides, then which images it has."""

from __future__ import annotations

import dataclasses
import platform
from datetime import datetime
from importlib import metadata
from pathlib import Path

from edgead.console import Console
from edgead.datasets import Category, check_masks
from edgead.errors import ConfigError
from edgead.geometry import Geometry
from edgead.images import PixelFormat
from edgead.text import typed
from edgead.train import checkpoint, run_config, training_state
from edgead.train.accelerator import is_main
from edgead.train.donors import find_donors
from edgead.train.marked import find_marked
from edgead.train.materials import refuse_seen
from edgead.train.method_config import MethodConfig
from edgead.train.request import Request
from edgead.train.run_config import RunConfig
from edgead.train.run_images import relative_names
from edgead.train.split import split

GIVEN = (
    "method",
    "preset",
    "config",
    "seed",
    "mixed_precision",
    "budget",
    "bit_depth",
    "stored_geometry",
    "textures",
    "weights",
    "data",
)
"""Fields of `RunConfig` that a repeated command must give again, like `holdout`. Of donors, only whether it has any."""


def run_without_images(
    request: Request,
    preset: str,
    choice: str,
    config: MethodConfig,
    category: Category,
    geometry: Geometry | None,
    created: datetime,
) -> RunConfig:
    """Return what a command decides of a run; `choose_images` adds the images and donors."""
    return RunConfig(
        method=request.method.name,
        preset=preset,
        config=config,
        category=category.name,
        data=str(category.root.resolve()),
        normals=(),
        held_out=(),
        fingerprint="",
        held_out_fingerprint="",
        stored_geometry=geometry,
        textures=absolute(request.textures),
        weights=absolute(request.weights),
        bit_depth=request.bit_depth,
        seed=request.seed,
        mixed_precision=request.mixed_precision,
        budget=request.budget,
        holdout=request.holdout,
        created=created.isoformat(timespec="microseconds"),
        versions=_versions(),
        choice=choice,
    )


def choose_images(
    run: RunConfig, category: Category, request: Request, learned: dict[str, Path], console: Console
) -> RunConfig:
    """Return a run with its good images, those held out, and its donors.

    Args:
        run: of `run_without_images`.
        category: with the images.
        request: of the command.
        learned: donor's folder ↦ what an earlier run of the command has learned from it.
        console: shows what was found.

    Raises:
        DataError: fewer than two different good images, or textures that are held-out or labelled images.
    """
    _report_data(category, console)
    pixels = PixelFormat(request.bit_depth)
    parted = split(category, request.holdout, request.seed, pixels, console)
    refuse_seen([*parted.held_out, *(sample.path for sample in category.test)], request.textures)
    folder = request.marked
    marked = None if folder is None else find_marked(Path(folder), category, parted, pixels, console)
    images = len(parted.normals) + (len(marked.names) if marked else 0)
    run = dataclasses.replace(
        run,
        normals=tuple(relative_names(parted.normals, category.root)),
        held_out=tuple(relative_names(parted.held_out, category.root)),
        copies=parted.copies,
        near_copies=parted.near,
        donors=find_donors(request.donors, category, run.method, learned, console),
        epoch_images=images + (0 if category.validation else len(parted.held_out)),
        marked=marked,
    )
    console.say(
        f"{category.name}: {category.layout} layout, {images} good images to train on, "
        f"{len(parted.held_out)} held out for the threshold"
        + ", its validation images (--holdout has no effect)"
        * bool(category.validation)
    )
    return run


def check_same(stored: RunConfig, asked: RunConfig, has_donors: bool, folder: Path) -> None:
    """Refuse to resume a run that another command has started.

    Args:
        stored: the run that is there.
        asked: what the command decides, see `run_without_images`.
        has_donors: whether the command names donors.
        folder: of the run.

    Raises:
        ConfigError: with what differs.
    """
    # What was changed when it was resumed is not in the command.
    changed = {change.partition(" ")[0] for change in stored.changes}
    changed |= {"epochs", *stored.config.step_settings} if stored.budget else set()  # the budget decided those
    if type(asked.config) is type(stored.config):
        kept = {name: value for name, value in vars(stored.config).items() if name in changed}
        asked = dataclasses.replace(asked, config=asked.config.replaced(**kept))
    differing = [name.removeprefix("stored_") for name in GIVEN if getattr(stored, name) != getattr(asked, name)]
    if stored.holdout not in (None, asked.holdout):
        differing.append("holdout")
    if bool(stored.donors) != has_donors:
        differing.append("donors")
    if differing:
        raise ConfigError(
            f"{folder} holds a run with another {', '.join(differing)}.\n"
            f"Resume it (edgead train --resume --out {typed(folder)}), or choose another --out."
        )


def refuse_run(folder: Path) -> None:
    """Refuse a folder that holds a run already.

    Raises:
        ConfigError: it does.
    """
    files = (run_config.CONFIG, training_state.STATE, checkpoint.WEIGHTS)
    if is_main() and any((folder / name).exists() for name in files):
        raise ConfigError(f"{folder} already holds a run. Resume it (--resume), or choose another --out.")


def _report_data(category: Category, console: Console) -> None:
    """Report what of a data set is left out, and problems with labelled images, which training does not need."""
    for note in category.notes:
        console.say(f"{category.name}: {note}")
    problems = check_masks(category, console.track("checking masks"))
    for problem in problems[:5]:
        console.say(f"Warning: {problem}")
    if problems:
        more = f" ({len(problems) - 5} more such problems)" if len(problems) > 5 else ""
        console.say(f"Training does not use labelled images; edgead benchmark would refuse these.{more}")


def absolute(path: str | Path | None) -> str | None:
    """Return a path as a run stores it."""
    return str(Path(path).resolve()) if path else None


def _versions() -> dict[str, str]:
    names = ("edgead", "torch", "numpy", "accelerate", "safetensors")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}
