"""How long a training takes on this machine: a few of its steps are taken on a copy, with noise for images."""

from __future__ import annotations

import copy
import dataclasses
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from accelerate.utils.memory import should_reduce_batch_size
from numpy.typing import NDArray
from torch.utils.data import default_collate

from edgead.console import Console
from edgead.datasets import Category
from edgead.errors import TrainingError
from edgead.train.accelerator import make_accelerator
from edgead.train.configuration import configure, published_schedule
from edgead.train.fit import StageLoop, precision_of
from edgead.train.method import Batch, Donor, Method, Stage, Trainable, TrainingData
from edgead.train.method_config import steps_in_epoch
from edgead.train.mixed_precision import Comparison, compare, has_bfloat16

IMAGES = 4
"""Noise images that stand for the good ones; what takes time for each image is scaled to their number."""
DRAWS = 8
"""Examples made to time one."""
SMALL_BATCH = 2
"""Images in the first steps; where they are slow, a whole batch is not tried. Batch norms need two."""
QUICK, SLOW = 2.0, 15.0
"""Seconds: a step is repeated for its median up to the first, and not tried at all where it would exceed the second."""
NIGHT = 12 * 3600.0
"""Seconds that a training with a preset chosen here may take: a night."""
LEAST_SHARE = 0.25
"""Of the published schedule that must fit into a budget for a preset to be chosen here."""


@dataclass(frozen=True)
class Work:
    """How much there is to do, beside a method's configuration.

    Attributes:
        images: good images that are trained on.
        epoch: optimiser steps in an epoch.
        defects: defective images of each donor that is to be learned from.
        textures: whether pictures fill synthetic anomalies.
    """

    images: int
    epoch: Fraction
    defects: tuple[int, ...] = ()
    textures: bool = False


@dataclass(frozen=True)
class Estimate:
    """What a training takes here.

    Attributes:
        seconds: from its first step to its last.
        steps: optimiser steps, of all stages.
        device: what it was measured on.
        learning: those of the seconds that go into learning from donors.
        preparing: those of the seconds that the number of steps does not change.
        elapsed: seconds that had gone by, since the training was asked for, when this was known.
        precisions: stage's name ↦ ``"no"`` or ``"bf16"``, chosen for ``"auto"``; ``"no"`` where one is absent.
        why: what these were chosen by, in words; empty where there was nothing to choose.
    """

    seconds: float
    steps: int
    device: str
    learning: float = 0.0
    preparing: float = 0.0
    elapsed: float = 0.0
    precisions: Mapping[str, str] = field(default_factory=dict)
    why: str = ""

    def describe(self, now: datetime | None = None) -> str:
        """Describe how long, for how many steps, and until when."""
        try:
            end = f"{(now or datetime.now()) + timedelta(seconds=self.seconds):%Y-%m-%d %H:%M}"
        except OverflowError:
            end = "after the year 9999"
        steps = f" ({self.steps:,} steps, {self.seconds / self.steps:.2g} s each)" if self.steps else ""
        return f"about {describe_seconds(self.seconds)}{steps}, until {end}"


def describe_seconds(seconds: float) -> str:
    """Describe roughly how long that is."""
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if days >= 3:
        return f"{days:.0f} days"
    if hours >= 3:
        return f"{hours:.0f} hours"
    return f"{minutes:.0f} minutes" if minutes >= 2 else f"{seconds:.0f} seconds"


def choose_preset(
    method_class: type[Method],
    settings: Sequence[str],
    categories: Sequence[Category],
    device: str,
    mixed_precision: str,
    workers: int,
    defects: tuple[int, ...],
    textures: bool,
    console: Console,
    budget: float | None = None,
) -> tuple[str, str]:
    """Return the largest preset that trains here in a night, else the smallest; and why, in words.

    With a budget it is the largest of which `LEAST_SHARE` of the published schedule fits.

    Args:
        method_class: the method.
        settings: ``NAME=VALUE`` that each preset is changed by.
        categories: all that are to be trained on.
        device, mixed_precision, workers: see `edgead.train.fit.fit`; ``"auto"`` measures both.
        defects, textures: see `Work`.
        console: shows what is measured.
        budget: seconds for each category.
    """
    limit = NIGHT if budget is None else budget / LEAST_SHARE
    allowed = f"takes at most {describe_seconds(NIGHT)}"
    if budget is not None:
        categories = categories[:1]
        allowed = f"has {LEAST_SHARE:.0%} of its published schedule in {describe_seconds(budget)}"
    tried = []
    total = sum(len(category.normals) for category in categories)
    for preset in method_class.presets:
        try:
            with torch.random.fork_rng(devices=[]):
                method = method_class(configure(method_class, preset, settings))
                if budget is not None:
                    method.config = published_schedule(method)
                config = method.config
                epochs = [steps_in_epoch(len(category.normals), config.batch_size) for category in categories]
                work = Work(total, epochs[0], defects, textures)
                first = measure(method, work, device, mixed_precision, workers, console)
        except (RuntimeError, MemoryError) as error:
            if not (isinstance(error, MemoryError) or should_reduce_batch_size(error)):
                raise
            tried.append(f"{preset} needs more memory than there is")
            continue
        one = config.total_steps(epochs[0])
        runs = sum(config.total_steps(epoch) for epoch in epochs) / one if one else 1.0  # the images are all counted
        seconds = first.learning + (first.seconds - first.learning) * runs
        tried.append(f"{preset} takes about {describe_seconds(seconds)} here")
        if seconds <= limit:
            return preset, f"{'; '.join(tried)}. Without --preset, edgead takes the largest that {allowed}"
    return preset, f"{'; '.join(tried)}. None {allowed}, so the smallest is taken"


