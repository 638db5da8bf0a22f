"""Frames to scores and maps as published."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from edgead.train.methods.drept.network import UNet, preprocess


class Head(nn.Module):
    """Logits ``[N, 1, H, W]`` to scores ``[N]`` and maps ``[N, H, W]``: a sigmoid, no smoothing, the maximum."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def forward(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        maps = logits.sigmoid()
        means = maps if self.window == 1 else F.avg_pool2d(maps, self.window, stride=1, padding=self.window // 2)
        return means.amax(dim=(1, 2, 3)), maps[:, 0]


class ReferenceModel(nn.Module):
    """The published inference; `window` is `DreptConfig.score_window`."""

    def __init__(self, network: UNet, window: int) -> None:
        super().__init__()
        self.network, self.head = network, Head(window)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        scores, maps = self.head(self.network(preprocess(frames)))
        return scores, maps
