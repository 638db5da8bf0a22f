"""`edgead train`: from a folder of images to finished runs."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from edgead.console import Console
from edgead.datasets import (
    Category,
    check_masks,
    open_categories,
    open_category,
)
from edgead.errors import CheckpointError, ConfigError, DataError
from edgead.geometry import STRETCH, Geometry, GeometryRequest
from edgead.images import PixelFormat
from edgead.text import file_name
from edgead.train import checkpoint, run_config, training_state
from edgead.train.budget import read_budget
from edgead.train.canvas import describe_shrink, describe_tiles, fix_geometry
from edgead.train.configuration import configure, reconfigure
from edgead.train.donors import find_donors, find_transferred
from edgead.train.estimate import choose_preset
from edgead.train.fit import is_main
from edgead.train.foreground import is_masks_folder
from edgead.train.marked import find_marked
from edgead.train.method import Method
from edgead.train.method_config import MethodConfig
from edgead.train.methods import get_method
from edgead.train.run import choose_workers, relative_names, train_run
from edgead.train.run_config import RunConfig
from edgead.train.split import split, split_normals
from edgead.train.tracking import check_trackers


def train(
    method: str,
    data: str | Path,
    *,
    category: str | None = None,
    preset: str | None = None,
    settings: tuple[str, ...] = (),
    out: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    mixed_precision: str = "auto",
    budget: str | None = None,
    workers: int | None = None,
    holdout: float = 0.2,
    textures: str | Path | None = None,
    weights: str | Path | None = None,
    donors: Sequence[str | Path] = (),
    bit_depth: int = 16,
    crop: str | None = None,
    fit: str = "stretch",
    tiles: str | None = None,
    overlap: float | None = None,
    scale: float | None = None,
    align: str | Path | None = None,
    max_shift: float | None = None,
    max_rotation: float | None = None,
    track: Sequence[str] = (),
    most_images: int | None = None,
    marked: str | Path | None = None,
    console: Console | None = None,
) -> list[Path]:
    """Train a method on the good images of a data set.

    Args:
        method: name, for instance ``"draem"``.
        data: folder in a layout of `edgead.datasets`.
        category: one of several categories, or ``"all"`` for a run each.
        preset: ``"paper"``, ``"edge"`` or ``"nano"``; where None, the largest that trains here in a night.
        settings: ``"name=value"`` overrides of the method's configuration.
        out: the run's folder (with several categories: the folder of their runs); a new one below ``runs/train``
            by default.
        seed: of the weights, the split and every example.
        device, workers: see `edgead.train.fit.fit`; `workers` is chosen by the machine when None.
        mixed_precision: ``"no"`` (float32), ``"bf16"``, ``"fp16"``, or ``"auto"``: for each stage bf16 where this
            processor has the instructions and a few steps show that it is faster and that the losses agree.
        budget: time for each run, as ``90s``, ``30m`` or ``2h``: the published schedule is scaled to it.
        holdout: share of the good images that is kept for the threshold and never trained on; 200 at most.
        textures: folder of pictures that fill synthetic anomalies.
        weights: file of a backbone's weights; without one they are downloaded where the method needs any.
        donors: other products with real defects, for a method that learns from them: data sets, or runs or
            ``learned.safetensors`` of runs that have learned from them already.
        bit_depth: significant bits of 16-bit images.
        crop: ``"x,y,width,height"`` of the part of each image that is seen, as shares of it or in pixels.
        fit: ``"stretch"`` to the network's input, or ``"letterbox"``, which keeps the aspect.
        tiles: ``"ROWSxCOLUMNS"`` of the network's input that an image is cut to, or the size of a tile in pixels of the
            image, ``"512px"`` or ``"HEIGHTxWIDTHpx"``.
        overlap: of neighbouring tiles, as a share of a tile; `edgead.geometry.OVERLAP` where None.
        scale: pixels of the images for a millimetre, to say what is left of a defect of 1 mm.
        align: reference picture that images are shifted and turned to, so that their part lies as on it; ``"auto"``
            for one of the good images.
        max_shift: farthest shift of a part, as a share of an image's longer side; `edgead.geometry.MAX_SHIFT` where
            None.
        max_rotation: largest angle of a part in degrees; `edgead.geometry.MAX_ROTATION` where None.
        most_images: good images of a category that are used at most, drawn by the seed; all where None.
        marked: folder of a ``rejects:`` sink or of its marks: good parts that are marked as false rejects are trained
            on too, and never held out.
        track: experiment trackers that get losses, learning rates and held-out figures: ``"tensorboard"``,
            ``"mlflow"``.
        console: what shows progress.

    Returns:
        The folder of each finished run.

    Raises:
        EdgeadError: see `edgead.errors`.
    """
    console = console or Console()
    check_trackers(track)
    if out is None and "RANK" in os.environ:
        raise ConfigError("Several processes need a common folder; set it with --out DIR.")
    method_class = get_method(method)
    configure(method_class, preset or next(iter(method_class.presets)), settings)  # errors are reported before any work
    if budget is not None:
        read_budget(budget)
        if not method_class.Config.step_settings:
            raise ConfigError(f"{method} optimises nothing, so there is no schedule to scale; leave out --budget.")
        if named := {setting.partition("=")[0] for setting in settings} & {
            "epochs",
            *method_class.Config.step_settings,
        }:
            raise ConfigError(f"--budget sets the number of steps; leave out --set {min(named)}=….")
    requested = GeometryRequest.parse(
        crop, fit, tiles, overlap, None if align is None else str(align), max_shift, max_rotation
    )
    if scale is not None and not 0 < scale < math.inf:
        raise ConfigError(f"--scale is the number of pixels per millimetre and must be above 0, not {scale:g}.")
    started = time.monotonic()
    if not 0 < holdout < 1:
        raise ConfigError(f"--holdout must be a share between 0 and 1, not {holdout}.")
    if textures and not method_class.takes_textures:
        raise ConfigError(f"{method} uses no textures; leave out --textures.")
    if donors and not method_class.takes_donors:
        raise ConfigError(f"{method} learns only from good images; leave out --donor.")
    categories = open_categories(data) if category == "all" else [open_category(data, category)]
    if most_images is not None:
        categories = [_at_most(most_images, each, seed, console) for each in categories]
    choice = ""
    if preset is None:
        for each in categories:
            split_normals(each, holdout, seed)  # too few images are reported before anything is measured
        shared = Path(out) if out and category == "all" else None
        preset, choice = _choose(
            method_class,
            settings,
            categories,
            donors,
            shared,
            device,
            mixed_precision,
            workers,
            bool(textures),
            budget,
            console,
        )
    config = configure(method_class, preset, settings)
    if marked is not None:
        _check_marked(category, config)
    geometries = [_fix_geometry(requested, each, config, bit_depth, scale, console) for each in categories]
    if is_masks_folder(config.foreground):  # a resumed run finds the masks from any folder
        config = config.replaced(foreground=str(Path(config.foreground).resolve()))
    created = datetime.now(timezone.utc)
    folders: list[Path] = []
    known: dict[str, Path] = {}  # what earlier categories have learned from a donor serves the later ones
    with _naming_the_rest(categories, folders, out, console):
        for chosen, geometry in zip(categories, geometries):
            folder = (
                Path(out)
                if out
                else Path("runs", "train", f"{method}-{file_name(chosen.name)}-{created:%Y%m%d-%H%M%S}")
            )
            if out and category == "all":
                folder = folder / chosen.name
                if (folder / run_config.CONFIG).exists():  # the same command resumes where it stopped
                    stored = run_config.load_run_config(folder)
                    _check_same(
                        stored,
                        folder,
                        method=method,
                        preset=preset,
                        config=config,
                        donors=donors,
                        seed=seed,
                        mixed_precision=mixed_precision,
                        budget=budget,
                        bit_depth=bit_depth,
                        stored_geometry=geometry,
                        textures=_absolute(textures),
                        weights=_absolute(weights),
                    )
                    folders.append(resume(folder, device=device, workers=workers, track=track, console=console))
                    known |= find_transferred(folder)
                    continue
            if is_main() and any(
                (folder / name).exists() for name in (run_config.CONFIG, training_state.STATE, checkpoint.WEIGHTS)
            ):
                raise ConfigError(f"{folder} already holds a run. Resume it (--resume), or choose another --out.")
            _report_data(chosen, console)
            pixels = PixelFormat(bit_depth)
            parted = split(chosen, holdout, seed, pixels, console)
            also = None if marked is None else find_marked(Path(marked), chosen, parted, pixels, console)
            images = len(parted.normals) + (len(also.names) if also else 0)
            run = RunConfig(
                method=method,
                preset=preset,
                config=config,
                category=chosen.name,
                data=str(chosen.root.resolve()),
                normals=tuple(relative_names(parted.normals, chosen.root)),
                held_out=tuple(relative_names(parted.held_out, chosen.root)),
                copies=parted.copies,
                near_copies=parted.near,
                stored_geometry=geometry,
                fingerprint="",
                held_out_fingerprint="",
                textures=_absolute(textures),
                bit_depth=bit_depth,
                seed=seed,
                mixed_precision=mixed_precision,
                budget=budget,
                created=created.isoformat(timespec="microseconds"),
                versions=_versions(),
                weights=_absolute(weights),
                donors=find_donors(donors, chosen, method, known, console),
                epoch_images=images + (0 if chosen.validation else len(parted.held_out)),
                choice=choice,
                marked=also,
            )
            console.say(
                f"{chosen.name}: {chosen.layout} layout, {images} good images to train on, "
                f"{len(parted.held_out)} held out for the threshold"
            )
            chosen_by_user = out is not None
            folders.append(train_run(run, folder, device, workers, console, chosen_by_user, started, track))
            started = time.monotonic()
            known |= find_transferred(folders[-1])
    return folders


def resume(
    folder: str | Path,
    *,
    data: str | Path | None = None,
    settings: tuple[str, ...] = (),
    device: str = "auto",
    workers: int | None = None,
    track: Sequence[str] = (),
    console: Console | None = None,
) -> Path:
    """Resume a stopped run; on a CPU the result is that of a run that was never stopped.

    Args:
        folder: of the run.
        data: where the category's folder is now, if it has moved.
        settings: ``"name=value"`` overrides of what the method leaves open, `Method.resume_settings`, from the last
            saved state on: a lower learning rate after a training that diverged.
        device, workers, track, console: as for `train`.

    Raises:
        CheckpointError: not a run, or the training images have changed since.
        ConfigError: a setting that was fixed when the run was started, or a finished run.
    """
    folder, console = Path(folder), console or Console()
    check_trackers(track)
    run = run_config.load_run_config(folder)
    changed = reconfigure(get_method(run.method), run.config, settings, "resume")
    if checkpoint.is_finished(folder):
        if settings:
            raise ConfigError(f"{folder} is finished: --set {settings[0]} has no effect. Start a new run.")
        console.say(f"{folder} is finished already.")
        return folder
    if data is not None:
        run = dataclasses.replace(run, data=str(open_category(data, _named_in(data, run.category)).root.resolve()))
    before, after = vars(run.config), vars(changed)
    changes = [f"{name} {before[name]:g} -> {value:g}" for name, value in after.items() if value != before[name]]
    if changes:
        run = dataclasses.replace(run, config=changed, changes=(*run.changes, *changes))
        console.say(f"Changed: {', '.join(changes)}")
    return train_run(run, folder, device, workers, console, named=True, track=track)


def _check_marked(category: str | None, config: MethodConfig) -> None:
    if category == "all":
        raise ConfigError("Marked pictures belong to one product. Name it with --category, or leave out --marked.")
    if config.reads_depth:
        raise ConfigError("Marked pictures hold colours only. Leave out --marked, or --set depth=true.")


def _fix_geometry(
    requested: GeometryRequest,
    category: Category,
    config: MethodConfig,
    bit_depth: int,
    scale: float | None,
    console: Console,
) -> Geometry | None:
    """Return a category's geometry, None for the usual one, and say what becomes of its pictures."""
    paths = [*category.normals, *category.validation]
    try:
        geometry, picture = fix_geometry(requested, paths, config.size, PixelFormat(bit_depth), console)
    except DataError:
        if category.normals and requested != GeometryRequest():
            raise
        return None  # the split and the training say what is wrong with the pictures
    for line in describe_shrink(geometry, picture, config.size, scale):
        console.say(f"{category.name}: {line}" if not line.startswith("Warning") else line)
    if geometry.count > 1:
        console.say(describe_tiles(geometry, config.size, len(paths), config.channels))
    return None if geometry == STRETCH else geometry