def measure(
    method: Method,
    work: Work,
    device: str,
    mixed_precision: str | Mapping[str, str],
    workers: int,
    console: Console,
    done: tuple[int, int] = (0, 0),
    pictures: NDArray[np.uint8] | None = None,
    since: float | None = None,
) -> Estimate:
    """Take a few steps of a method's training, and of its pretrainings, on a copy, and tell how long all of them take.

    Args:
        method: configured; it is not changed.
        work: how much there is to do.
        device, workers: see `edgead.train.fit.fit`.
        mixed_precision: the same; with ``"auto"`` each stage is measured in float32 and in bfloat16.
        console: shows what is done.
        done: number of the stage where a stopped training is resumed, and its steps that are done.
        pictures: ``[N, H, W, C] uint8``, some of the good images; noise where None.
        since: of `time.monotonic`, when the training was asked for; now where None.
    """
    since = time.monotonic() if since is None else since
    if busy := _busy():
        console.say(busy)
    with console.clock("measuring a few steps"), torch.random.fork_rng(devices=[]):
        start = "no" if mixed_precision == "auto" else mixed_precision
        accelerator = make_accelerator(device, start, alternating=bool(work.defects))
        reason = _no_choice(method, accelerator) if mixed_precision == "auto" else ""
        chosen = "no" if reason else mixed_precision
        estimate = _Measurement(method, work, accelerator, workers, chosen, pictures).run(done)
        estimate = dataclasses.replace(estimate, why=reason or estimate.why, elapsed=time.monotonic() - since)
        if accelerator.num_processes > 1:
            [estimate] = broadcast_object_list([estimate])  # what is chosen must be the same in all
    accelerator.free_memory()
    gc.collect()
    if accelerator.device.type == "cuda":
        torch.cuda.empty_cache()
    return estimate


def _no_choice(method: Method, accelerator: Accelerator) -> str:
    """Return why bfloat16 is not tried; empty where it is."""
    if not method.config.step_settings:
        return "nothing is optimised"
    if accelerator.device.type != "cpu":
        return "bf16 is not tried automatically on a GPU"
    if method.float32_only:
        return method.float32_only
    return "" if has_bfloat16() else "this processor has no bfloat16 instructions"


def _busy() -> str:
    """Return a warning where other programs slow down the measurement."""
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return (
        f"This machine is busy (load {load:.1f} on {cores} cores); at rest it trains faster"
        if load > 1.5 * cores
        else ""
    )


