"""How long a training takes on this machine: a few of its steps are taken on a copy, with noise for images."""

from __future__ import annotations

import copy
import dataclasses
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils.memory import should_reduce_batch_size
from torch.utils.data import default_collate

from edgead.console import Console
from edgead.datasets import Category
from edgead.train.fit import StageLoop, make_accelerator
from edgead.train.method import Method, Source, Stage, Trained, TrainingData, configure, steps_in_epoch

IMAGES = 4
"""Noise images that stand for the good ones; what takes time for each image is scaled to their number."""
DRAWS = 8
"""Examples made to time one."""
SMALL_BATCH = 2
"""Images in the first steps; where they are slow, a whole batch is not tried. Batch norms need two."""
QUICK, SLOW = 2.0, 15.0
"""Seconds: a step is repeated for its median up to the first, and not tried at all where it would exceed the second."""
NIGHT = 12 * 3600.0
"""Seconds that a training may take that nobody has asked for: a night."""


@dataclass(frozen=True)
class Work:
    """How much there is to do, beside a method's configuration.

    Attributes:
        images: good images that are trained on.
        epoch: optimiser steps in an epoch.
        defects: defective images of each source that is to be learned from.
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
        learning: those of the seconds that go into learning from sources.
    """

    seconds: float
    steps: int
    device: str
    learning: float = 0.0

    def describe(self, now: datetime | None = None) -> str:
        """Say how long, for how many steps, and until when."""
        end = (now or datetime.now()) + timedelta(seconds=self.seconds)
        each = f", {self.seconds / self.steps:.2g} s each" if self.steps else ""
        return f"about {describe_seconds(self.seconds)} ({self.steps:,} steps{each}), until {end:%Y-%m-%d %H:%M}"


def describe_seconds(seconds: float) -> str:
    """Say roughly how long that is."""
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if days >= 3:
        return f"{days:.0f} days"
    if hours >= 3:
        return f"{hours:.0f} hours"
    return f"{minutes:.0f} minutes" if minutes >= 2 else f"{seconds:.0f} seconds"


def choose_preset(
    kind: type[Method],
    settings: Sequence[str],
    categories: Sequence[Category],
    device: str,
    precision: str,
    workers: int,
    defects: tuple[int, ...],
    textures: bool,
    console: Console,
) -> tuple[str, str]:
    """Return the largest preset that trains here in a night, else the smallest; and why, in words.

    Args:
        kind: the method.
        settings: ``NAME=VALUE`` that each preset is changed by.
        categories: all that are to be trained on.
        device, precision, workers: see `edgead.train.fit.fit`.
        defects, textures: see `Work`.
        console: shows what is measured.
    """
    tried, allowed = [], describe_seconds(NIGHT)
    total = sum(len(category.normals) for category in categories)
    for preset in kind.presets:
        config = configure(kind, preset, settings)
        epochs = [steps_in_epoch(len(category.normals), config.batch_size) for category in categories]
        work = Work(total, epochs[0], defects, textures)
        try:
            with torch.random.fork_rng(devices=[]):
                first = measure(kind(config), work, device, precision, workers, console)
        except (RuntimeError, MemoryError) as error:
            if not (isinstance(error, MemoryError) or should_reduce_batch_size(error)):
                raise
            tried.append(f"{preset} needs more memory than there is")
            continue
        runs = sum(config.total_steps(epoch) for epoch in epochs) / config.total_steps(epochs[0])
        seconds = first.learning + (first.seconds - first.learning) * runs
        tried.append(f"{preset} takes about {describe_seconds(seconds)} here")
        if seconds <= NIGHT:
            return preset, f"{'; '.join(tried)}. Without --preset the largest is taken that takes at most {allowed}"
    return preset, f"{'; '.join(tried)}. None takes at most {allowed}, so the smallest is taken"


def measure(
    method: Method,
    work: Work,
    device: str,
    precision: str,
    workers: int,
    console: Console,
    done: tuple[int, int] = (0, 0),
) -> Estimate:
    """Take a few steps of a method's training, and of its lessons, on a copy, and tell how long all of them take.

    Args:
        method: configured; it is not changed.
        work: how much there is to do.
        device, precision, workers: see `edgead.train.fit.fit`.
        console: shows what is done.
        done: number of the stage where a stopped training goes on, and its steps that are done.
    """
    if busy := _busy():
        console.say(busy)
    with console.clock("measuring a few steps"), torch.random.fork_rng(devices=[]):
        accelerator = make_accelerator(device, precision, turns=bool(work.defects))
        estimate = _measure(copy.deepcopy(method), work, accelerator, workers, done)
    accelerator.free_memory()
    gc.collect()
    if accelerator.device.type == "cuda":
        torch.cuda.empty_cache()
    return estimate


