"""What the two stages minimise."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgead.train.backbones import normalise
from edgead.train.method import Batch
from edgead.train.methods.aand.config import AandConfig
from edgead.train.methods.aand.network import TINY, AandNetwork, Teacher

MASK_SHARE = 0.3
"""A patch counts as anomalous, or as foreground, from this share of its pixels on."""
LEVELS = ("fine", "middle", "coarse")
MOST_NORMAL, MOST_ANOMALOUS = 5000, 1000
"""Patches of a batch that are paired in the amplification loss."""


def gate_loss(gate: Tensor, anomalous: Tensor, alpha: float = 0.8, gamma: float = 2.0) -> Tensor:
    """Binary focal loss, the mean over patches. Both ``[N, 1, h, w]``, `gate` in [0, 1], `anomalous` bool."""
    gate = gate.clamp(1e-6, 1 - 1e-6)
    hit = -alpha * (1 - gate) ** gamma * gate.log()
    miss = -(1 - alpha) * gate**gamma * (1 - gate).log()
    return torch.where(anomalous, hit, miss).mean()


def amplify_loss(plain: Tensor, amplified: Tensor, normal: Tensor, anomalous: Tensor, margin: float) -> Tensor:
    """Mean of ReLU(cos(nᵢ, a'ⱼ) − (cos(nᵢ, aⱼ) − margin)) over normal patches i and anomalous patches j of a batch.

    Args:
        plain: ``[N, C, h, w]``, not amplified: n and a.
        amplified: same shape: a'.
        normal, anomalous: ``[N, 1, h, w] bool``, which patches are drawn.
        margin: wanted loss of similarity.
    """
    if not (normal.any() and anomalous.any()):
        return amplified.sum() * 0
    normals = _draw(plain, normal, MOST_NORMAL)[0]
    before, after = _draw(plain, anomalous, MOST_ANOMALOUS, amplified)
    return F.relu(normals @ after.T - (normals @ before.T - margin)).mean()


def _draw(features: Tensor, chosen: Tensor, most: int, *others: Tensor) -> list[Tensor]:
    """Draw at most `most` of the chosen patches, the same ones of each: unit vectors ``[n, C]``."""
    places = chosen.flatten().nonzero().squeeze(1)
    places = places[torch.randperm(len(places), device=places.device)[:most]]
    rows = (each.permute(0, 2, 3, 1).flatten(0, 2)[places] for each in (features, *others))
    return [F.normalize(row, dim=1, eps=TINY) for row in rows]


def distill_loss(teacher: Tensor, student: Tensor, top: int) -> Tensor:
    """Hard-patch and global cosine distance of one level ``[N, C, h, w]``: worst `top` patches, and the whole map."""
    patches = 1 - F.cosine_similarity(teacher, student, dim=1, eps=TINY).flatten(1)
    hardest = patches.topk(min(top, patches.shape[1]), dim=1).values.mean()
    return hardest + (1 - F.cosine_similarity(teacher.flatten(1), student.flatten(1), dim=1, eps=TINY)).mean()


class Amplification(nn.Module):
    """Stage I. The true mask takes the gate's place in the features (teacher forcing), so each loss trains its part."""

    def __init__(self, teacher: Teacher, config: AandConfig) -> None:
        super().__init__()
        self.teacher, self.config = teacher, config

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses on ``image [B, H, W, 3]`` BGR up to 255, ``mask`` and ``foreground [B, 1, H, W] float32``."""
        gate, amplify = [], []
        for amplifier, plain in zip(self.teacher.amplifiers(), self.teacher(normalise(batch["image"]))):
            anomalous = F.adaptive_avg_pool2d(batch["mask"], plain.shape[2:]) > MASK_SHARE
            part = F.adaptive_avg_pool2d(batch["foreground"], plain.shape[2:]) > MASK_SHARE
            value, opened = amplifier.value(plain), amplifier.gate(plain)
            with torch.autocast(plain.device.type, enabled=False):  # differences of cosines want float32
                plain = plain.float()
                amplified = plain + anomalous * value.float()
                gate.append(gate_loss(opened.float(), anomalous))
                amplify.append(amplify_loss(plain, amplified, part & ~anomalous, anomalous, self.config.margin))
        return {"gate": torch.stack(gate).sum(), "amplify": self.config.amplify_weight * torch.stack(amplify).sum()}


@torch.no_grad()
def teach(teacher: Teacher, frame: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Return the amplified teacher's features of a frame ``[H, W, 3] uint8 BGR``: ``[h, w, C]`` for each level."""
    device = next(teacher.parameters()).device
    found = teacher.amplified(normalise(torch.from_numpy(frame[None]).to(device)))
    return {level: each[0].permute(1, 2, 0).cpu().numpy() for level, each in zip(LEVELS, found)}


class Distillation(nn.Module):
    """Stage II: the student learns the amplified teacher's features of good images."""

    def __init__(self, network: AandNetwork, top: int) -> None:
        super().__init__()
        self.network, self.top = network, top

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Loss on ``frames [B, H, W, 3] uint8 BGR``, or on what `teach` made of them."""
        if "frames" in batch:
            with torch.no_grad():
                amplified = self.network.encoder_AT.amplified(normalise(batch["frames"]))
        else:
            amplified = [batch[level].permute(0, 3, 1, 2) for level in LEVELS]
        student = self.network.decoder_ss(self.network.bn(amplified))
        losses = [distill_loss(t.float(), s.float(), self.top) for t, s in zip(amplified, student)]
        return {"distill": torch.stack(losses).sum()}