def describe_device(device: torch.device) -> str:
    """Name a device, a GPU with its model."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


class _Measurement:
    """Takes the steps that `measure` asks for; see there for the arguments."""

    def __init__(
        self,
        method: Method,
        work: Work,
        accelerator: Accelerator,
        workers: int,
        mixed_precision: str | Mapping[str, str],
        pictures: NDArray[np.uint8] | None,
    ) -> None:
        self.method, self.work, self.accelerator, self.workers = copy.deepcopy(method), work, accelerator, workers
        self.mixed_precision, self.pictures = mixed_precision, pictures
        self.compared: dict[str, Comparison] = {}
        self.preparing = 0.0

    def run(self, done: tuple[int, int]) -> Estimate:
        data = few_images(self.method, self.work, self.pictures)
        seconds, steps = 0.0, 0
        for count in self.work.defects:
            blank = np.zeros((count, *data.normals.shape[1:3], 3), np.uint8)
            pretraining = self.method.pretraining(Donor("noise", data.normals[..., :3], blank))
            for stage in pretraining.stages:
                seconds += self._seconds(pretraining, stage, stage.steps, 1)
                steps += stage.steps
        learning = seconds
        for stage in self.method.stages(data)[done[0] :]:
            left = stage.steps - done[1]
            done = (0, 0)
            seconds += self._seconds(self.method, stage, left, self.work.images / len(data.normals))
            steps += left
        found = Estimate(seconds, steps, describe_device(self.accelerator.device), learning, self.preparing)
        if self.mixed_precision != "auto":
            return found
        chosen = {name: comparison.choice for name, comparison in self.compared.items()}
        why = "; ".join(f"'{name}': {comparison.describe()}" for name, comparison in self.compared.items())
        return dataclasses.replace(found, precisions=chosen, why=why)

    def _seconds(self, trainable: Trainable, stage: Stage, steps: int, images: float) -> float:
        """Return what a stage takes: its preparation, in proportion to the images, and its steps."""
        stage.module.to(device=self.accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if stage.rehearse:
            prepared = stage.rehearse()
        else:
            start = time.monotonic()
            stage.prepare(self.accelerator.device, lambda items: items)
            prepared = (time.monotonic() - start) * images
        self.preparing += prepared
        if not stage.steps:
            return prepared
        drawing = _drawing_seconds(stage) * stage.batch_size / self.accelerator.num_processes
        still = dataclasses.replace(stage, schedule=lambda step: 0.0, steps=stage.steps + 1)  # nothing can diverge
        with tempfile.TemporaryDirectory() as folder:
            loop = StageLoop(trainable, still, 0, Path(folder), self.accelerator, 0, None)
            loop.module.train()
            computing = self._computing(loop, stage)
        each = computing + drawing if self.workers == 0 else max(computing, drawing / self.workers)
        return float(prepared + each * steps)

    def _computing(self, loop: StageLoop, stage: Stage) -> float:
        """Return the seconds of one step, without drawing its examples."""
        steps = Steps(loop, stage, self.accelerator)
        if self.mixed_precision != "auto":
            loop.mixed_precision = precision_of(stage, self.mixed_precision)
            return steps.seconds()
        slow = steps.seconds()
        comparison = self.compared.get(stage.name)  # what several donors have in common is compared once
        if comparison is None:
            comparison = self.compared[stage.name] = compare(steps.take, self.accelerator.num_processes > 1)
        return slow / comparison.speedup if comparison.choice == "bf16" else slow


def few_images(method: Method, work: Work, pictures: NDArray[np.uint8] | None = None) -> TrainingData:
    """Return a few images, or noise, for all the good ones, and noise for textures."""
    size, rng = method.config.size, np.random.default_rng(0)
    noise = rng.integers(1, 256, (IMAGES, *size, method.config.channels), dtype=np.uint8)
    normals = noise if pictures is None else pictures[:IMAGES]
    textures = noise[..., :3] if work.textures else np.empty((0, *size, 3), np.uint8)
    # Learned defects are not at hand, and cost what random ones cost.
    return TrainingData(normals, textures, foreground_masks=np.ones((len(normals), *size), np.bool_), epoch=work.epoch)


def _drawing_seconds(stage: Stage) -> float:
    """Return the seconds in which one example is made, on average."""
    stage.sample(np.random.default_rng(0))  # imports what it needs
    start = time.monotonic()
    for number in range(DRAWS):
        stage.sample(np.random.default_rng(number))
    return (time.monotonic() - start) / DRAWS


class Steps:
    """Steps of one stage that leave the weights as they are."""

    def __init__(self, loop: StageLoop, stage: Stage, accelerator: Accelerator) -> None:
        self.loop, self.stage, self.accelerator = loop, stage, accelerator
        self.whole: int = max(1, stage.batch_size // accelerator.num_processes)
        if not stage.sample(np.random.default_rng(0)):
            self.whole = 1  # every step takes all there is
        self.small = self.size = min(self.whole, SMALL_BATCH)

    def seconds(self) -> float:
        """Return the seconds of a step in the loop's precision; later steps are as large as what was tried last."""
        if self.accelerator.num_processes == 1:  # several must take the same steps: they wait for each other
            first = self._time(self.small)  # slow because it is the first
            scaled = min(first, self._time(self.small) if first < SLOW else first) * self.whole / self.small
            if scaled > SLOW:
                return scaled
            self.size = self.whole
            if (once := self._time(self.whole)) > QUICK:
                return once
        self.size = self.whole
        return float(statistics.median(self._time(self.whole) for _ in range(3)))

    def _time(self, size: int) -> float:
        batch = self._batch(size, 0)
        start = time.monotonic()
        self._take(batch)
        return time.monotonic() - start

    def take(self, precision: str, number: int) -> dict[str, float]:
        """Take a step on the batch of that number; return its losses, which are no numbers where it failed."""
        before, self.loop.mixed_precision = self.loop.mixed_precision, precision
        try:
            return self._take(self._batch(self.size, number))
        except TrainingError:
            return {}
        finally:
            self.loop.mixed_precision = before

    def _batch(self, size: int, number: int) -> Batch:
        numbers = range(number * size, (number + 1) * size)
        batch: Batch = default_collate([self.stage.sample(np.random.default_rng(each)) for each in numbers])
        return batch

    def _take(self, batch: Batch) -> dict[str, float]:
        losses, _ = self.loop.step(0, batch, stop=False, due=False)
        if self.accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        return {name: value for name, value in losses.items() if name not in ("total", "learning_rate")}