def _at_most(count: int, category: Category, seed: int, console: Console) -> Category:
    """Return a category with so many of its good images at most, in their order."""
    found = len(category.normals)
    if found <= count:
        return category
    console.say(f"{category.name}: {count} of {found} good images are used")
    chosen = np.random.default_rng((seed, 0x3057)).permutation(found)[:count]
    return dataclasses.replace(category, normals=tuple(category.normals[index] for index in sorted(chosen)))


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


def _choose(
    method_class: type[Method],
    settings: tuple[str, ...],
    categories: Sequence[Category],
    donors: Sequence[str | Path],
    shared: Path | None,
    device: str,
    mixed_precision: str,
    workers: int | None,
    textures: bool,
    budget: str | None,
    console: Console,
) -> tuple[str, str]:
    """Return the preset where none was named, and why: that of the same command before, or what fits the machine."""
    for category in categories if shared else ():
        if shared and (shared / category.name / run_config.CONFIG).exists():
            stored = run_config.load_run_config(shared / category.name)
            return stored.preset, stored.choice
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        return next(iter(method_class.presets)), "several processes train the published one"  # all must choose alike
    found = find_donors(donors, categories[0], method_class.name, {}, Console())
    defects = tuple(len(donor.anomalies) for donor in found if donor.anomalies)
    preset, why = choose_preset(
        method_class,
        settings,
        categories,
        device,
        mixed_precision,
        choose_workers(workers),
        defects,
        textures,
        console,
        read_budget(budget) if budget else None,
    )
    console.say(f"Preset '{preset}': {why}.")
    return preset, why


