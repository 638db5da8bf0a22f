"""Steps train and pipeline: training on the GPU, and the command line from images to a checked bundle."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from common import SITE, TINY, Options, attempt

STEPS = 8
PRETRAINED = ("differnet", "aand")
"""Methods with a pretrained backbone."""
LARGEST_DIFFERENCE = 5e-3
"""Of the first loss, relative: the GPU's float32 convolutions round to TF32 by default."""


def first_steps(options: Options) -> None:
    """Compare the losses on the GPU with those on the CPU (same seeds, same examples); then bf16 and fp16."""
    from edgead.train import train
    from edgead.train.step_metrics import read_metrics

    images, weights = options.images(), options.weights
    methods: dict[str, tuple[str, ...]] = {
        "draem": (),
        "differnet": ("backbone=squeezenet1_1", "hidden=256", "cached_views=8"),
        "aand": ("backbone=squeezenet1_1", "size=129"),
        "transfusion": (),
        "drept": (),
    }
    small = {
        "draem": TINY,
        "differnet": ("size=128", "hidden=16", "cached_views=4"),
        "aand": ("size=65",),
        "transfusion": ("size=32",),
        "drept": ("size=64", "width=4"),
    }
    steps, batch = (2, 2) if options.cpu else (STEPS, 4)

    def losses(method: str, device: str, mixed_precision: str) -> list[float]:
        settings = (*methods[method], *(small[method] if options.cpu else ()))
        with tempfile.TemporaryDirectory() as folder:
            [run] = train(
                method,
                images,
                preset="nano",
                settings=(*settings, f"batch_size={batch}", f"steps={steps}"),
                out=Path(folder, "run"),
                device=device,
                mixed_precision=mixed_precision,
                weights=weights if method in PRETRAINED else None,
                workers=0,
            )
            return [line.values["total"] for line in read_metrics(run)]

    def compare(method: str) -> dict[str, Any]:
        cpu = losses(method, "cpu", "no")
        gpu = losses(method, options.device, "no")  # with --cpu a second run, which must give the same
        difference = abs(cpu[0] - gpu[0]) / (abs(cpu[0]) + 1e-9)
        return {"ok": difference < LARGEST_DIFFERENCE, "first_loss_differs_by": difference, "cpu": cpu, "gpu": gpu}

    def lower(method: str, mixed_precision: str) -> dict[str, Any]:
        return {"gpu": losses(method, "cuda", mixed_precision)}

    for method in methods:
        attempt(f"{method}, losses against the CPU", partial(compare, method))
        for precision in () if options.cpu else ("bf16", "fp16"):
            attempt(f"{method}, {precision}", partial(lower, method, precision))


def pipeline(options: Options) -> None:
    """Train, export and check DRAEM `nano` on the command line; every exit code counts."""
    images = options.images()
    folder = Path(tempfile.mkdtemp())
    engine = "onnxruntime" if options.cpu else "onnxruntime-cuda"
    tiny = [word for each in (*TINY, "batch_size=2") for word in ("--set", each)] if options.cpu else []

    def edgead(*words: object, packed: bool = False) -> dict[str, Any]:
        environment = dict(os.environ)
        if packed:
            environment["PYTHONPATH"] = os.pathsep.join([str(SITE), environment["PYTHONPATH"]])
        command = [sys.executable, "-m", "edgead", *map(str, words)]
        started = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
        return {
            "ok": done.returncode == 0,
            "code": done.returncode,
            "seconds": round(time.monotonic() - started, 1),
            "stdout": done.stdout[-1500:],
            "stderr": done.stderr.strip().splitlines()[-4:],
        }

    def train() -> dict[str, Any]:
        words = ("train", "--method", "draem", "--data", images, "--preset", "nano", "--device", options.device)
        return edgead(*words, "--set", f"steps={5 if options.cpu else 300}", *tiny, "--out", "run")

    def export(precision: str) -> dict[str, Any]:
        gate = () if precision == "fp32" else ("--calib-samples", 16, "--max-flips", 1, "--max-auroc-drop", 1)
        words = ("export", "--checkpoint", "run", "--precision", precision, *gate)
        return edgead(*words, "--out", f"{precision}.edgead")

    def doctor(precision: str) -> dict[str, Any]:
        words = ("doctor", "--build", f"{precision}.edgead", "--engine", engine, "--json")
        return edgead(*words, packed=not options.cpu)

    attempt("train", train)
    for precision in ("fp32", "fp16", "int8"):
        attempt(f"export {precision}", partial(export, precision))
        attempt(f"doctor --build {precision}", partial(doctor, precision))
