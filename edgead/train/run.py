"""One run, trained or resumed to its end."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from accelerate.utils.memory import should_reduce_batch_size

from edgead import schema
from edgead.console import Console
from edgead.errors import DeviceError, TrainingError
from edgead.files import new_folder
from edgead.machine import loading_processes
from edgead.schema import Within
from edgead.settings import WORKERS_LIMIT
from edgead.text import typed
from edgead.train import checkpoint, plots, run_config, training_state
from edgead.train.accelerator import is_main
from edgead.train.budget import scale_run
from edgead.train.configuration import published_schedule
from edgead.train.donors import copy_transferred, pretrain
from edgead.train.estimate import NIGHT, Estimate, Work, measure
from edgead.train.feature_cache import FOLDER, remove_caches
from edgead.train.fit import fit
from edgead.train.materials import check_visible, draw_some
from edgead.train.method import Arrays, Donor, Method, TrainingData
from edgead.train.recipe import choose_precisions
from edgead.train.report import HeldOut, start_watch, write_report
from edgead.train.run_config import DonorConfig, RunConfig
from edgead.train.run_images import check_unchanged, read_images, with_depth_range, with_fingerprints
from edgead.train.tracking import Tracking

SYNTHETIC = "synthetic.png"
Workers = Annotated[int, Within(0, WORKERS_LIMIT)]
"""Processes that prepare examples."""


@dataclass(frozen=True)
class Execution:
    """Where a run is trained, and who sees its progress.

    Attributes:
        device: see `edgead.train.fit.fit`.
        workers: processes that prepare examples; chosen by the machine where None.
        console: shows progress.
        track: names of experiment trackers.
        since: of `time.monotonic`, when the training was asked for; when its steps are measured where None.
    """

    device: str
    workers: Workers | None
    console: Console
    track: Sequence[str] = ()
    since: float | None = None

    def __post_init__(self) -> None:
        schema.check(self)


def train_run(run: RunConfig, folder: Path, execution: Execution, named: bool) -> Path:
    """Train a run to its end, from its first step or from the last saved state.

    Args:
        run: its configuration; without fingerprints for a new run.
        folder: of the run. A new run takes another one beside it if it exists and `named` is false.
        execution: where it is trained.
        named: whether the user chose the folder.

    Returns:
        The folder of the run.

    Raises:
        EdgeadError: see `edgead.errors`.
    """
    method, console = checkpoint.build_method(run), execution.console
    if run.budget and not run.published_steps:
        method.config = published_schedule(method)
    if not (folder / training_state.STATE).is_file():  # a saved state holds the backbone too
        method.load_pretrained(Path(run.weights) if run.weights else None)
    if run.config.reads_depth and run.depth_range is None:
        run = with_depth_range(run, console)
    images = read_images(run, folder, console)
    if run.fingerprint:
        check_unchanged(run, images, folder)
    else:
        run = with_fingerprints(run, method, images)
        if is_main() and not named:
            folder = new_folder(folder)
    (data, held_out), donors = images.cut(run), images.donors
    del images  # with tiles, canvases are no longer needed
    with training_state.sole_trainer(folder) if is_main() else nullcontext():
        if checkpoint.is_finished(folder):
            console.say(f"{folder} was finished by another process.")
        else:
            with closing(Tracking(execution.track, folder)) as tracking:
                _learn_and_train(method, run, folder, data, held_out, donors, execution, tracking)
    return folder


def _learn_and_train(
    method: Method,
    run: RunConfig,
    folder: Path,
    data: TrainingData,
    held_out: HeldOut,
    opened: Sequence[tuple[DonorConfig, Donor | Arrays]],
    execution: Execution,
    tracking: Tracking,
) -> None:
    console = execution.console
    if is_main():
        run_config.save_run_config(folder, run)  # also of a resumed run: data that moved, a new learning rate
    if method.takes_donors:
        console.say(method.card.reporting_note if opened else method.card.without_donors)
    _introduce(run, method, console)
    with _telling_how_to_resume(method, run, folder, console):
        run = _estimate(method, run, folder, data, opened, execution)
        if is_main():
            run_config.save_run_config(folder, run)  # before the first step: a resumed run keeps the precision
        optimise = partial(
            fit,
            seed=run.seed,
            device=execution.device,
            mixed_precision=run.precisions,
            workers=choose_workers(execution.workers),
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


def _estimate(
    method: Method,
    run: RunConfig,
    folder: Path,
    data: TrainingData,
    opened: Sequence[tuple[DonorConfig, Donor | Arrays]],
    execution: Execution,
) -> RunConfig:
    """Measure a few steps, say how long the training takes, and return the run as it follows from them.

    A schedule with a budget is scaled to it, and the precision ``"auto"`` is chosen.
    """
    work = Work(
        len(data.normals),
        run.steps_in_epoch,
        tuple(len(donor.anomalies) for _, donor in opened if isinstance(donor, Donor)),
        bool(len(data.textures)),
    )
    position, console = training_state.load_position(folder), execution.console
    workers, since = choose_workers(execution.workers), execution.since
    estimate = measure(method, work, execution.device, run.precisions, workers, console, position, data.normals, since)
    if run.budget and not run.published_steps:
        run, estimate = scale_run(run, method, estimate, bool(work.defects))
        console.say(f"--budget {run.budget}: {method.config.schedule(run.steps_in_epoch)} of {run.published_steps:,}")
    console.say(f"On {estimate.device}: {estimate.describe()}{_remedy(run, method, estimate)}")
    if run.precisions == "auto":
        run = choose_precisions(run, estimate, console)
    if estimate.device not in run.devices[-1:]:
        run = dataclasses.replace(run, devices=(*run.devices, estimate.device))
    return run


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
    return f".\nTo shorten it: {named}--set steps=… (the schedule is scaled), or a GPU. It can be stopped and resumed"


@contextmanager
def _telling_how_to_resume(method: Method, run: RunConfig, folder: Path, console: Console) -> Iterator[None]:
    """Say how to resume a training, whatever ended it."""
    go_on = f"{method.resume_command()} --out {typed(folder)}"
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


def choose_workers(wanted: int | None) -> int:
    """Return how many processes prepare examples; chosen by the machine where `wanted` is None."""
    return loading_processes(os.cpu_count() or 1) if wanted is None else wanted
