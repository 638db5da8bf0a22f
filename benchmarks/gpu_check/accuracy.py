"""Step accuracy: the accuracy that DRAEM `edge` reaches within a time budget, trained, exported and benchmarked.

The schedule is the published one, scaled to the budget by `edgead train --budget`. No test label is read before the
training is over, and nothing is chosen by one.

The weights are kept in files that can be exported elsewhere (restore.py). Large convolutions are rounded to float16 for
that; training in bf16 rounds them more coarsely in every step. The rounded weights replace those of the run before it
is exported, so the figures belong to the weights that are kept.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from common import TINY, WORK, Options, attempt
from safetensors.torch import save_file

from edgead.benchmark import benchmark
from edgead.console import Console
from edgead.export import export
from edgead.train import train
from edgead.train.checkpoint import load_method, save_weights
from edgead.train.run import choose_workers
from edgead.train.run_config import CONFIG, load_run_config
from edgead.train.step_metrics import read_metrics

PIECE = 15 << 20
"""Bytes of weights in one file, at most."""
LARGE = 10_000
"""Values from which on a convolution's weights are kept in float16."""
SHOWN_LOSSES = 40
TIMED_ROUNDS = 2
"""Of the benchmark's latency, which is the CPU's here and is not reported."""


class StepClock(Console):
    """Notes when each training step ends; messages go to stderr."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[str], None]]:
        yield lambda _: self.times.append(time.monotonic()) if label == "train" else None

    def steps_per_second(self) -> float:
        """Measure over the second half, since the first examples were prepared before the clock started."""
        half = self.times[min(len(self.times) // 2, len(self.times) - 2) :]
        return (len(half) - 1) / (half[-1] - half[0])


def accuracy(options: Options) -> None:
    """Train for the given time, keep the weights, export, evaluate."""
    work = WORK / "accuracy"
    shutil.rmtree(work, ignore_errors=True)
    run, bundle = work / "run", work / "draem.edgead"

    def exported() -> dict[str, Any]:
        return {"bundle": export(run, out=bundle, console=StepClock()).manifest.name}

    if attempt("training", lambda: train_draem(options, run)):
        attempt("weights kept", lambda: keep_weights(run, options.out))
        if attempt("export", exported):
            attempt("evaluation", lambda: evaluate(bundle, options))


def train_draem(options: Options, folder: Path) -> dict[str, Any]:
    """Train within the budget; report how much of the published schedule that was."""
    half = not options.cpu and torch.cuda.get_device_capability() >= (8, 0)
    clock, started = StepClock(), time.monotonic()
    train(
        "draem",
        options.images(),
        preset="nano" if options.cpu else "edge",
        settings=(f"batch_size={options.batch}", *(TINY if options.cpu else ())),
        out=folder,
        device=options.device,
        mixed_precision="bf16" if half else "no",
        budget=f"{options.seconds:g}s",
        workers=choose_workers(None),
        textures=options.textures,
        console=clock,
    )
    run, lines = load_run_config(folder), read_metrics(folder)
    assert run.published_steps is not None
    rate, every = clock.steps_per_second(), math.ceil(len(lines) / SHOWN_LOSSES)
    return {
        "gpu": None if options.cpu else torch.cuda.get_device_name(),
        "category": run.category,
        "preset": run.preset,
        "mixed_precision": run.mixed_precision,
        "batch": options.batch,
        "images": {"training": len(run.normals), "held out for the threshold": len(run.held_out)},
        "departures": run.departures,
        "steps": len(lines),
        "published_steps": run.published_steps,
        "share_of_published_steps": round(len(lines) / run.published_steps, 4),
        "steps_per_second": round(rate, 2),
        "images_per_second": round(rate * options.batch, 1),
        "published_schedule_takes_seconds": round(run.published_steps / rate),
        "training_seconds": round(time.monotonic() - started, 1),
        "gpu_memory_gib": None if options.cpu else round(torch.cuda.max_memory_allocated() / 2**30, 2),
        "losses": [{"step": each.step, **each.values} for each in lines[::-every][::-1]],
    }


def evaluate(bundle: Path, options: Options) -> dict[str, Any]:
    """Benchmark on the CPU, the reference for all engines; the page is kept."""
    report = benchmark(
        [bundle],
        options.images(),
        engine="onnxruntime",
        rounds=TIMED_ROUNDS,
        out=WORK / "accuracy" / "report",
        console=StepClock(),
    )
    (options.out / "report.html").write_bytes(report.page.read_bytes())
    [row] = report.rows
    return {
        **dataclasses.asdict(row.metrics),
        "false_reject_rate": row.decisions.false_reject_rate,
        "detection_rate": row.decisions.detection_rate,
        "images": dataclasses.asdict(row.images),
        "category": row.category,
        "engine": row.engine,
        "size": row.size,
    }


def keep_weights(run: Path, out: Path) -> dict[str, Any]:
    """Write a run's weights and configuration as ``weights-N.safetensors``; round those of the run alike."""
    _, method = load_method(run)
    weights = method.network.state_dict()
    kept = {name: value.half() if _is_rounded(value) else value for name, value in weights.items()}
    errors = [
        float((value.float() - weights[name]).abs().max() / weights[name].abs().max())
        for name, value in kept.items()
        if value.dtype == torch.half
    ]
    method.network.load_state_dict({name: value.to(weights[name].dtype) for name, value in kept.items()})
    save_weights(run, method)
    pieces = _split(kept)
    facts = {"pieces": str(len(pieces)), "config": (run / CONFIG).read_text(encoding="utf-8")}
    sizes = {}
    for number, piece in enumerate(pieces, start=1):
        path = out / f"weights-{number}.safetensors"
        save_file(piece, path, facts)
        path.chmod(0o644)
        sizes[path.name] = path.stat().st_size
    return {"files": sizes, "largest_rounding_error": max(errors, default=0.0)}


def _is_rounded(value: torch.Tensor) -> bool:
    return value.ndim == 4 and value.numel() >= LARGE and float(value.abs().max()) < torch.finfo(torch.half).max


def _split(weights: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """Divide weights into pieces of at most `PIECE` bytes."""
    pieces: list[dict[str, torch.Tensor]] = [{}]
    used = 0
    for name, value in weights.items():
        if used + value.nbytes > PIECE and pieces[-1]:
            pieces.append({})
            used = 0
        pieces[-1][name] = value
        used += value.nbytes
    return pieces
