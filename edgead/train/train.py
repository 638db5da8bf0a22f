"""`edgead train`: from a folder of images to a finished run."""

from __future__ import annotations

import dataclasses
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime, timezone
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils.memory import should_reduce_batch_size
from numpy.typing import NDArray

from edgead.console import Console
from edgead.datasets import (
    Category,
    Frames,
    check_masks,
    find_depth_range,
    load_frames,
    open_categories,
    open_category,
)
from edgead.errors import CheckpointError, ConfigError, DataError, DeviceError, TrainingError
from edgead.files import new_folder
from edgead.folders import list_images
from edgead.images import Frame, PixelFormat
from edgead.manifest import sizes_of
from edgead.text import file_name
from edgead.train import checkpoint, plots
from edgead.train.budget import read_budget, scale_run
from edgead.train.checkpoint import CURVES, DonorConfig, RunConfig
from edgead.train.donors import copy_transferred, find_donors, find_transferred, open_donor, pretrain
from edgead.train.estimate import NIGHT, Estimate, Work, choose_preset, measure
from edgead.train.feature_cache import FOLDER, remove_caches
from edgead.train.fit import fit, is_main
from edgead.train.foreground import FOREGROUNDS, foreground_mask, load_foreground_masks, masks_fingerprint
from edgead.train.method import (
    STEP_SETTINGS,
    Arrays,
    Donor,
    Method,
    TrainingData,
    configure,
    published_schedule,
    reconfigure,
)
from edgead.train.methods import get_method
from edgead.train.recipe import choose_precisions, departures
from edgead.train.split import FEW_IMAGES, split, split_normals

