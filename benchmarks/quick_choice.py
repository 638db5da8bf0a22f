"""Compare settings for `train --quick` without labels: how well PatchCore tells faint anomalies from good parts.

    python benchmarks/quick_choice.py --weights FOLDER --out FILE DATA…

From the good images of each data set, at most `MOST`, a share is held out, `SPLITS` times. PatchCore is filled from the
others, and scores the held-out ones: as they are, and once with a faint anomaly of every kind that a student learns
from. The anomalies are drawn once, on a large canvas, so that every candidate sees the same. A row has the mean image
AUROC over kinds and splits. No labelled image is read.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from edgead import metrics
from edgead.datasets import load_frames, open_category
from edgead.files import write_json
from edgead.images import Frame, fit_frame
from edgead.machine import describe_measurement
from edgead.quick import HOLDOUT
from edgead.train.configuration import configure
from edgead.train.method import TrainingData
from edgead.train.methods import get_method
from edgead.train.methods.student.examples import KINDS, to_bytes

CANVAS = (448, 448)
MOST, SPLITS = 40, 3
OPACITY = (0.1, 0.5)
"""Least and most opacity of an anomaly: opaque ones are found by everything."""
DEEP = ("backbone=resnet50v2", "size=320", "memory=2048")
CANDIDATES = {
    "squeezenet1_1 320, level 2, directions": ("memory=1024",),
    "resnet50v2 320, level 2, directions": (*DEEP, "levels=2", "cosine=true"),
    "resnet50v2 320, levels 2 and 3": (*DEEP, "levels=2,3", "cosine=false"),
    "resnet50v2 320, levels 2 and 3, directions": (*DEEP, "levels=2,3", "cosine=true"),
}
WEIGHTS = {"squeezenet1_1": "squeezenet1_1_imagenet.pth", "resnet50v2": "resnet50v2_imagenet_stem_l1_l3.pth"}


def with_anomalies(held_out: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return ``[kinds, N, H, W, 3] uint8``: each of ``[N, H, W, 3] uint8`` with a faint anomaly of each kind."""
    data = TrainingData(held_out)

    def draw(kind: Any, frame: Frame) -> Frame:
        changed = kind(rng, frame, data).astype(np.float32)
        return to_bytes(frame + rng.uniform(*OPACITY) * (changed - frame))

    return np.stack([[draw(kind, frame) for frame in held_out] for kind in KINDS])


@torch.inference_mode()
def scores(settings: tuple[str, ...], weights: Path, good: NDArray[np.uint8], sets: NDArray[np.uint8]) -> NDArray[Any]:
    """Return the scores ``[sets, N]`` of a PatchCore that is filled with good images.

    Args:
        settings: ``name=value`` of PatchCore's configuration.
        weights: folder of the backbones' weights.
        good: ``[M, H, W, 3] uint8``.
        sets: ``[sets, N, H, W, 3] uint8``.
    """
    kind = get_method("patchcore")
    config = configure(kind, "nano", settings)
    method = kind(config)
    method.load_pretrained(weights / WEIGHTS[config.backbone])

    def fit(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.stack([fit_frame(frame, config.size) for frame in frames])

    for stage in method.stages(TrainingData(fit(good))):
        if stage.prepare is not None:
            stage.prepare(torch.device("cpu"), iter)
    model = method.export_model()
    return np.array([[float(model(torch.from_numpy(fit(frame[None])))[0]) for frame in each] for each in sets])


def compare(data: Path, weights: Path) -> dict[str, list[dict[str, float]]]:
    """Return for each candidate the AUROC of each kind, a dict for each split."""
    paths = open_category(data).normals
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CANDIDATES}
    for split in range(SPLITS):
        torch.manual_seed(split)
        rng = np.random.default_rng((0x9C1C, split))
        drawn = [paths[number] for number in rng.permutation(len(paths))[:MOST]]
        frames = load_frames(drawn, CANVAS).frames
        count = max(1, round(HOLDOUT * len(frames)))
        held_out, good = frames[:count], frames[count:]
        sets = np.concatenate([held_out[None], with_anomalies(held_out, rng)])
        for name, settings in CANDIDATES.items():
            normal, *anomalous = scores(settings, weights, good, sets)
            labels = np.arange(2 * count) >= count
            aurocs = [metrics.rank(labels, np.concatenate([normal, each])).auroc() for each in anomalous]
            row = {kind.__name__.strip("_"): round(float(each), 4) for kind, each in zip(KINDS, aurocs)}
            found[name].append(row)
            click.echo(f"{data.name}, split {split}, {name}: {100 * np.mean(aurocs):.1f}")
    return found


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--weights", type=click.Path(path_type=Path), required=True, help="Folder of the backbones' weights.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(data: tuple[Path, ...], weights: Path, out: Path) -> None:
    """Compare all candidates on all data sets and write the results."""
    head = describe_measurement("benchmarks/quick_choice.py")
    found = {folder.name: compare(folder, weights) for folder in data}
    means = {
        name: {
            folder: round(float(np.mean([[*row.values()] for row in rows[name]])), 4) for folder, rows in found.items()
        }
        for name in CANDIDATES
    }
    write_json(out, {**asdict(head), "mean_image_auroc": means, "image_auroc": found})
    for name, each in means.items():
        print(f"{100 * np.mean([*each.values()]):5.1f}  {name}  {each}")


if __name__ == "__main__":
    main()
