"""Frames to scores and maps as published."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from edgead.train.methods.draem.network import DraemNetwork

SCORE_WINDOW = 21
"""Side of the mean filter whose maximum is the image score, pixels."""


def preprocess(frames: Tensor) -> Tensor:
    """``[N, H, W, 3] uint8`` to ``[N, 3, H, W] float32`` in [0, 1]."""
    # Cast first: TensorRT's parser takes bytes into no other operator.
    return frames.float().permute(0, 3, 1, 2) / 255


class ReferenceModel(nn.Module):
    """The published inference: softmax, no smoothing of the map; score = maximum of its 21×21 mean."""

    def __init__(self, network: DraemNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        _, logits = self.network.logits(preprocess(frames))
        maps = logits.softmax(dim=1)[:, 1:]
        pooled = F.avg_pool2d(maps, SCORE_WINDOW, stride=1, padding=SCORE_WINDOW // 2, count_include_pad=True)
        return pooled.amax(dim=(1, 2, 3)), maps[:, 0]