def _busy() -> str:
    """Say that other programs slow down what is measured, where they do."""
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return f"This machine is busy (load {load:.1f} on {cores} cores): idle it is faster" if load > 1.5 * cores else ""


def describe_device(device: torch.device) -> str:
    """Name a device, a GPU with its model."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def _measure(method: Method, work: Work, accelerator: Accelerator, workers: int, done: tuple[int, int]) -> Estimate:
    data = _noise(method, work)
    seconds, steps = 0.0, 0
    for count in work.defects:
        blank = np.zeros((count, *data.normals.shape[1:3], 3), np.uint8)
        lesson = method.lesson(Source("noise", data.normals[..., :3], blank))
        for stage in lesson.stages:
            seconds += _seconds(lesson, stage, stage.steps, accelerator, workers, 1)
            steps += stage.steps
    learning = seconds
    for stage in method.stages(data)[done[0] :]:
        left = stage.steps - done[1]
        done = (0, 0)
        seconds += _seconds(method, stage, left, accelerator, workers, work.images / IMAGES)
        steps += left
    return Estimate(seconds, steps, describe_device(accelerator.device), learning)


def _noise(method: Method, work: Work) -> TrainingData:
    size, rng = method.config.size, np.random.default_rng(0)
    pictures = rng.integers(1, 256, (IMAGES, *size, method.config.channels), dtype=np.uint8)
    textures = pictures[..., :3] if work.textures else np.empty((0, *size, 3), np.uint8)
    # Learned defects are not at hand, and cost what random ones cost.
    return TrainingData(pictures, textures, parts=np.ones((IMAGES, *size), np.bool_), epoch=work.epoch)


def _seconds(
    trained: Trained, stage: Stage, steps: int, accelerator: Accelerator, workers: int, images: float
) -> float:
    """Return what a stage takes: its preparation, in proportion to the images, and its steps."""
    stage.module.to(device=accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    start = time.monotonic()
    stage.prepare(accelerator.device, lambda items: items)
    prepared = (time.monotonic() - start) * images
    drawing = _drawing_seconds(stage) * stage.batch_size / accelerator.num_processes
    still = dataclasses.replace(stage, schedule=lambda step: 0.0, steps=stage.steps + 1)  # nothing can diverge
    with tempfile.TemporaryDirectory() as folder:
        loop = StageLoop(trained, still, 0, Path(folder), accelerator, 0, None)
        loop.module.train()
        computing = _step_seconds(loop, stage, accelerator)
    each = computing + drawing if workers == 0 else max(computing, drawing / workers)
    return float(prepared + each * steps)


def _drawing_seconds(stage: Stage) -> float:
    """Return the seconds in which one example is made, on average."""
    stage.sample(np.random.default_rng(0))  # imports what it needs
    start = time.monotonic()
    for number in range(DRAWS):
        stage.sample(np.random.default_rng(number))
    return (time.monotonic() - start) / DRAWS


def _step_seconds(loop: StageLoop, stage: Stage, accelerator: Accelerator) -> float:
    """Return the seconds of one step, without drawing its examples."""
    whole: int = max(1, stage.batch_size // accelerator.num_processes)
    if not stage.sample(np.random.default_rng(0)):
        whole = 1  # every step takes all there is
    small = min(whole, SMALL_BATCH)

    def seconds(size: int) -> float:
        batch = default_collate([stage.sample(np.random.default_rng(number)) for number in range(size)])
        start = time.monotonic()
        loop.step(0, batch, stop=False, due=False)
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        return time.monotonic() - start

    if accelerator.num_processes == 1:  # several must take the same steps: they wait for each other
        first = seconds(small)  # slow because it is the first
        scaled = min(first, seconds(small) if first < SLOW else first) * whole / small
        if scaled > SLOW:
            return scaled
        if (once := seconds(whole)) > QUICK:
            return once
    return float(statistics.median(seconds(whole) for _ in range(3)))
