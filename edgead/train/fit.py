"""The one training loop. Device placement, mixed precision and several processes are accelerate's.

Every random choice of a step is drawn from a generator seeded with (seed, stage, example), so a run that is killed
and resumed, or read by any number of workers, sees exactly the same examples.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset

from edgead.console import Console
from edgead.errors import ConfigError, DeviceError, TrainingError
from edgead.train.accelerator import make_accelerator
from edgead.train.checkpoint import save_weights
from edgead.train.method import Arrays, Batch, Stage, Trainable
from edgead.train.step_metrics import METRICS, StepMetrics, trim_metrics
from edgead.train.tracking import Tracking
from edgead.train.training_state import (
    STATE,
    State,
    drop_next_state,
    keep_next_state,
    load_state,
    restore_optimizer,
    save_next_state,
)

SAVE_SECONDS = 60.0
"""Time between two saved states: what a kill can cost."""
SAVE_SHARE = 0.02
"""Most of the time that may go into saving; where a state is large, it is saved less often."""
FAR = 2.0
"""A loss runs away that is above the stage's first one by more than this times (1 + its size): trainings that went well
were by 0.35 at most (docs/adr/0022); one that diverges passes 2 many steps before a number overflows."""
CALM = 100
"""Steps without such a loss until a state is kept again: with weights that are ruined it goes up and down."""


def fit(
    trainable: Trainable,
    stages: list[Stage],
    folder: Path,
    *,
    seed: int,
    device: str = "auto",
    mixed_precision: str | Mapping[str, str] = "no",
    workers: int = 0,
    console: Console | None = None,
    save_seconds: float = SAVE_SECONDS,
    tracking: Tracking | None = None,
    watch: Callable[[int, int], None] | None = None,
) -> None:
    """Run stages to the end and write the network's weights; resume where `folder` holds a saved state.

    Args:
        trainable: its network is trained in place.
        stages: from `Method.stages`, or a pretraining's.
        folder: the run's folder.
        seed: of every random choice.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        mixed_precision: ``"no"`` (float32), ``"bf16"`` or ``"fp16"``; or, by the stage's name, ``"no"`` or ``"bf16"``.
        workers: processes that prepare examples; 0 prepares them in this one. The result is the same.
        console: shows a progress bar with loss and remaining time.
        save_seconds: time between saved states.
        tracking: gets the figures of the steps.
        watch: is called after every step with the number of the stage and of its steps done, in the main process.

    Raises:
        TrainingError: a loss is not finite, or a stage ends with one that ran away; the last state with a good loss is
            kept.
        DeviceError: the device is not there, or the workers have too little shared memory.
        KeyboardInterrupt: after Ctrl-C or SIGTERM; the state is saved first.
    """
    accelerator = make_accelerator(device, mixed_precision, alternating=any(stage.alternating for stage in stages))
    folder.mkdir(parents=True, exist_ok=True)
    if accelerator.is_main_process:
        drop_next_state(folder)
    saved, console = load_state(folder, trainable), console or Console()
    tracking = tracking or Tracking((), folder)
    if saved:
        stage = stages[saved[0].stage]
        console.say(f"Resuming '{stage.name}' after step {saved[0].step} of {stage.steps}")
        trim_metrics(folder, [stage.name for stage in stages], saved[0])
    elif (folder / METRICS).exists():
        console.say(f"No saved state: '{stages[0].name}' starts from its first step")
        (folder / METRICS).unlink(missing_ok=True)
    for index, stage in enumerate(stages):
        # Channels-last convolutions are about 1.4 times faster on a CPU and fit tensor cores. Of a stage that is done,
        # too: what it trained is used by the next one.
        stage.module.to(device=accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if saved and index < saved[0].stage:
            continue
        processes = accelerator.num_processes
        if processes > 1 and stage.batch_size % (processes * (2 if stage.in_halves else 1)):
            even = " in even parts" if stage.in_halves else ""
            raise ConfigError(f"batch_size {stage.batch_size} cannot be shared by {processes} processes{even}.")
        resumed = saved if saved and index == saved[0].stage else None
        stage.prepare(accelerator.device, console.track(f"preparing {stage.name}"))
        if not stage.steps:  # a closed form; a stopped one starts again
            (folder / METRICS).touch()
            continue
        loop = StageLoop(trainable, stage, index, folder, accelerator, seed, resumed)
        loop.mixed_precision = precision_of(stage, mixed_precision)
        loop.watch = watch if accelerator.is_main_process else None
        loop.run(workers, console, save_seconds, tracking)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        save_weights(folder, trainable)


def precision_of(stage: Stage, mixed_precision: str | Mapping[str, str]) -> str:
    """Return the precision of one stage."""
    return mixed_precision if isinstance(mixed_precision, str) else mixed_precision.get(stage.name, "no")


class _Examples(Dataset[Arrays]):
    """Example number → example; the number seeds everything that is random in it."""

    def __init__(self, stage: Stage, seed: int, index: int) -> None:
        self.stage, self.seed, self.index = stage, seed, index

    def __getitem__(self, number: int) -> Arrays:
        return self.stage.sample(np.random.default_rng((self.seed, self.index, number)))


class _Batches:
    """The example numbers of each step from `first` on, this process's share of them."""

    def __init__(self, first: int, stage: Stage, rank: int, processes: int) -> None:
        self.steps, self.size = range(first, stage.steps), stage.batch_size
        self.rank, self.processes = rank, processes

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            yield list(range(step * self.size + self.rank, (step + 1) * self.size, self.processes))