@contextmanager
def _naming_the_rest(
    categories: Sequence[Category], trained: Sequence[Path], out: str | Path | None, console: Console
) -> Iterator[None]:
    """Name the categories that a stopped command has not started; the run itself says how to resume it."""
    try:
        yield
    except KeyboardInterrupt:
        rest = [category.name for category in categories[len(trained) + 1 :]]
        if rest:
            how = "repeat the command to resume and train them" if out else "train each with --category NAME"
            console.say(f"Not started: {', '.join(rest)}; {how}.")
        raise


def _absolute(path: str | Path | None) -> str | None:
    return str(Path(path).resolve()) if path else None


def _check_same(stored: RunConfig, folder: Path, **given: Any) -> None:
    """Refuse to resume a run that another command has started; of donors, only whether it has any."""
    # What was changed when it was resumed is not in the command.
    changed = {change.partition(" ")[0] for change in stored.changes}
    changed |= {"epochs", *stored.config.step_settings} if stored.budget else set()  # the budget decided those
    kept = {name: value for name, value in vars(stored.config).items() if name in changed}
    given |= {"donors": bool(given["donors"]), "config": given["config"].replaced(**kept)}
    there = {**vars(stored), "donors": bool(stored.donors)}
    differing = [name.removeprefix("stored_") for name, value in given.items() if there[name] != value]
    if differing:
        raise ConfigError(
            f"{folder} holds a run with another {', '.join(differing)}.\n"
            f"Resume it (edgead train --resume --out {folder}), or choose another --out."
        )


def _named_in(data: str | Path, category: str) -> str | None:
    return category if category in (each.name for each in open_categories(data)) else None


def find_unfinished(method: str, root: Path = Path("runs/train")) -> Path:
    """Return the newest run of a method that was stopped.

    Raises:
        CheckpointError: there is none.
    """
    found = checkpoint.find_runs(root, method, finished=False)
    if not found:
        raise CheckpointError(f"No unfinished run of {method} in {root}. Set its folder with --out DIR.")
    return found[0]


def _versions() -> dict[str, str]:
    names = ("edgead", "torch", "numpy", "accelerate", "safetensors")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}