MOST_TEXTURES = 2000
"""Texture pictures kept in memory: 393 MB at 256×256."""
FEWEST_VISIBLE, FEW_VISIBLE = 0.05, 0.25
"""Share of the drawn anomalies that can be seen: below the first nothing can be learned, below the second little."""
SYNTHETIC = "synthetic.png"


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
        console: what shows progress.

    Returns:
        The folder of each finished run.

    Raises:
        EdgeadError: see `edgead.errors`.
    """
    console = console or Console()
    if out is None and "RANK" in os.environ:
        raise ConfigError("Several processes need one folder to share; name it with --out DIR.")
    method_class = get_method(method)
    configure(
        method_class, preset or next(iter(method_class.presets)), settings
    )  # what is wrong with it is said at once
    if budget is not None:
        read_budget(budget)
        if named := {setting.partition("=")[0] for setting in settings} & {"epochs", *STEP_SETTINGS}:
            raise ConfigError(f"--budget decides the number of steps; leave out --set {min(named)}=….")
    started = time.monotonic()
    if not 0 < holdout < 1:
        raise ConfigError(f"--holdout is a share between 0 and 1, not {holdout}.")
    if textures and not method_class.takes_textures:
        raise ConfigError(f"{method} draws no textures; leave out --textures.")
    if donors and not method_class.takes_donors:
        raise ConfigError(f"{method} learns from good images alone; leave out --donor.")
    categories = open_categories(data) if category == "all" else [open_category(data, category)]
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
    if config.foreground and config.foreground not in FOREGROUNDS:  # a resumed run finds the masks from any folder
        config = config.replaced(foreground=str(Path(config.foreground).resolve()))
    created = datetime.now(timezone.utc)
    folders: list[Path] = []
    known: dict[str, Path] = {}  # what earlier categories have learned from a donor serves the later ones
    with _naming_the_rest(categories, folders, out, console):
        for chosen in categories:
            folder = (
                Path(out)
                if out
                else Path("runs", "train", f"{method}-{file_name(chosen.name)}-{created:%Y%m%d-%H%M%S}")
            )
            if out and category == "all":
                folder = folder / chosen.name
                if (folder / checkpoint.CONFIG).exists():  # the same command again goes on where it stopped
                    stored = checkpoint.load_run_config(folder)
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
                        textures=_absolute(textures),
                        weights=_absolute(weights),
                    )
                    folders.append(resume(folder, device=device, workers=workers, console=console))
                    known |= find_transferred(folder)
                    continue
            if is_main() and any(
                (folder / name).exists() for name in (checkpoint.CONFIG, checkpoint.STATE, checkpoint.WEIGHTS)
            ):
                raise ConfigError(f"{folder} holds a run already. Go on with it (--resume), or choose another --out.")
            _report_data(chosen, console)
            parted = split(chosen, holdout, seed, PixelFormat(bit_depth), console)
            run = RunConfig(
                method=method,
                preset=preset,
                config=config,
                category=chosen.name,
                data=str(chosen.root.resolve()),
                normals=tuple(_relative(parted.normals, chosen.root)),
                held_out=tuple(_relative(parted.held_out, chosen.root)),
                copies=parted.copies,
                near_copies=parted.near,
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
                epoch_images=len(parted.normals) + (0 if chosen.validation else len(parted.held_out)),
                choice=choice,
            )
            console.say(
                f"{chosen.name}: {chosen.layout} layout, {len(parted.normals)} good images to train on, "
                f"{len(parted.held_out)} held out for the threshold"
            )
            folders.append(_run(run, folder, device, workers, console, named=out is not None, since=started))
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
    console: Console | None = None,
) -> Path:
    """Go on with a run that was stopped; on a CPU the result is that of a run that was never stopped.

    Args:
        folder: of the run.
        data: where the category's folder is now, if it has moved.
        settings: ``"name=value"`` overrides of what the method leaves open, `Method.resume_settings`, from the last
            saved state on: a lower learning rate after a training that diverged.
        device, workers, console: as for `train`.

    Raises:
        CheckpointError: not a run, or the training images have changed since.
        ConfigError: a setting that was decided when the run was started, or a finished run.
    """
    folder, console = Path(folder), console or Console()
    run = checkpoint.load_run_config(folder)
    changed = reconfigure(get_method(run.method), run.config, settings, "resume")
    if checkpoint.is_finished(folder):
        if settings:
            raise ConfigError(f"{folder} is finished already: --set {settings[0]} comes too late. Train anew.")
        console.say(f"{folder} is finished already.")
        if not (folder / CURVES).exists():
            plots.draw_curves(checkpoint.read_metrics(folder), folder / CURVES)
        return folder
    if data is not None:
        run = dataclasses.replace(run, data=str(open_category(data, _named_in(data, run.category)).root.resolve()))
    before, after = vars(run.config), vars(changed)
    changes = [f"{name} {before[name]:g} -> {value:g}" for name, value in after.items() if value != before[name]]
    if changes:
        run = dataclasses.replace(run, config=changed, changes=(*run.changes, *changes))
        console.say(f"Changed: {', '.join(changes)}")
    return _run(run, folder, device, workers, console, named=True)


def _report_data(category: Category, console: Console) -> None:
    """Say what of a data set is left out, and what is wrong with labelled images: training does not need them."""
    for note in category.notes:
        console.say(f"{category.name}: {note}")
    problems = check_masks(category, console.track("checking masks"))
    for problem in problems[:5]:
        console.say(f"Warning: {problem}")
    if problems:
        more = f" ({len(problems) - 5} more such problems)" if len(problems) > 5 else ""
        console.say(f"Training goes on without labelled images; edgead benchmark would refuse these.{more}")


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
    """Return the preset where nobody named one, and why: that of the same command before, or what fits the machine."""
    for category in categories if shared else ():
        if shared and (shared / category.name / checkpoint.CONFIG).exists():
            stored = checkpoint.load_run_config(shared / category.name)
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
        _workers(workers),
        defects,
        textures,
        console,
        read_budget(budget) if budget else None,
    )
    console.say(f"Preset '{preset}': {why}.")
    return preset, why


def _workers(wanted: int | None) -> int:
    """Return how many processes prepare examples; by the machine where nobody says."""
    cores = os.cpu_count() or 1
    return wanted if wanted is not None else 0 if cores <= 2 else min(8, cores - 1)


@contextmanager
def _naming_the_rest(
    categories: Sequence[Category], trained: Sequence[Path], out: str | Path | None, console: Console
) -> Iterator[None]:
    """Name the categories that a stopped command has not begun with: its run says how it goes on itself."""
    try:
        yield
    except KeyboardInterrupt:
        rest = [category.name for category in categories[len(trained) + 1 :]]
        if rest:
            how = "the same command again goes on and trains them" if out else "train each with --category NAME"
            console.say(f"Not begun: {', '.join(rest)}; {how}.")
        raise


def _absolute(path: str | Path | None) -> str | None:
    return str(Path(path).resolve()) if path else None


def _check_same(stored: RunConfig, folder: Path, **given: Any) -> None:
    """Refuse to go on with a run that another command has started; of donors, only whether it has any."""
    changed = {change.partition(" ")[0] for change in stored.changes}  # when it went on; the command does not say it
    changed |= {"epochs", *STEP_SETTINGS} if stored.budget else set()  # the budget decided those
    kept = {name: value for name, value in vars(stored.config).items() if name in changed}
    given |= {"donors": bool(given["donors"]), "config": given["config"].replaced(**kept)}
    there = {**vars(stored), "donors": bool(stored.donors)}
    differing = [name for name, value in given.items() if there[name] != value]
    if differing:
        raise ConfigError(
            f"{folder} holds a run with another {', '.join(differing)}.\n"
            f"Go on with it (edgead train --resume --out {folder}), or choose another --out."
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
        raise CheckpointError(f"There is no unfinished run of {method} in {root}. Name it with --out DIR.")
    return found[0]


def _run(
    run: RunConfig,
    folder: Path,
    device: str,
    workers: int | None,
    console: Console,
    named: bool,
    since: float | None = None,
) -> Path:
    method = checkpoint.build_method(run)
    if run.budget and not run.published_steps:
        method.config = published_schedule(method)
    if not (folder / checkpoint.STATE).is_file():  # a saved state holds the backbone too
        method.load_pretrained(Path(run.weights) if run.weights else None)
    size = run.config.size
    paths = [Path(run.data, name) for name in run.normals]
    if run.config.reads_depth and run.depth_range is None:
        (low, high), odd = find_depth_range(paths, console.track("measuring depth"))
        console.say(f"depth from {low:g} to {high:g}, in the files' unit")
        for path, (near, far) in odd.items():
            console.say(
                f"Warning: the depth of {path} is {near:g} to {far:g}, far from that of the others, and makes the "
                "range wider. Is it in the same unit? If not, take it out and train anew."
            )
        run = dataclasses.replace(run, depth_range=(low, high))
    frames = load_frames(paths, size, run.pixels, console.track("reading images"))
    _report_skipped(frames, "image", console)
    if not len(frames.frames):
        raise DataError(
            f"None of the {len(run.normals)} good images in {run.data} can be read; the first error:\n"
            f"{frames.skipped[0]}"
        )
    if len(frames.frames) < FEW_IMAGES:
        console.say(f"Warning: only {len(frames.frames)} good images to train on; {FEW_IMAGES} or more are advisable.")
    if run.bit_depth == 16 and frames.frames[..., :3].max() < 16:
        console.say(
            "Warning: the images are almost black. If they hold 10 or 12 bits in 16, say --bit-depth 10 (or 12)."
        )
    textures = load_textures(run, console)
    opened = [open_donor(donor, folder, run, console) for donor in run.donors]
    held_out = load_frames([Path(run.data, name) for name in run.held_out], size, run.pixels)
    _report_skipped(held_out, "held-out image", console)
    if not len(held_out.frames):
        raise DataError(
            f"None of the {len(run.held_out)} images held out for the threshold can be read:\n{held_out.skipped[0]}"
        )
    masks = load_foreground_masks(run.config.foreground, [*frames.paths, *held_out.paths], size)
    part_masks = None if masks is None else masks[: len(frames.paths)]
    held_out_masks = masks_fingerprint(None if masks is None else masks[len(frames.paths) :])  # for the export
    if not run.fingerprint:
        also_held_out = run.epoch_images > len(run.normals)  # not where the data set has images for validation
        run = dataclasses.replace(
            run,
            normals=tuple(_relative(frames.paths, Path(run.data))),
            held_out=tuple(_relative(held_out.paths, Path(run.data))),
            fingerprint=frames.fingerprint,
            image_sizes=sizes_of(frames.size_ranges()),
            held_out_fingerprint=held_out.fingerprint,
            donors=tuple(config for config, _ in opened),
            masks_fingerprint=masks_fingerprint(part_masks),
            held_out_masks_fingerprint=held_out_masks,
            textures_fingerprint=textures.fingerprint if textures.paths else "",
            epoch_images=len(frames.paths) + also_held_out * len(held_out.paths),
        )
        by_brightness = run.config.foreground == "auto"
        unfound = sum(foreground_mask(frame[..., :3]).all() for frame in frames.frames) if by_brightness else 0
        run = dataclasses.replace(run, departures=tuple(departures(run, method, len(textures.paths), int(unfound))))
        if is_main() and not named:
            folder = new_folder(folder)
    elif run.fingerprint != frames.fingerprint:
        raise CheckpointError(f"The training images in {run.data} are not those that {folder} was started with.")
    elif run.masks_fingerprint != masks_fingerprint(part_masks) or not run.fits_held_out_masks(held_out_masks):
        raise CheckpointError(
            f"The masks in {run.config.foreground} are not those that {folder} was started with.\n"
            "Bring the right ones back, or train anew."
        )
    elif run.textures_fingerprint not in ("", textures.fingerprint):
        raise CheckpointError(
            f"The textures in {run.textures} are not those that {folder} was started with.\n"
            "Bring the right ones back, or train anew."
        )
    data = TrainingData(frames.frames, textures.frames, foreground_masks=part_masks, epoch=run.steps_in_epoch)
    with checkpoint.sole_trainer(folder) if is_main() else nullcontext():
        if checkpoint.is_finished(folder):
            console.say(f"{folder} was finished by another process.")
        else:
            _learn_and_train(method, run, folder, data, opened, device, workers, console, since)
    return folder


def _learn_and_train(
    method: Method,
    run: RunConfig,
    folder: Path,
    data: TrainingData,
    opened: Sequence[tuple[DonorConfig, Donor | Arrays]],
    device: str,
    workers: int | None,
    console: Console,
    since: float | None,
) -> None:
    if is_main():
        checkpoint.save_run_config(folder, run)  # also of a run that goes on: its data has moved, its rate is another
    workers = _workers(workers)
    if method.takes_donors:
        console.say(method.card.reporting_note if opened else method.card.without_donors)
    _introduce(run, method, console)
    with _telling_how_to_go_on(run, folder, console):
        work = Work(
            len(data.normals),
            run.steps_in_epoch,
            tuple(len(donor.anomalies) for _, donor in opened if isinstance(donor, Donor)),
            bool(len(data.textures)),
        )
        position = checkpoint.load_position(folder)
        estimate = measure(method, work, device, run.precisions, workers, console, position, data.normals, since)
        if run.budget and not run.published_steps:
            run, estimate = scale_run(run, method, estimate, bool(work.defects))
            console.say(
                f"--budget {run.budget}: {method.config.schedule(run.steps_in_epoch)} of {run.published_steps:,}"
            )
        console.say(f"On {estimate.device}: {estimate.describe()}{_remedy(run, method, estimate)}")
        if run.precisions == "auto":
            run = choose_precisions(run, estimate, console)
        if estimate.device not in run.devices[-1:]:
            run = dataclasses.replace(run, devices=(*run.devices, estimate.device))
        if is_main():
            checkpoint.save_run_config(folder, run)  # before the first step: a resumed run keeps the precision
        optimise = partial(
            fit, seed=run.seed, device=device, mixed_precision=run.precisions, workers=workers, console=console
        )
        for config, _ in opened if is_main() else ():
            copy_transferred(config, folder, console)
        learned = tuple(
            pretrain(method, config, donor, folder, run, optimise, console) if isinstance(donor, Donor) else donor
            for config, donor in opened
        )
        rank = os.environ.get("RANK", "0")
        data = dataclasses.replace(data, donors=learned, cache=folder / f"{FOLDER}-{rank}")
        if is_main() and not (folder / SYNTHETIC).exists():
            _check_visible(method, data, run, folder, console)
            plots.draw_examples(_examples(method, data, run.seed), folder / SYNTHETIC)
        optimise(method, method.stages(data), folder)
    if is_main():
        remove_caches(folder)
        plots.draw_curves(checkpoint.read_metrics(folder), folder / CURVES)
        console.say(f"Trained: {folder}")


def _introduce(run: RunConfig, method: Method, console: Console) -> None:
    """Say what will be trained, and what of it is not as published."""
    counted = f"all {run.epoch_images} good images" if run.epoch_images else f"the {len(run.normals)} that it trains on"
    schedule = method.config.schedule(run.steps_in_epoch)
    console.say(f"{method.card.title}, preset '{run.preset}': {schedule}; an epoch counts {counted}")
    if run.config.backbone:
        console.say(f"Backbone {run.config.backbone}: weights of {run.weights or 'its publisher (download)'}")
    if run.departures:
        console.say("Not as published:")
        for words in run.departures:
            console.say(f"  {words}")


def _remedy(run: RunConfig, method: Method, estimate: Estimate) -> str:
    """Say what is shorter, where a training takes longer than a night."""
    if estimate.seconds <= NIGHT or run.budget:
        return ""
    presets = list(method.presets)
    smaller = presets[presets.index(run.preset) + 1 :] if run.preset in presets else []
    named = "".join(f"--preset {name}, " for name in smaller)
    return f".\nShorter: {named}--set steps=… (the schedule is scaled), or a GPU. It can be stopped and resumed"


@contextmanager
def _telling_how_to_go_on(run: RunConfig, folder: Path, console: Console) -> Iterator[None]:
    """Say with whatever ends a training how it goes on."""
    go_on = f"edgead train --resume --out {folder}"
    try:
        yield
    except KeyboardInterrupt:
        console.say(f"Stopped. Go on with:  {go_on}")
        raise
    except OSError:
        console.say(f"Stopped by an error. When it is mended, go on with:  {go_on}")
        raise
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, MemoryError) or should_reduce_batch_size(error)):
            raise
        sides = "x".join(map(str, run.config.size))
        raise DeviceError(
            f"Out of memory while training with batch_size {run.config.batch_size} at {sides}.\n"
            "Train anew with a smaller one (--set batch_size=…, --set size=…) or a smaller --preset.\n"
            f"If something else took the memory, go on with:  {go_on}"
        ) from error
    except TrainingError as error:
        raise TrainingError(
            f"{error}\nGo on with a lower one:  {go_on} --set {error.setting}=…", error.setting
        ) from error


def load_textures(run: RunConfig, console: Console) -> Frames:
    """Read the pictures that fill a run's synthetic anomalies; none where it has none."""
    size = run.config.size
    if run.textures is None:
        return load_frames([], size)
    folder = Path(run.textures)
    paths = list_images(folder, recursive=True) if folder.is_dir() else []
    if not paths:
        raise DataError(f"--textures {folder} holds no images.")
    if len(paths) > MOST_TEXTURES:
        console.say(f"{MOST_TEXTURES} of {len(paths)} texture pictures are used: more would take too much memory")
        chosen = np.random.default_rng((run.seed, 0x7E)).permutation(len(paths))[:MOST_TEXTURES]
        paths = [paths[index] for index in sorted(chosen)]
    frames = load_frames(paths, size, progress=console.track("reading textures"))
    _report_skipped(frames, "texture", console)
    return frames


