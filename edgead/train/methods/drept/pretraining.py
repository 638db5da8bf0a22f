"""Stages 1 and 2: learn to remove a donor's defects, then describe each of them as a mixture of Gaussians."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from edgead.console import Track
from edgead.train.method import Arrays, Batch, Donor, Pretraining, Stage
from edgead.train.methods.drept.config import DreptConfig
from edgead.train.methods.drept.mixture import (
    TINY,
    MixtureParameters,
    Mixtures,
    composite,
    opacities,
    to_arrays,
)
from edgead.train.methods.drept.network import Discriminator, UNet, initialise, preprocess

BETAS = (0.5, 0.999)
"""Adam's, in all stages."""
MOST_VALUES = 2**25
"""Opacities (images × components × pixels) that are rendered at once: about 0.5 GB with their gradients."""
PICTURED = 8
"""Defects in the picture of a pretraining."""


class DonorNetwork(nn.Module):
    """What is trained on one donor: the generator that removes defects, its discriminator, the mixtures."""

    def __init__(self, config: DreptConfig, anomalies: int) -> None:
        super().__init__()
        self.generator = UNet(3, config.source_width, config.size, bounded=True)
        self.discriminator = Discriminator(config.source_width, config.size)
        self.apply(initialise)
        self.defects = MixtureParameters(anomalies, config.components)


class Removal(nn.Module):
    """Stage 1: the discriminator tells good images from repaired ones; the generator deceives it and keeps good ones.

    Batch: ``normal``, ``anomaly`` ``[B, H, W, 3] uint8 BGR``.
    """

    def __init__(self, network: DonorNetwork, identity_weight: float) -> None:
        super().__init__()
        self.generator, self.discriminator = network.generator, network.discriminator
        self.identity_weight = identity_weight
        self.made = torch.empty(0)

    def forward(self, batch: Batch, turn: str) -> dict[str, Tensor]:
        normal = preprocess(batch["normal"])
        if turn == "discriminator":
            # Both kinds go through the generator together, so that its batch norms see both; once for both turns.
            self.made = self.generator(torch.cat([normal, preprocess(batch["anomaly"])]))
            judged = self.discriminator(self.made[len(normal) :].detach())
            return {"real": _as_real(self.discriminator(normal)), "removed": _as_real(-judged)}
        kept, removed = self.made[: len(normal)], self.made[len(normal) :]
        self.made = torch.empty(0)
        return {
            "deceive": _as_real(self.discriminator(removed)),
            "identity": self.identity_weight * F.l1_loss(kept, normal),
        }


def _as_real(logits: Tensor) -> Tensor:
    """Binary cross-entropy of logits that should say "real"; of their negatives, "not real"."""
    return F.softplus(-logits.float()).mean()


class DefectFit(nn.Module):
    """Stage 2: mixtures that, put on the repaired images, give the defective ones. All images in one optimisation.

    The loss is a sum over images and Adam moves each number by itself, so each image gets the mixture that it would
    get alone. `removed`, `anomalies` and `unchanged` ``[A, 3, H, W]`` are set when the stage is prepared.
    """

    def __init__(self, defects: MixtureParameters, weight: float, chunk: int) -> None:
        super().__init__()
        self.defects, self.weight, self.chunk = defects, weight, chunk
        self.fixed: tuple[Tensor, Tensor, Tensor] | None = None

    def observe(self, removed: Tensor, anomalies: Tensor) -> None:
        """Set the images, ``[A, 3, H, W]`` in [−1, 1]."""
        change = (removed - anomalies).abs()
        unchanged = 1 - change / change.amax(dim=(1, 2, 3), keepdim=True).clamp(min=TINY)
        self.fixed = removed, anomalies, unchanged

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        assert self.fixed is not None
        mixtures = self.defects()
        several = len(mixtures.opacity) > self.chunk
        sums = []
        for parts in zip(*(values.split(self.chunk) for values in (*mixtures, *self.fixed))):
            # Of several chunks only the sums are kept; what their gradient needs is rendered again.
            sums.append(checkpoint(self._errors, *parts, use_reentrant=False) if several else self._errors(*parts))
        rendering, spill = (torch.stack(values).sum() for values in zip(*sums))
        return {"rendering": rendering, "unchanged": self.weight * spill}

    def _errors(self, *parts: Tensor) -> tuple[Tensor, Tensor]:
        mixtures, (removed, anomalies, unchanged) = Mixtures(*parts[:6]), parts[6:]
        with torch.autocast(removed.device.type, enabled=False):
            alpha = opacities(mixtures, (removed.shape[2], removed.shape[3]))
            error = (composite(removed, alpha, mixtures.colour) - anomalies).square()
            spill = (unchanged * alpha.sum(dim=1, keepdim=True)).square()
        return error.mean(dim=(1, 2, 3)).sum(), spill.mean(dim=(1, 2, 3)).sum()


