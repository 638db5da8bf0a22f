"""Measure how far DRepT removes drawn defects (with known clean images) and real defects (with masks).

    python benchmarks/defect_removal.py drawn DATA --out benchmarks/results/defect-removal.json
    python benchmarks/defect_removal.py real RUN… --out benchmarks/results/defect-removal-real.json

`drawn`: DATA is a folder of `edgead train`; its good training images are used, every sixth by name. Forty of them get a
dark scratch or spot and stand for the defective images, the others are the good ones. Errors are grey levels (of 256),
means over pixels: inside the drawn defects, and outside, where the removal should change nothing. Then segmentation
networks that learned from random mixtures alone are tested on drawn stripes with and without scratches. No labelled
image is read.

`real`: RUNs of DRepT that learned from donors with masks, which the training never read. Contrast is the distance
between the mean colours inside a mask and in a ring around it, in grey levels, before and after the removal; change
is the mean difference outside the mask and ring; and the opacity of the mixtures is compared with the masks.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from edgead import metrics
from edgead.console import Console
from edgead.datasets import load_frames, open_category
from edgead.export.inference import run_reference
from edgead.files import write_json
from edgead.machine import describe_measurement
from edgead.masks import fit_mask, read_mask
from edgead.train.checkpoint import WEIGHTS
from edgead.train.fit import fit
from edgead.train.method import Donor, TrainingData
from edgead.train.methods.drept.config import DreptConfig
from edgead.train.methods.drept.method import Drept
from edgead.train.methods.drept.mixture import Mixtures, opacities
from edgead.train.methods.drept.pretraining import DonorNetwork, remove, to_frames
from edgead.train.run_config import DonorConfig, load_run_config

Images = NDArray[np.uint8]
SIZE, DEFECTIVE, SEED = 64, 40, 0
SETTINGS: dict[str, Any] = {"size": (SIZE, SIZE), "width": 8, "source_width": 8, "batch_size": 8, "learning_rate": 1e-3}
RING = 7
"""Side of the square that widens a mask to its surroundings, pixels."""
MEASURED = (100, 200, 400, 700, 1000)
CASES: dict[str, dict[str, Any]] = {
    "as nano": {"identity_weight": 10.0, "steps": 1000, "shuffled": True},
    "smaller identity weight": {"identity_weight": 2.0, "steps": 400, "shuffled": True},
    "the defective of other exposure": {"identity_weight": 10.0, "steps": 700, "shuffled": False},
}
"""If not shuffled, the first images by name serve as the defective ones; in `mtd` they have another exposure."""


def draw_defects(clean: Images, rng: np.random.Generator) -> tuple[Images, NDArray[np.bool_]]:
    """Draw a dark scratch or spot on each image; return the images and the masks of the defects."""
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
    """Train the removal on one case and measure it at intervals."""
    order = np.random.default_rng(1).permutation(len(images)) if shuffled else np.arange(len(images))
    clean, normals = images[order[:DEFECTIVE]], images[order[DEFECTIVE:]]
    bad, masks = draw_defects(clean, np.random.default_rng(SEED))
    torch.manual_seed(SEED)
    config = DreptConfig(**SETTINGS, removal_steps=steps, identity_weight=identity_weight)
    pretraining = Drept(config).pretraining(Donor("drawn", normals, bad))
    network: Any = pretraining.network

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
        fit(pretraining, pretraining.stages[:1], Path(folder), seed=SEED, device="cpu", console=Watch(look))
    grey = {"good": round(float(normals.mean()), 1), "defective, clean": round(float(clean.mean()), 1)}
    return {"identity_weight": identity_weight, "shuffled": shuffled, "mean_grey": grey, "errors": rows}


def stripes(rng: np.random.Generator, count: int) -> Images:
    """Draw images of vertical stripes."""
    columns, phases = np.arange(SIZE)[None, :, None], rng.uniform(0, 6, (count, 1, 1, 1))
    return np.asarray(120 + 50 * np.sin(columns / 4 + phases) + np.zeros((count, SIZE, SIZE, 3)), np.uint8)


def measure_random(extent: float) -> dict[str, float]:
    """Train on random mixtures of one extent; measure scratched against good stripes."""
    rng = np.random.default_rng(SEED)
    torch.manual_seed(SEED)
    settings = {**SETTINGS, "width": 4, "components": 5, "steps": 250, "random_extent": extent}
    method, data = Drept(DreptConfig(**settings)), TrainingData(stripes(rng, 16))
    with tempfile.TemporaryDirectory() as folder:
        fit(method, method.stages(data), Path(folder), seed=SEED, device="cpu")
    frames = np.concatenate([stripes(rng, 12), draw_defects(stripes(rng, 12), rng)[0]])
    scores = run_reference(method.reference_model(), frames).scores
    return {"random_extent": extent, "image_auroc": metrics.rank(np.repeat([False, True], 12), scores).auroc()}


def measure_real(run_folder: Path, config: DonorConfig) -> dict[str, Any]:
    """Compare the defects of a run's donor before and after removal, inside the donor's masks."""
    run = load_run_config(run_folder)
    settings: Any = run.config
    samples = [sample for sample in open_category(config.root).test if sample.anomalous and sample.masks]
    read = load_frames([sample.path for sample in samples], settings.size, run.pixels)
    frames, samples = read.frames, [sample for sample in samples if sample.path in set(read.paths)]
    masks = [fit_mask(read_mask(sample.masks[0]), settings.size) for sample in samples]
    seen = [index for index, mask in enumerate(masks) if mask.any()]
    if not seen:
        raise click.UsageError(f"{config.root} has no masks.")
    folder = run_folder / "sources" / config.name
    network = DonorNetwork(settings, len(config.anomalies))
    network.load_state_dict(load_file(folder / WEIGHTS))
    removed = to_frames(remove(network, frames))
    # In the order of the mixtures, which is that of the images: those without a mask are left out of both.
    names = [sample.path.relative_to(config.root).as_posix() for sample in samples]
    mixtures = Mixtures(*(values[[config.anomalies.index(name) for name in names]] for values in network.defects()))
    with torch.no_grad():
        opacity = opacities(mixtures, settings.size).sum(dim=1).numpy()
    rows = [_one_defect(frames[index], removed[index], masks[index]) for index in seen]
    ranking = metrics.rank(np.ravel([masks[index] for index in seen]), opacity[seen].ravel())
    return {
        "source": config.name,
        "size": settings.size,
        "removal_steps": settings.removal_steps,
        "images": len(seen),
        **{name: round(float(np.mean([row[name] for row in rows])), 1) for name in rows[0]},
        "opacity_pixel_auroc": round(ranking.auroc(), 3),
    }


def _one_defect(before: NDArray[np.uint8], after: NDArray[np.uint8], mask: NDArray[np.bool_]) -> dict[str, float]:
    near = cv2.dilate(mask.astype(np.uint8), np.ones((RING, RING), np.uint8)).astype(bool)
    ring = near & ~mask

    def contrast(frame: NDArray[np.uint8]) -> float:
        return float(np.abs(frame[mask].mean(axis=0) - frame[ring].mean(axis=0)).mean())

    changed = np.abs(after.astype(np.float32) - before)[~near]
    contrasts = {"contrast_before": contrast(before), "contrast_after": contrast(after)}
    return {**contrasts, "change_elsewhere": float(changed.mean())}


def _record(**found: Any) -> dict[str, Any]:
    return {**asdict(describe_measurement("benchmarks/defect_removal.py", "torch")), **found}


OUT = click.option("--out", type=click.Path(path_type=Path), required=True, help="The results file.")


@click.group()
def main() -> None:
    """Measure DRepT's defect removal and write JSON."""


@main.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@OUT
def drawn(data: Path, out: Path) -> None:
    """Remove drawn defects; train on random mixtures of two extents."""
    category = open_category(data)
    images = load_frames(category.normals[::6], (SIZE, SIZE)).frames
    record = _record(
        data={"name": category.name, "images": len(images), "drawn_on": DEFECTIVE},
        settings=SETTINGS,
        removal={name: measure_removal(images, **case) for name, case in CASES.items()},
        random_mixtures=[measure_random(extent) for extent in (1.0, 0.05)],
    )
    write_json(out, record)


@main.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@OUT
def real(runs: tuple[Path, ...], out: Path) -> None:
    """Measure how far finished runs remove real defects."""
    found = {
        run.name: [measure_real(run, config) for config in load_run_config(run).donors if config.anomalies]
        for run in runs
    }
    write_json(out, _record(runs=found))


if __name__ == "__main__":
    main()
