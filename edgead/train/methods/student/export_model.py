"""The same in fewer and faster operations, as exported."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edgead.train.maps import upsampling
from edgead.train.methods.student.config import StudentConfig
from edgead.train.methods.student.network import StudentNetwork


class ExportModel(nn.Module):
    """The scale of the frames is in the first convolutions, which read the bytes as they are, less ImageNet's mean in
    front of a backbone; upsampling is a product with a matrix on either side."""

    def __init__(self, network: StudentNetwork, config: StudentConfig) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        self.network.encoder.fold()
        self.scoring = _Scoring(self.network, config)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        scores, maps = self.scoring(self.network.features(frames))
        return scores, maps


class _Scoring(nn.Module):
    """Features ``[N, C, h, w]`` to scores ``[N]`` and maps ``[N, H, W]``."""

    rows: Tensor
    columns: Tensor

    def __init__(self, network: StudentNetwork, config: StudentConfig) -> None:
        super().__init__()
        self.head, self.score = network.head, network.score
        rows, columns = (upsampling(side, cells, corners=False) for side, cells in zip(config.size, network.grid))
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns.T.contiguous(), persistent=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        planes = self.head(features)
        maps: Tensor = torch.matmul(self.rows @ planes[:, 0], self.columns)
        return self.score(planes), maps
