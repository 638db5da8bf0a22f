"""How far DRepT removes drawn defects from real pictures, whose clean pictures are known; no labelled image is read.

    python benchmarks/defect_removal.py DATA --out benchmarks/results/defect-removal.json

DATA is a folder of `edgead train`; its good training images are used, every sixth by name. Forty of them get a dark
scratch or spot and stand for the defective images, the others are the good ones. Errors are grey levels (of 256),
means over pixels: inside the drawn defects, and outside, where the removal should change nothing. Then segmentation
networks that learned from random mixtures alone are tested on drawn stripes with and without scratches.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from edgead import metrics
from edgead.benchmark.machine import describe_machine, versions
from edgead.console import Console
from edgead.datasets import load_frames, open_category
from edgead.export.parity import run_reference
from edgead.train.fit import fit
from edgead.train.method import Source, TrainingData
from edgead.train.methods.drept.config import DreptConfig
from edgead.train.methods.drept.lesson import remove, to_frames
from edgead.train.methods.drept.method import Drept

Images = NDArray[np.uint8]
SIZE, DEFECTIVE, SEED = 64, 40, 0
SETTINGS: dict[str, Any] = {"size": (SIZE, SIZE), "width": 8, "source_width": 8, "batch_size": 8, "learning_rate": 1e-3}
MEASURED = (100, 200, 400, 700, 1000)
CASES: dict[str, dict[str, Any]] = {
    "as nano": {"identity_weight": 10.0, "steps": 1000, "shuffled": True},
    "smaller identity weight": {"identity_weight": 2.0, "steps": 400, "shuffled": True},
    "the defective of other exposure": {"identity_weight": 10.0, "steps": 700, "shuffled": False},
}
"""Not shuffled, the first images by name stand for the defective ones; in `mtd` these are of another exposure."""


def draw_defects(clean: Images, rng: np.random.Generator) -> tuple[Images, NDArray[np.bool_]]:
    """Draw a dark scratch or spot on each image; return the images and where the defects are."""
    bad, masks = clean.copy(), np.zeros(clean.shape[:3], np.bool_)
    for image, mask in zip(bad, masks):
        drawn = np.zeros(mask.shape, np.uint8)
        x, y = rng.uniform(0.25 * SIZE, 0.75 * SIZE, 2)
        if rng.random() < 0.5:
            turn, length = rng.uniform(0, np.pi), rng.uniform(6, 14)
            dx, dy = np.cos(turn) * length, np.sin(turn) * length
            cv2.line(drawn, (int(x - dx), int(y - dy)), (int(x + dx), int(y + dy)), 1, 2)
        else:
            axes = (int(rng.uniform(2, 6)), int(rng.uniform(2, 5)))
            cv2.ellipse(drawn, (int(x), int(y)), axes, rng.uniform(0, 180), 0, 360, 1, -1)
        mask[:] = drawn > 0
        image[mask] = image.mean() * rng.uniform(0.1, 0.35)
    return bad, masks


class Watch(Console):
    """Calls a function after each step of a stage."""

    def __init__(self, look: Callable[[int], None]) -> None:
        self.look = look

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[str], None]]:
        numbers = iter(range(1, total + 1))
        yield lambda text: self.look(next(numbers))


def measure_removal(images: Images, identity_weight: float, steps: int, shuffled: bool) -> dict[str, Any]:
    """Train the removal on one case, and measure it now and then."""
    order = np.random.default_rng(1).permutation(len(images)) if shuffled else np.arange(len(images))
    clean, normals = images[order[:DEFECTIVE]], images[order[DEFECTIVE:]]
    bad, masks = draw_defects(clean, np.random.default_rng(SEED))
    torch.manual_seed(SEED)
    config = DreptConfig(**SETTINGS, removal_steps=steps, identity_weight=identity_weight)
    lesson = Drept(config).lesson(Source("drawn", normals, bad))
    network: Any = lesson.network

    def errors(frames: Images) -> dict[str, float]:
        off = np.abs(frames.astype(np.float32) - clean)
        return {"inside": round(float(off[masks].mean()), 1), "outside": round(float(off[~masks].mean()), 1)}

    rows = [{"step": 0, **errors(bad)}]

    def look(step: int) -> None:
        if step in MEASURED:
            rows.append({"step": step, **errors(to_frames(remove(network, bad)))})
            network.generator.train()
            click.echo(json.dumps(rows[-1]))

    with tempfile.TemporaryDirectory() as folder:
        fit(lesson, lesson.stages[:1], Path(folder), seed=SEED, device="cpu", console=Watch(look))
    grey = {"good": round(float(normals.mean()), 1), "defective, clean": round(float(clean.mean()), 1)}
    return {"identity_weight": identity_weight, "shuffled": shuffled, "mean_grey": grey, "errors": rows}


def stripes(rng: np.random.Generator, count: int) -> Images:
    """Draw images of vertical stripes."""
    columns, phases = np.arange(SIZE)[None, :, None], rng.uniform(0, 6, (count, 1, 1, 1))
    return np.asarray(120 + 50 * np.sin(columns / 4 + phases) + np.zeros((count, SIZE, SIZE, 3)), np.uint8)


def measure_random(extent: float) -> dict[str, float]:
    """Train on random mixtures of an extent, and tell scratched stripes from good ones."""
    rng = np.random.default_rng(SEED)
    torch.manual_seed(SEED)
    settings = {**SETTINGS, "width": 4, "components": 5, "steps": 250, "random_extent": extent}
    method, data = Drept(DreptConfig(**settings)), TrainingData(stripes(rng, 16))
    with tempfile.TemporaryDirectory() as folder:
        fit(method, method.stages(data), Path(folder), seed=SEED, device="cpu")
    frames = np.concatenate([stripes(rng, 12), draw_defects(stripes(rng, 12), rng)[0]])
    scores = run_reference(method.detector(), frames).scores
    return {"random_extent": extent, "image_auroc": metrics.rank(np.repeat([False, True], 12), scores).auroc()}


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(data: Path, out: Path) -> None:
    """Measure and write JSON."""
    machine, category = describe_machine(), open_category(data)
    images = load_frames(category.normals[::6], (SIZE, SIZE)).frames
    record = {
        "command": sys.argv,
        "machine": machine,
        "versions": {**versions(), "torch": torch.__version__},
        "data": {"name": category.name, "images": len(images), "drawn_on": DEFECTIVE},
        "settings": SETTINGS,
        "removal": {name: measure_removal(images, **case) for name, case in CASES.items()},
        "random_mixtures": [measure_random(extent) for extent in (1.0, 0.05)],
    }
    out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
