"""Frames to scores and maps as published."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgead.train.backbones import normalise
from edgead.train.maps import gaussian_weights
from edgead.train.methods.aand.config import AandConfig
from edgead.train.methods.aand.network import TINY, AandNetwork


class ReferenceModel(nn.Module):
    """The published scoring: cosine distances of all levels, upsampled and added, Gaussian; score = its maximum."""

    window: Tensor

    def __init__(self, network: AandNetwork, config: AandConfig) -> None:
        super().__init__()
        self.network, self.size = network, config.size
        self.register_buffer("window", gaussian_weights(config.map_sigma).float(), persistent=False)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        maps = torch.zeros(1)
        for teacher, student in zip(*self.network.levels(normalise(frames))):
            distance = 1 - F.cosine_similarity(teacher, student, dim=1, eps=TINY)
            maps = maps + F.interpolate(distance[:, None], self.size, mode="bilinear", align_corners=True)
        maps = self._blur(self._blur(maps).transpose(2, 3)).transpose(2, 3)[:, 0]
        return maps.amax(dim=(1, 2)), maps

    def _blur(self, maps: Tensor) -> Tensor:
        """Gaussian along the last axis; the border repeats the edge pixel and mirrors the rest (SciPy's reflect)."""
        radius = len(self.window) // 2
        padded = torch.cat([maps[..., :radius].flip(-1), maps, maps[..., -radius:].flip(-1)], dim=-1)
        return F.conv2d(padded, self.window[None, None, None])