def make_pretraining(config: DreptConfig, donor: Donor) -> Pretraining:
    """Return stages 1 and 2 for one donor."""
    network = DonorNetwork(config, len(donor.anomalies))
    fitting = DefectFit(
        network.defects,
        config.unchanged_weight,
        max(1, MOST_VALUES // (config.components * config.size[0] * config.size[1])),
    )

    def sample(rng: np.random.Generator) -> Arrays:
        return {
            "normal": donor.normals[rng.integers(len(donor.normals))],
            "anomaly": donor.anomalies[rng.integers(len(donor.anomalies))],
        }

    def adam(rate: float) -> Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]:
        return lambda parameters: torch.optim.Adam(parameters, lr=rate, betas=BETAS)

    def prepare(device: torch.device, track: Track) -> None:
        network.generator.to(device)
        starts = range(0, len(donor.anomalies), config.batch_size)
        parts = [donor.anomalies[start : start + config.batch_size] for start in starts]
        removed = torch.cat([remove(network, part) for part in track(parts)])
        fitting.observe(removed, preprocess(torch.from_numpy(donor.anomalies).to(device)))

    stages = [
        Stage(
            name="remove",
            module=Removal(network, config.identity_weight),
            sample=sample,
            steps=config.removal_steps,
            batch_size=config.batch_size,
            optimizer=adam(config.learning_rate),
            schedule=lambda step: 1.0,
            alternating=("discriminator", "generator"),
        ),
        Stage(
            name="describe",
            module=fitting,
            sample=lambda rng: {},  # every step takes all images
            steps=config.defect_steps,
            batch_size=config.batch_size,
            optimizer=adam(config.defect_learning_rate),
            schedule=lambda step: 1.0,
            prepare=prepare,
            rate="defect_learning_rate",
        ),
    ]
    return Pretraining(network, stages, lambda: to_arrays(network.defects()), lambda: _picture(network, donor))


@torch.no_grad()
def remove(network: DonorNetwork, frames: NDArray[np.uint8]) -> Tensor:
    """Remove the defects of frames ``[N, H, W, 3] uint8 BGR``: ``[N, 3, H, W]`` RGB in [−1, 1]."""
    network.generator.eval()
    device = next(network.generator.parameters()).device
    removed: Tensor = network.generator(preprocess(torch.from_numpy(frames).to(device)))
    return removed


@torch.no_grad()
def _picture(network: DonorNetwork, donor: Donor) -> list[NDArray[np.uint8]]:
    """Rows: real defects, removed, rendered on the repaired image, opacity."""
    shown = donor.anomalies[:PICTURED]
    removed = remove(network, shown)
    mixtures = Mixtures(*(values[: len(shown)] for values in network.defects()))
    alpha = opacities(mixtures, (shown.shape[1], shown.shape[2]))
    rendered = composite(removed, alpha, mixtures.colour)
    total = alpha.sum(dim=1, keepdim=True).expand(-1, 3, -1, -1) * 2 - 1
    return [shown, *(to_frames(images) for images in (removed, rendered, total))]


def to_frames(images: Tensor) -> NDArray[np.uint8]:
    """``[N, 3, H, W]`` RGB in [−1, 1] to ``[N, H, W, 3] uint8 BGR``."""
    frames = ((images.flip(1).permute(0, 2, 3, 1) + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy()
    return np.asarray(frames, np.uint8)
