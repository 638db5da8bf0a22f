"""Train a TransFusion network to return in one reverse step what its own 18 steps return, and compare both.

    python benchmarks/one_step.py RUN --weights FILE --out benchmarks/results/one-step-NAME.json

A copy of the network sees good images and synthetic anomalies, drawn as for a student, and learns the mean mask and the
last image of the 18 steps. The labelled test images are scored once, with 18, 4 and 1 steps and with the distilled
step. Sizes are those of the network; latencies are not measured.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgead import metrics
from edgead.benchmark.uncertainty import auroc_interval
from edgead.datasets import load_frames, open_category, read_labelled_mask
from edgead.export.quantization.gate import PERTURB_SEED, PERTURBED
from edgead.export.quantization.perturb import perturb
from edgead.images import fit_frame, read_frame
from edgead.machine import describe_measurement
from edgead.train.checkpoint import load_method
from edgead.train.method import TrainingData
from edgead.train.methods.student.config import StudentConfig
from edgead.train.methods.student.examples import draw_anomalous, draw_good
from edgead.train.methods.transfusion.config import TransfusionConfig
from edgead.train.methods.transfusion.diffusion import COLOURS, FIRST, LAST, advance
from edgead.train.methods.transfusion.network import UNet
from edgead.train.methods.transfusion.preprocessing import preprocess
from edgead.train.methods.transfusion.reference_model import WINDOW, ReferenceModel
from edgead.train.run_config import RunConfig

SEED = 57
PATH = click.Path(path_type=Path)
TEXTURES = 80
AT_ONCE = 4
"""Images that go through the steps together."""


@dataclass(frozen=True)
class Settings:
    """Of the distillation. Those of every trial are fixed before it runs (docs/adr/0057-what-the-gate-can-predict.md).

    Attributes:
        pictures: that the reverse steps are asked about.
        steps: of the optimizer, each with `batch` pictures and `learning_rate`.
        map_weight: of the L1 distance between the smoothed masks.
    """

    pictures: int = 200
    steps: int = 300
    batch: int = 8
    learning_rate: float = 5e-4
    map_weight: float = 5.0


def to_images(frames: NDArray[np.uint8], config: TransfusionConfig) -> Tensor:
    """Frames ``[N, H, W, 3] uint8 BGR`` to what the network sees, RGB in [−1, 1]."""
    return preprocess(torch.from_numpy(np.ascontiguousarray(frames)), config.depth_values)[:, :COLOURS].flip(1)


@torch.inference_mode()
def score(
    network: UNet, config: TransfusionConfig, steps: int, frames: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the published scores ``[N]`` and maps ``[N, H, W]`` with a number of reverse steps."""
    model = ReferenceModel(network, dataclasses.replace(config, reverse_steps=steps))
    parts = [model(torch.from_numpy(frames[start : start + AT_ONCE])) for start in range(0, len(frames), AT_ONCE)]
    scores, maps = (torch.cat(each).numpy() for each in zip(*parts))
    return scores, maps