def _report_skipped(frames: Frames, what: str, console: Console) -> None:
    if frames.skipped:
        number = len(frames.skipped)
        total = number + len(frames.paths)
        console.say(f"Warning: {number} of {total} {what}s skipped:")
        for line in frames.skipped[:10]:
            console.say(f"  {line}")
        if len(frames.skipped) > 10:
            console.say(f"  … and {len(frames.skipped) - 10} more")


def _check_visible(method: Method, data: TrainingData, run: RunConfig, folder: Path, console: Console) -> None:
    """Look whether the anomalies that training will draw can be seen, those of each donor by themselves.

    Raises:
        DataError: hardly any of them can.
    """
    given = {
        f"the defects in {folder / 'sources' / config.name}": dataclasses.replace(data, donors=(learned,))
        for config, learned in zip(run.donors, data.donors)
    }
    for what, alone in (given or {"the synthetic anomalies": data}).items():
        share = method.visible(alone, np.random.default_rng((run.seed, 0x5EE)))
        said = f"{share:.0%} of {what} can be seen on these good images"
        if share < FEWEST_VISIBLE:
            raise DataError(f"Only {said}: there is nothing to learn.\n{method.card.visibility_hint}")
        if share < FEW_VISIBLE:
            console.say(f"Warning: only {said}; to training the others are good ones.\n{method.card.visibility_hint}")


def _examples(method: Method, data: TrainingData, seed: int) -> list[tuple[Frame, NDArray[np.bool_]]]:
    rng = np.random.default_rng((seed, 0xE6))
    made = [method.example(data, rng) for _ in range(8)]
    return [(example["frame"], example["mask"]) for example in made]


def _relative(paths: Sequence[Path], root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def _versions() -> dict[str, str]:
    names = ("edgead", "torch", "numpy", "accelerate", "safetensors")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}
