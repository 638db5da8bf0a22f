"""Seconds of a training step by method, preset and stage: as before, in float32, and in bfloat16, in turn.

    python benchmarks/training_speed.py --out benchmarks/results/training-speed.json

"before" is float32 with a frozen teacher that looks at its images in every step; it differs from "float32" only where
features are kept (AAND, stage 2). DifferNet's kept features are older than this comparison. Each round takes one step
of every variant on the same batch; the first round does not count. A preset whose step would take over a minute is left
out, and so is what does not fit into --minutes. "processor_seconds" count all threads; with OMP_NUM_THREADS=1 their
ratios mean something on a busy machine, too, where the others do not.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest import mock

import click
import torch
from accelerate import Accelerator

from edgead.machine import describe_measurement
from edgead.train.accelerator import make_accelerator
from edgead.train.configuration import configure
from edgead.train.estimate import Steps, Work, few_images
from edgead.train.fit import StageLoop
from edgead.train.method import Method, Stage
from edgead.train.methods import METHODS, get_method
from edgead.train.mixed_precision import AGREEMENT, FASTER, has_bfloat16

LONGEST = 60.0
"""Longest step in seconds; presets with longer steps are skipped."""
ROUNDS = 7
"""Most measured rounds."""
SETTINGS = {"paper": {"aand": ("backbone=resnet50v2",)}, "edge": {"aand": ("backbone=resnet50v2",)}}
"""Backbones with available weights."""


def loops(method: Method, accelerator: Accelerator, folder: Path, kept: bool) -> list[tuple[Stage, Steps]]:
    """Return the stages of a method with their step functions."""
    with mock.patch("edgead.train.methods.aand.method.pays", return_value=kept):
        stages = method.stages(few_images(method, Work(200, Fraction(25))))
    found = []
    for number, stage in enumerate(stages):
        stage.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        still = dataclasses.replace(stage, schedule=lambda step: 0.0, steps=stage.steps + 1)
        loop = StageLoop(method, still, number, folder, accelerator, 0, None)
        loop.module.train()
        steps = Steps(loop, stage, accelerator)
        steps.size = steps.whole
        found.append((stage, steps))
    return found


def measure_stage(variants: dict[str, tuple[Steps, str]], seconds: float) -> dict[str, Any]:
    """Run steps of all variants, interleaved, for this many seconds."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    worked: dict[str, list[float]] = {name: [] for name in variants}
    losses: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    start = time.monotonic()
    for number in range(ROUNDS + 1):
        for name, (steps, precision) in variants.items():
            before, processor = time.monotonic(), time.process_time()
            losses[name].append(steps.take(precision, number))
            taken[name].append(time.monotonic() - before)
            worked[name].append(time.process_time() - processor)
        if max(map(max, taken.values())) > LONGEST:
            return {"not_measured": f"a step takes over {LONGEST:g} s"}
        if number and time.monotonic() - start > seconds:
            break
    counted = {name: each[1:] for name, each in taken.items()}
    ratios = [slow / fast for slow, fast in zip(counted["float32"], counted["bf16"])]
    sizes = [sum(map(abs, each.values())) for each in losses["float32"]]
    apart = [
        sum(abs(exact[name] - lowered[name]) for name in exact) / max(size, 1e-12)
        for exact, lowered, size in zip(losses["float32"], losses["bf16"], sizes)
    ]
    speedup, difference = statistics.median(ratios), max(apart)
    chosen = "bf16" if speedup >= FASTER and difference <= AGREEMENT else "float32"
    medians = {name: statistics.median(each) for name, each in counted.items()}
    processor_seconds = {name: statistics.median(each[1:]) for name, each in worked.items()}
    return {
        "seconds": {name: round(each, 4) for name, each in medians.items()},
        "processor_seconds": {name: round(each, 4) for name, each in processor_seconds.items()},
        "processor_bf16_speedup": round(processor_seconds["float32"] / processor_seconds["bf16"], 3),
        "processor_kept_speedup": round(processor_seconds["before"] / processor_seconds["float32"], 3),
        "rounds": len(ratios),
        "bf16_speedup": round(speedup, 3),
        "bf16_speedup_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "losses_differ_by": round(difference, 5),
        "auto": chosen,
        "before_to_after": round(medians["before"] / medians[chosen], 3),
        "load": round(os.getloadavg()[0], 2),
    }


def measure_preset(name: str, preset: str, seconds: float) -> dict[str, Any]:
    """Measure all stages of a preset."""
    kind = get_method(name)
    torch.manual_seed(0)
    method = kind(configure(kind, preset, SETTINGS.get(preset, {}).get(name, ())))
    accelerator = make_accelerator("cpu", "no")
    with tempfile.TemporaryDirectory() as folder:
        kept = loops(method, accelerator, Path(folder), True)
        looked = loops(method, accelerator, Path(folder), False)
        found = {}
        for (stage, now), (stage_before, before) in zip(kept, looked):
            for each in (stage_before, stage):
                each.prepare(accelerator.device, iter)  # also decides which weights learn, so only now
            variants = {"before": (before, "no"), "float32": (now, "no"), "bf16": (now, "bf16")}
            found[stage.name] = measure_stage(variants, seconds / len(kept))
    gc.collect()
    size, batch = method.config.size, method.config.batch_size
    return {"size": list(size), "batch_size": batch, "stages": found}


@click.command()
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Results file.")
@click.option("--minutes", default=9.0, show_default=True, help="Total time in minutes.")
@click.option("--only", multiple=True, metavar="METHOD-PRESET", help="Measure only these; others in the file are kept.")
def main(out: Path, minutes: float, only: tuple[str, ...]) -> None:
    """Measure every preset and write the table."""
    presets = [(name, preset) for name in METHODS for preset in ("nano", "edge", "paper")]
    presets = [each for each in presets if not only or "-".join(each) in only]
    record = json.loads(out.read_text()) if out.exists() else {}
    table, end = record.get("steps", {}), time.monotonic() + 60 * minutes
    record |= {
        **dataclasses.asdict(describe_measurement("benchmarks/training_speed.py", "torch")),
        "bfloat16": has_bfloat16(),
        "threads": torch.get_num_threads(),
    }
    for done, (name, preset) in enumerate(presets):
        left = end - time.monotonic()
        if left <= 0:
            table.setdefault(f"{name}-{preset}", {"not_measured": "no time was left"})
            continue
        table[f"{name}-{preset}"] = measure_preset(name, preset, left / (len(presets) - done) / 2)
        print(name, preset, json.dumps(table[f"{name}-{preset}"]["stages"]), flush=True)
        record["steps"] = table
        out.write_text(json.dumps(record, indent=2) + "\n")
    out.write_text(json.dumps(record | {"steps": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
