"""Frames to scores and maps as published."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgead.train.backbones import normalise
from edgead.train.maps import upsampling
from edgead.train.methods.differnet.config import DiffernetConfig
from edgead.train.methods.differnet.network import DiffernetNetwork
from edgead.train.methods.differnet.rotation import rotation_index

TINY = 1e-12
"""Smallest number that is divided by."""


class ReferenceModel(nn.Module):
    """The published scoring at fixed angles, all of them in one batch, and the pixel map."""

    sources: Tensor

    def __init__(self, network: DiffernetNetwork, config: DiffernetConfig) -> None:
        super().__init__()
        self.network, self.size = network, config.size
        self.preprocess: Callable[[Tensor], Tensor] = normalise
        self.scoring = Scoring(network, config)
        index = np.concatenate([rotation_index(config.size, angle) for angle in config.angles()])
        self.register_buffer("sources", torch.from_numpy(index.astype(np.int32)), persistent=False)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        pixels = frames.float().reshape(-1, self.size[0] * self.size[1], 3)  # cast first, as TensorRT's parser wants
        pixels = F.pad(pixels, (0, 0, 0, 1))  # the last one is black: what lies outside
        found = self.network.features(self.preprocess(pixels.index_select(1, self.sources).reshape(-1, *self.size, 3)))
        scores, maps = self.scoring(found)
        return scores, maps


class Scoring(nn.Module):
    """Feature maps of all views, one ``[N · views, C, h, w]`` for each scale, to scores ``[N]`` and maps ``[N, H, W]``.

    Map: with ȳ the mean features of the training images and M the flow's `curvature` there, the score grows like ½
    (y − ȳ)ᵀ M (y − ȳ). y is the mean of a feature map f over its places, so the place p is worth (f(p) − ȳ)ᵀ M (y −
    ȳ), brought to the score's logarithmic scale. The worth of all scales is added up, turned back by each view's
    angle, averaged over the views that saw the place, and brought to the input's size with a Gaussian. The gradient
    at y itself localises no better, and for anomalies, where the flow was never trained, float32 does not carry it.
    """

    back: Tensor
    weight: Tensor
    metric: Tensor
    unit: Tensor

    def __init__(self, network: DiffernetNetwork, config: DiffernetConfig) -> None:
        super().__init__()
        self.nf, self.reference, self.width, self.views = network.nf, network.reference, network.width, config.views
        self.register_buffer("unit", network.unit, persistent=False)
        metric = network.nf.curvature(network.reference / network.unit) / network.unit.square()
        self.register_buffer("metric", metric, persistent=False)
        self.cells = []
        for s in range(config.scales):
            [(_, height, width)] = network.feature_extractor.shapes((config.size[0] // 2**s, config.size[1] // 2**s))
            self.cells.append((height, width))
        cells = self.cells[0]
        for axis, name in enumerate(("rows", "columns")):
            for s, sides in enumerate(self.cells):
                matrix = upsampling(cells[axis], sides[axis], corners=False)
                self.register_buffer(f"{name}{s}", matrix if axis == 0 else matrix.T.contiguous(), persistent=False)
            last = upsampling(config.size[axis], cells[axis], corners=False, sigma=config.map_sigma)
            self.register_buffer(f"{name}_out", last if axis == 0 else last.T.contiguous(), persistent=False)
        back = torch.stack([_turned_back(cells, config.size, angle) for angle in config.angles()])
        covered = F.grid_sample(torch.ones(config.views, 1, *cells), back, align_corners=False).sum(dim=0)
        self.register_buffer("back", back, persistent=False)
        self.register_buffer("weight", 1 / covered.clamp(min=1e-3), persistent=False)

    def forward(self, found: list[Tensor]) -> tuple[Tensor, Tensor]:
        pooled = torch.cat([f.mean(dim=(2, 3)) for f in found], dim=1)
        squares = self.nf(pooled / self.unit)[0].square().mean(dim=1)
        scores = squares.reshape(-1, self.views).mean(dim=1).log1p()
        away = pooled - self.reference
        slope = away @ self.metric
        rise = 0.5 * (away * slope).sum(dim=1, keepdim=True)
        return scores, self._maps(found, slope * (rise.log1p() / rise.clamp(min=TINY)))

    def _maps(self, found: list[Tensor], slope: Tensor) -> Tensor:
        width, worth = self.width, torch.zeros(1)
        for s, (f, (height, length)) in enumerate(zip(found, self.cells)):
            span = slice(s * width, (s + 1) * width)
            away = f.reshape(-1, width, height * length) - self.reference[span, None]
            places = (slope[:, None, span] @ away).reshape(-1, height, length)
            worth = worth + self.get_buffer(f"rows{s}") @ places @ self.get_buffer(f"columns{s}")
        # Views first: the grid is then the same for every image of the batch.
        by_view = worth.reshape(-1, self.views, *self.cells[0]).transpose(0, 1)
        turned = F.grid_sample(by_view, self.back, align_corners=False).sum(dim=0) * self.weight
        return self.get_buffer("rows_out") @ turned @ self.get_buffer("columns_out")


def _turned_back(cells: tuple[int, int], size: tuple[int, int], degrees: float) -> Tensor:
    """Where each cell of the upright map lies in the map of the rotated image: ``[h, w, 2]`` for `grid_sample`."""
    turn = np.deg2rad(degrees)
    y, x = np.meshgrid(
        *(((np.arange(count) + 0.5) / count - 0.5) * side for count, side in zip(cells, size)), indexing="ij"
    )
    columns = np.cos(turn) * x + np.sin(turn) * y
    rows = np.cos(turn) * y - np.sin(turn) * x
    return torch.from_numpy(np.stack([columns * 2 / size[1], rows * 2 / size[0]], axis=-1).astype(np.float32))
