"""One run: its data is read, checked and kept; then it is trained, or resumed, to the end."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path

from accelerate.utils.memory import should_reduce_batch_size

from edgead.console import Console
from edgead.datasets import (
    cut_tiles,
    find_depth_range,
    load_frames,
)
from edgead.errors import CheckpointError, DataError, DeviceError, TrainingError
from edgead.files import new_folder
from edgead.manifest import sizes_of
from edgead.train import checkpoint, plots, run_config, training_state
from edgead.train.budget import scale_run
from edgead.train.canvas import tile_masks
from edgead.train.configuration import published_schedule
from edgead.train.donors import copy_transferred, open_donor, pretrain
from edgead.train.estimate import NIGHT, Estimate, Work, measure
from edgead.train.feature_cache import FOLDER, remove_caches
from edgead.train.fit import fit, is_main
from edgead.train.foreground import count_without_part, load_foreground_masks, masks_fingerprint
from edgead.train.materials import check_visible, draw_some, load_textures, report_dark, report_skipped
from edgead.train.method import Arrays, Donor, Method, TrainingData
from edgead.train.recipe import choose_precisions, departures
from edgead.train.report import HeldOut, start_watch, write_report
from edgead.train.run_config import DonorConfig, MarkedConfig, RunConfig
from edgead.train.split import FEW_IMAGES
from edgead.train.tracking import Tracking

SYNTHETIC = "synthetic.png"


def train_run(
    run: RunConfig,
    folder: Path,
    device: str,
    workers: int | None,
    console: Console,
    named: bool,
    since: float | None = None,
    track: Sequence[str] = (),
) -> Path:
    method = checkpoint.build_method(run)
    if run.budget and not run.published_steps:
        method.config = published_schedule(method)
    if not (folder / training_state.STATE).is_file():  # a saved state holds the backbone too
        method.load_pretrained(Path(run.weights) if run.weights else None)
    tiling, geometry = run.tiling, run.geometry
    paths = run.training_images(Path(run.data))
    if run.config.reads_depth and run.depth_range is None:
        (low, high), odd = find_depth_range(paths, console.track("measuring depth"))
        console.say(f"depth from {low:g} to {high:g}, in the files' unit")
        for path, (near, far) in odd.items():
            console.say(
                f"Warning: the depth of {path} is {near:g} to {far:g}, far from that of the others, and makes the "
                "range wider. Is it in the same unit? If not, remove it and start a new run."
            )
        run = dataclasses.replace(run, depth_range=(low, high))
    frames = load_frames(paths, tiling.canvas, run.pixels, console.track("reading images"), geometry)
    report_skipped(frames, "image", console)
    if not len(frames.frames):
        raise DataError(
            f"None of the {run.trained_on} good images in {run.data} can be read; the first error:\n{frames.skipped[0]}"
        )
    if len(frames.frames) < FEW_IMAGES:
        console.say(f"Warning: only {len(frames.frames)} good images to train on; {FEW_IMAGES} or more are advisable.")
    report_dark(frames, "image", run.bit_depth, console)
    if shapes := frames.describe_odd_shapes():
        console.say(shapes)
    textures = load_textures(run, console)
    opened = [open_donor(donor, folder, run, console) for donor in run.donors]
    unseen_paths = [Path(run.data, name) for name in run.held_out]
    held_out = load_frames(unseen_paths, tiling.canvas, run.pixels, geometry=geometry)
    report_skipped(held_out, "held-out image", console)
    report_dark(held_out, "held-out image", run.bit_depth, console)
    if not len(held_out.frames):
        raise DataError(
            f"None of the {len(run.held_out)} images held out for the threshold can be read:\n{held_out.skipped[0]}"
        )
    how = run.config.foreground
    masks = load_foreground_masks(how, [*frames.paths, *held_out.paths], tiling.canvas, geometry)
    part_masks = None if masks is None else masks[: len(frames.paths)]
    held_out_masks = masks_fingerprint(None if masks is None else masks[len(frames.paths) :])  # for the export
    if not run.fingerprint:
        also_held_out = run.epoch_images > run.trained_on  # not where the data set has images for validation
        marked = set(run.marked.paths if run.marked else ())
        own = [path for path in frames.paths if path not in marked]
        run = dataclasses.replace(
            run,
            normals=tuple(relative_names(own, Path(run.data))),
            marked=_only(run.marked, frames.paths),
            held_out=tuple(relative_names(held_out.paths, Path(run.data))),
            fingerprint=frames.fingerprint,
            image_sizes=sizes_of(frames.size_ranges()),
            held_out_fingerprint=held_out.fingerprint,
            donors=tuple(config for config, _ in opened),
            masks_fingerprint=masks_fingerprint(part_masks),
            held_out_masks_fingerprint=held_out_masks,
            textures_fingerprint=textures.fingerprint if textures.paths else "",
            epoch_images=len(frames.paths) + also_held_out * len(held_out.paths),
        )
        unfound = count_without_part(frames.frames, run.config.foreground)
        run = dataclasses.replace(run, departures=tuple(departures(run, method, len(textures.paths), unfound)))
        if is_main() and not named:
            folder = new_folder(folder)
    elif run.fingerprint != frames.fingerprint:
        also = f", or the marked ones in {run.marked.folder}," if run.marked else ""
        raise CheckpointError(
            f"The training images in {run.data}{also} differ from those that {folder} was started with."
        )
    elif run.masks_fingerprint != masks_fingerprint(part_masks) or not run.fits_held_out_masks(held_out_masks):
        raise CheckpointError(
            f"The masks in {run.config.foreground} differ from those that {folder} was started with.\n"
            "Restore the right ones, or start a new run."
        )
    elif run.textures_fingerprint not in ("", textures.fingerprint):
        raise CheckpointError(
            f"The textures in {run.textures} differ from those that {folder} was started with.\n"
            "Restore the right ones, or start a new run."
        )
    others = None if masks is None else masks[len(frames.paths) :]
    data = TrainingData(
        cut_tiles(frames.frames, tiling),
        textures.frames,
        foreground_masks=tile_masks(frames.frames, part_masks, how, tiling),
        epoch=run.steps_in_epoch,
    )
    del frames  # with tiles, canvases are no longer needed
    unseen_data = dataclasses.replace(
        data,
        normals=cut_tiles(held_out.frames, tiling),
        foreground_masks=tile_masks(held_out.frames, others, how, tiling),
    )
    unseen = HeldOut(relative_names(held_out.paths, Path(run.data)), unseen_data, held_out.frames, tiling)
    with training_state.sole_trainer(folder) if is_main() else nullcontext():
        if checkpoint.is_finished(folder):
            console.say(f"{folder} was finished by another process.")
        else:
            with closing(Tracking(track, folder)) as tracking:
                _learn_and_train(method, run, folder, data, unseen, opened, device, workers, console, since, tracking)
    return folder


def _learn_and_train(
    method: Method,
    run: RunConfig,
    folder: Path,
    data: TrainingData,
    held_out: HeldOut,
    opened: Sequence[tuple[DonorConfig, Donor | Arrays]],
    device: str,
    workers: int | None,
    console: Console,
    since: float | None,
    tracking: Tracking,
) -> None:
    if is_main():
        run_config.save_run_config(folder, run)  # also of a resumed run: data that moved, a new learning rate
    workers = choose_workers(workers)
    if method.takes_donors:
        console.say(method.card.reporting_note if opened else method.card.without_donors)
    _introduce(run, method, console)
    with _telling_how_to_resume(run, folder, console):
        work = Work(
            len(data.normals),
            run.steps_in_epoch,
            tuple(len(donor.anomalies) for _, donor in opened if isinstance(donor, Donor)),
            bool(len(data.textures)),
        )
        position = training_state.load_position(folder)
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
            run_config.save_run_config(folder, run)  # before the first step: a resumed run keeps the precision
        optimise = partial(
            fit,
            seed=run.seed,
            device=device,
            mixed_precision=run.precisions,
            workers=workers,
            console=console,
            tracking=tracking,
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
            check_visible(method, data, run, folder, console)
            plots.draw_examples(draw_some(method, data, run.seed), folder / SYNTHETIC)
        stages, started = method.stages(data), time.monotonic()
        held_out = dataclasses.replace(held_out, data=dataclasses.replace(held_out.data, donors=learned))
        watch = start_watch(method, held_out, run.seed, stages, folder, console) if is_main() else None
        optimise(method, stages, folder, watch=watch)
    if is_main():
        remove_caches(folder)
        examples = partial(draw_some, method, data, run.seed)
        results = write_report(method, folder, held_out, examples, watch, started, console)
        if results is not None and results.threshold is not None:
            tracking.log_held_out(results.scores, results.threshold.value, sum(stage.steps for stage in stages))
        console.say(f"Trained: {folder}")


def _only(marked: MarkedConfig | None, paths: Sequence[Path]) -> MarkedConfig | None:
    """Return what is left of marked pictures when only some images could be read."""
    if marked is None:
        return None
    names = tuple(name for name, path in zip(marked.names, marked.paths) if path in paths)
    return dataclasses.replace(marked, names=names)


def _introduce(run: RunConfig, method: Method, console: Console) -> None:
    """Report what will be trained, and how it departs from the published training."""
    counted = f"all {run.epoch_images} good images" if run.epoch_images else f"the {run.trained_on} that it trains on"
    schedule = method.config.schedule(run.steps_in_epoch)
    epoch = f"; an epoch counts {counted}" if method.config.step_settings else ""
    console.say(f"{method.card.title}, preset '{run.preset}': {schedule}{epoch}")
    if run.config.backbone:
        console.say(f"Backbone {run.config.backbone}: weights of {run.weights or 'its publisher (download)'}")
    if run.departures:
        console.say("Not as published:")
        for words in run.departures:
            console.say(f"  {words}")


def _remedy(run: RunConfig, method: Method, estimate: Estimate) -> str:
    """Suggest something shorter where a training takes longer than a night."""
    if estimate.seconds <= NIGHT or run.budget:
        return ""
    presets = list(method.presets)
    smaller = presets[presets.index(run.preset) + 1 :] if run.preset in presets else []
    named = "".join(f"--preset {name}, " for name in smaller)
    return f".\nShorter: {named}--set steps=… (the schedule is scaled), or a GPU. It can be stopped and resumed"


@contextmanager
def _telling_how_to_resume(run: RunConfig, folder: Path, console: Console) -> Iterator[None]:
    """Say how to resume a training, whatever ended it."""
    go_on = f"edgead train --resume --out {folder}"
    try:
        yield
    except KeyboardInterrupt:
        console.say(f"Stopped. Resume with:  {go_on}")
        raise
    except OSError:
        console.say(f"Stopped by an error. When it is fixed, resume with:  {go_on}")
        raise
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, MemoryError) or should_reduce_batch_size(error)):
            raise
        sides = "x".join(map(str, run.config.size))
        raise DeviceError(
            f"Out of memory while training with batch_size {run.config.batch_size} at {sides}.\n"
            "Start a new run with a smaller one (--set batch_size=…, --set size=…) or a smaller --preset.\n"
            f"If another program used the memory, resume with:  {go_on}"
        ) from error
    except TrainingError as error:
        raise TrainingError(
            f"{error}\nResume with a lower one:  {go_on} --set {error.setting}=…", error.setting
        ) from error


def relative_names(paths: Sequence[Path], root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def choose_workers(wanted: int | None) -> int:
    """Return how many processes prepare examples; chosen by the machine where None."""
    cores = os.cpu_count() or 1
    return wanted if wanted is not None else 0 if cores <= 2 else min(8, cores - 1)
