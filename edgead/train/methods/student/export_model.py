"""The same in fewer and faster operations, as exported."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edgead.train.maps import upsampling
from edgead.train.methods.student.config import StudentConfig
from edgead.train.methods.student.network import StudentNetwork


class ExportModel(nn.Module):
    """The division by 255 is in the first convolution, which so reads the bytes as they are; upsampling is a product
    with a matrix on either side."""

    def __init__(self, network: StudentNetwork, config: StudentConfig) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        first = self.network.levels[0].get_submodule("0.0")
        assert isinstance(first, nn.Conv2d)
        first.weight = nn.Parameter((first.weight / 255).detach())
        self.scoring = _Scoring(self.network, config)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        scores, maps = self.scoring(self.network.features(frames.float().permute(0, 3, 1, 2)))
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