class StageLoop:
    """Takes the steps of one stage, from where it was stopped, and saves them; see `fit` for the arguments."""

    def __init__(
        self,
        trainable: Trainable,
        stage: Stage,
        index: int,
        folder: Path,
        accelerator: Accelerator,
        seed: int,
        resumed: tuple[State, dict[str, torch.Tensor]] | None,
    ) -> None:
        self.trainable, self.stage, self.index, self.folder = trainable, stage, index, folder
        self.accelerator, self.seed, self.save_cost = accelerator, seed, 0.0
        self.mixed_precision = "no"
        self.watch: Callable[[int, int], None] | None = None
        owned = [stage.module.get_submodule(name).parameters() for name in stage.alternating or ("",)]
        self.optimizers = [stage.optimizer([weight for weight in own if weight.requires_grad]) for own in owned]
        self.first, self.first_loss = 0, math.nan
        self.calm, self.stopping = CALM, False
        if resumed:
            self.first, self.first_loss = resumed[0].step, resumed[0].first_loss
            for turn, optimizer in enumerate(self.optimizers):
                restore_optimizer(optimizer, turn, resumed[1])
            if accelerator.scaler is not None and resumed[0].scaler:
                accelerator.scaler.load_state_dict(resumed[0].scaler)
        self.module, *self.prepared = accelerator.prepare(stage.module, *self.optimizers)
        # After accelerate, which gives each optimiser new groups.
        self.groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        self.rates = [group["lr"] for group in self.groups]

    def run(self, workers: int, console: Console, save_seconds: float, tracking: Tracking) -> None:
        batches = _Batches(self.first, self.stage, self.accelerator.process_index, self.accelerator.num_processes)
        loader = DataLoader(
            _Examples(self.stage, self.seed, self.index),
            batch_sampler=batches,
            num_workers=workers if sys.platform == "linux" else 0,  # elsewhere a stage would have to be pickled
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
            worker_init_fn=_ignore_stop_requests,
            pin_memory=self.accelerator.device.type == "cuda",
        )
        self.module.train()
        saved_at = time.monotonic()
        with (
            _ending_workers(),
            _stop_requests() as stop,
            (self.folder / METRICS).open("a", buffering=1, encoding="utf-8") as metrics,
            console.bar(self.stage.name, len(batches)) as advance,
        ):
            for step, batch in enumerate(loader, start=self.first):
                due = time.monotonic() - saved_at >= max(save_seconds, self.save_cost / SAVE_SHARE)
                losses, saving = self.step(step, batch, stop.is_set(), due)
                if self.accelerator.is_main_process:
                    metrics.write(StepMetrics(self.stage.name, step + 1, losses).to_line())
                    tracking.log_step(self.stage.name, step + 1, losses, last=step + 1 == self.stage.steps)
                advance(f"loss {losses['total']:.4f}")
                if self.watch:
                    self.watch(self.index, step + 1)
                if saving:
                    self._save(step + 1)
                    saved_at = time.monotonic()
            self._save(self.stage.steps)
            self._settle(good=True)
            if self._agree(stop.is_set())[0]:
                raise KeyboardInterrupt

    def step(self, step: int, batch: Batch, stop: bool, due: bool) -> tuple[dict[str, float], bool]:
        """Take one step; return its losses, and whether all processes agree to save after it.

        What was saved before it counts only when its loss is known: the weights may be ruined long before a number
        overflows. So a request to stop is met one step later, and that step is forgotten.
        """
        seeds = np.random.SeedSequence((self.seed, self.index, step, self.accelerator.process_index))
        torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        factor = self.stage.schedule(step)
        for group, rate in zip(self.groups, self.rates):
            group["lr"] = rate * factor
        device = self.accelerator.device
        batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        values, sum_of_all = {}, 0.0
        for turn, optimizer in enumerate(self.prepared):
            with torch.autocast(device.type, torch.bfloat16, enabled=self.mixed_precision == "bf16"):
                losses = self.module(batch, *self.stage.alternating[turn : turn + 1])
            losses = {name: loss.float() for name, loss in losses.items()}
            total = torch.stack([loss for loss in losses.values() if loss.requires_grad]).sum()
            values.update({name: float(value.detach()) for name, value in losses.items()})
            sum_of_all += float(total.detach())
            broken, stopping, saving = self._agree(not math.isfinite(sum_of_all), stop, due)
            if broken:
                self._settle(good=False)
                raise self._not_finite(step, values)
            optimizer.zero_grad()
            self.accelerator.backward(total)
            optimizer.step()
        [far] = self._agree(self._is_far(sum_of_all))
        self.calm = 0 if far else self.calm + 1
        self._settle(good=self.calm >= CALM)
        if far and step + 1 == self.stage.steps:
            first = f"{self.first_loss:.3g} in the first"
            raise self._diverged(f"The loss ran away, to {sum_of_all:.3g} in the last step", first)
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = stopping
        return {**values, "total": sum_of_all, "learning_rate": self.rates[0] * factor}, stopping or saving

    def _is_far(self, loss: float) -> bool:
        """Tell whether the sum of all losses runs away."""
        if math.isnan(self.first_loss):
            self.first_loss = loss
        return loss > self.first_loss + FAR * (1 + abs(self.first_loss))

    def _settle(self, good: bool) -> None:
        """Let what was saved last replace the state before it, if the weights in it give a good loss."""
        if self.accelerator.is_main_process:
            (keep_next_state if good else drop_next_state)(self.folder)

    def _not_finite(self, step: int, values: dict[str, float]) -> TrainingError:
        broken = ", ".join(name for name, value in values.items() if not math.isfinite(value))
        return self._diverged(f"The loss is not finite at step {step + 1}", broken or "the sum, or in another process")

    def _diverged(self, what: str, where: str) -> TrainingError:
        state = self.folder / STATE
        kept = f"The last saved state, {state}, is kept." if state.is_file() else "No state had been saved yet."
        overflow = ", or fp16 overflow (--mixed-precision bf16)" if self.accelerator.mixed_precision == "fp16" else ""
        return TrainingError(
            f"{what} of stage '{self.stage.name}' ({where}).\n"
            f"Likely cause: a {self.stage.rate} that is too high{overflow}. {kept}",
            self.stage.rate,
        )

    def _agree(self, *flags: bool) -> list[bool]:
        """Combine each process's flags: what one asks for, all do, at the same step, or they would wait for ever."""
        if self.accelerator.num_processes == 1:
            return list(flags)
        asked = torch.tensor(flags, dtype=torch.float32, device=self.accelerator.device)
        return [bool(flag) for flag in self.accelerator.reduce(asked, reduction="sum") > 0]

    def _save(self, step: int) -> None:
        started = time.monotonic()
        weights = self.trainable.network.state_dict().items()
        if broken := [name for name, value in weights if not value.isfinite().all()]:  # a finite loss may do that
            raise self._diverged(f"The weights are not finite after step {step}", f"{len(broken)}, first {broken[0]}")
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            scaler: dict[str, float] = {} if self.accelerator.scaler is None else self.accelerator.scaler.state_dict()
            state = State(self.index, step, scaler, self.first_loss)
            save_next_state(self.folder, self.trainable, self.optimizers, state)
        self.save_cost = time.monotonic() - started


def _ignore_stop_requests(worker: int) -> None:
    """Ctrl-C and SIGTERM often go to all processes of a group; only the one that trains is to answer."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _ending_workers() -> Iterator[None]:
    """Let the processes that prepare examples end when the training fails.

    They end with the loader, which the frames of their error hold; at its own end Python would wait for them for ever.
    """
    try:
        yield
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)
        if isinstance(error, RuntimeError) and "shared memory" in str(error):  # a container has 64 MB of it
            raise DeviceError(
                "The processes that prepare examples find no room in /dev/shm.\n"
                "Give it more (docker run --shm-size=1g), or train with --workers 0."
            ) from error
        raise


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into an event: the state is saved first. The second stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}

    def request(number: int, _: object) -> None:
        event.set()
        for each in signals:
            signal.signal(each, signal.default_int_handler)

    for number in signals:
        signal.signal(number, request)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