@torch.inference_mode()
def reverse(network: UNet, config: TransfusionConfig, frames: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """Return the mean masks ``[N, 1, H, W]`` and the last images ``[N, 3, H, W]`` of 18 steps."""
    model = ReferenceModel(network, dataclasses.replace(config, reverse_steps=FIRST))
    parts = [model.reverse(to_images(frames[at : at + AT_ONCE], config)) for at in range(0, len(frames), AT_ONCE)]
    images, totals = (torch.cat(each) for each in zip(*parts))
    return totals / FIRST, images


def smooth(masks: Tensor) -> Tensor:
    """The mean filter of the map."""
    return F.avg_pool2d(masks, WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=True)


def loss_of(network: UNet, x: Tensor, mask: Tensor, image: Tensor, map_weight: float) -> Tensor:
    """Distance of one step from the mean mask and the last image of 18."""
    scaled, normal, logits = network(x, torch.zeros_like(mask), torch.full((len(x),), FIRST))
    probability, opacity = logits.sigmoid(), FIRST / LAST
    last = advance(x, scaled, normal, (probability > 0.5).float(), opacity, opacity)
    found, wanted = smooth(probability), smooth(mask)
    highest = (found.amax(dim=(1, 2, 3)) - wanted.amax(dim=(1, 2, 3))).abs().mean()
    return (
        F.binary_cross_entropy(probability, mask)
        + map_weight * (found - wanted).abs().mean()
        + highest
        + F.mse_loss(last, image)
    )


def distil(network: UNet, config: TransfusionConfig, run: RunConfig, textures: Path, settings: Settings) -> UNet:
    """Return a copy of the network that was trained to do in one step what 18 do."""
    rng = np.random.default_rng(SEED)
    normals = load_frames(run.training_images(Path(run.data)), config.size).frames
    drawn_from = load_frames(sorted(textures.glob("*.jpg"))[:TEXTURES], config.size).frames
    data, student = TrainingData(normals, drawn_from), _jitter_of_students()
    frames = np.stack(
        [
            draw_anomalous(rng, data, student)[0] if number % 2 else draw_good(rng, data, student)
            for number in range(settings.pictures)
        ]
    )
    masks, images = reverse(network, config, frames)
    copied = copy.deepcopy(network).train()
    optimizer = torch.optim.AdamW(copied.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 if step < 0.8 * settings.steps else 0.1)
    with click.progressbar(range(settings.steps), label="distilling") as steps:
        for _ in steps:
            rows = rng.integers(0, settings.pictures, settings.batch)
            optimizer.zero_grad()
            loss = loss_of(copied, to_images(frames[rows], config), masks[rows], images[rows], settings.map_weight)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return copied.eval()


def _jitter_of_students() -> Any:  # a whole StudentConfig names a teacher
    defaults = {field.name: field.default for field in dataclasses.fields(StudentConfig)}
    return type("Jitter", (), {name: defaults[name] for name in ("turn", "shift", "light")})


class Judge:
    """The labelled test images of a run, and its held-out good images, perturbed as the gate does."""

    def __init__(self, run: RunConfig, size: tuple[int, int]) -> None:
        samples = open_category(run.data).test
        self.labels = [sample.anomalous for sample in samples]
        frames, masks = [], []
        for sample in samples:
            frame = read_frame(sample.path)
            frames.append(fit_frame(frame, size))
            mask = read_labelled_mask(sample, (frame.shape[0], frame.shape[1]), size)
            masks.append(np.zeros(size, np.bool_) if mask is None else mask)
        self.frames, self.masks = np.stack(frames), masks
        held_out = load_frames([Path(run.data, name) for name in run.held_out], size).frames
        self.perturbed = perturb(held_out, PERTURBED, np.random.default_rng(PERTURB_SEED))
        self.reference: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def judge(self, name: str, network: UNet, config: TransfusionConfig, steps: int) -> dict[str, Any]:
        """Return a row; the first one is what the others are compared with."""
        scores, maps = score(network, config, steps, self.frames)
        perturbed, _ = score(network, config, steps, self.perturbed)
        self.reference = self.reference or (scores, perturbed)
        anomalous = np.array(self.labels)
        row = {
            "steps": name,
            "image_auroc": (auroc := metrics.rank(self.labels, scores).auroc()),
            "image_auroc_interval": auroc_interval(auroc, self.labels.count(False), self.labels.count(True)),
            "pixel_auroc": metrics.rank(np.stack(self.masks), maps).auroc(),
            "aupro": metrics.aupro(self.masks, list(maps)),
            "rank_correlation": metrics.rank_correlation(self.reference[0], scores),
            "rank_loss_of_perturbed_good": 1 - metrics.rank_correlation(self.reference[1], perturbed),
            "mean_score": {
                "good": float(scores[~anomalous].mean()),
                "anomalous": float(scores[anomalous].mean()),
            },
        }
        click.echo(json.dumps(row))
        return row


@click.command()
@click.argument("folder", metavar="RUN", type=PATH)
@click.option("--textures", type=PATH, default=Path("benchmarks/data/textures"), show_default=True)
@click.option("--weights", type=PATH, required=True, help="Weights of the distilled network; read if they exist.")
@click.option("--pictures", type=int, default=Settings.pictures, show_default=True)
@click.option("--steps", "optimizer_steps", type=int, default=Settings.steps, show_default=True)
@click.option("--map-weight", type=float, default=Settings.map_weight, show_default=True)
@click.option("--out", type=PATH, required=True)
def main(
    folder: Path, textures: Path, weights: Path, pictures: int, optimizer_steps: int, map_weight: float, out: Path
) -> None:
    """Distil RUN's network into one step, and judge it on the labelled images of its data."""
    settings = Settings(pictures=pictures, steps=optimizer_steps, map_weight=map_weight)
    run, method = load_method(folder)
    config: Any = method.config
    network: Any = method.network
    unet: UNet = network.model.eval()
    judge = Judge(run, config.size)
    rows: Sequence[dict[str, Any]] = [judge.judge(str(steps), unet, config, steps) for steps in (FIRST, 4, 1)]
    if weights.exists():
        distilled = copy.deepcopy(unet)
        distilled.load_state_dict(torch.load(weights, weights_only=True))
    else:
        distilled = distil(unet, config, run, textures, settings)
        torch.save(distilled.state_dict(), weights)
    record = {
        "measured": asdict(describe_measurement("benchmarks/one_step.py", "torch")),
        "run": {"category": run.category, "preset": run.preset, "seed": run.seed, "config": run.stored_config},
        "settings": asdict(settings),
        "images": {"good": judge.labels.count(False), "anomalous": judge.labels.count(True)},
        "rows": [*rows, judge.judge("1, distilled", distilled.eval(), config, 1)],
    }
    out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
