"""Frames to scores and maps as published; without the weight of a score in sparse regions, which the code lacks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgead.train.backbones import normalise
from edgead.train.maps import upsampling
from edgead.train.methods.patchcore.config import PatchcoreConfig
from edgead.train.methods.patchcore.network import PatchcoreNetwork


class ReferenceModel(nn.Module):
    """Distance of each place to the nearest feature in the memory; score: the largest; map: upsampled, Gaussian."""

    def __init__(self, network: PatchcoreNetwork, config: PatchcoreConfig) -> None:
        super().__init__()
        self.network, self.to_pixels = network, PixelMap(network.places.grid, config)
        self.least = math.sqrt(network.least())

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network.features(normalise(frames))
        places = features.flatten(2).transpose(1, 2)
        memory = self.network.memory.expand(len(places), -1, -1)
        # In float64: it expands the squares, whose difference loses digits where a distance is small.
        nearest = torch.cdist(places.double(), memory.double()).amin(dim=2).clamp(min=self.least).float()
        distances = nearest.reshape(-1, *self.network.places.grid)
        return distances.amax(dim=(1, 2)), self.to_pixels(distances)


class PixelMap(nn.Module):
    """Distances of places ``[N, h, w]`` to the pixel map ``[N, H, W]``: upsampled, then smoothed."""

    rows: Tensor
    columns: Tensor

    def __init__(self, grid: tuple[int, int], config: PatchcoreConfig) -> None:
        super().__init__()
        rows, columns = (
            upsampling(side, count, corners=False, sigma=config.map_sigma) for side, count in zip(config.size, grid)
        )
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns.T.contiguous(), persistent=False)

    def forward(self, distances: Tensor) -> Tensor:
        return self.rows @ distances @ self.columns
