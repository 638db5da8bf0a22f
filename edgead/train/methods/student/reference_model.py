"""Frames to scores and maps."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from edgead.train.methods.student.config import StudentConfig
from edgead.train.methods.student.network import StudentNetwork


class ReferenceModel(nn.Module):
    """The network's compressed score, and its map, upsampled to the input's size."""

    def __init__(self, network: StudentNetwork, config: StudentConfig) -> None:
        super().__init__()
        self.network, self.size = network, config.size

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        scores, maps = self.network(frames)
        return scores, F.interpolate(maps[:, None], self.size, mode="bilinear", align_corners=False)[:, 0]
