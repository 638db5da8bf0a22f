"""Features of the places of an image, and the memory of good ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgead.train.backbones import LEVELS, Backbone, normalise
from edgead.train.maps import upsampling
from edgead.train.methods.patchcore.config import PatchcoreConfig

TINY = 1e-8
"""Smallest length that is divided by; a feature of zeros stays one."""
NEAREST = 1e-6
"""Square distances below this share of the memory's mean square are taken for it: float32 cannot tell them from 0."""
PROJECTED = 128
"""Dimensions in which the memory is thinned (published: the same)."""
MOST_CANDIDATES = 50_000
"""Features that the memory is chosen from, drawn evenly from all images; thinning compares each `memory` times."""


class Places(nn.Module):
    """The backbone's levels ``[N, C, h, w]`` to one feature for each place of the first one, ``[N, D, h, w]``."""

    def __init__(self, shapes: Sequence[tuple[int, int, int]], config: PatchcoreConfig) -> None:
        super().__init__()
        self.grid, self.window, self.cosine = shapes[0][1:], config.window, config.cosine
        for number, shape in enumerate(shapes[1:], start=1):
            rows, columns = (upsampling(side, cells, corners=False) for side, cells in zip(self.grid, shape[1:]))
            self.register_buffer(f"rows{number}", rows, persistent=False)
            self.register_buffer(f"columns{number}", columns.T.contiguous(), persistent=False)

    def forward(self, levels: list[Tensor]) -> Tensor:
        return torch.cat([self._describe(number, level) for number, level in enumerate(levels)], dim=1)

    def _describe(self, number: int, level: Tensor) -> Tensor:
        means = F.avg_pool2d(level, self.window, 1, self.window // 2, count_include_pad=False)
        if number:
            means = self.get_buffer(f"rows{number}") @ means @ self.get_buffer(f"columns{number}")
        return means / means.square().sum(dim=1, keepdim=True).sqrt().clamp(min=TINY) if self.cosine else means


class PatchcoreNetwork(nn.Module):
    """A frozen backbone, and the memory ``[memory, D]``, zeros until it is filled."""

    memory: Tensor
    projection: Tensor

    def __init__(self, config: PatchcoreConfig) -> None:
        super().__init__()
        names = [LEVELS[config.backbone][level - 1] for level in config.levels]
        self.backbone = Backbone(config.backbone, names)
        shapes = self.backbone.shapes(config.size)
        self.places = Places(shapes, config)
        channels = sum(shape[0] for shape in shapes)
        self.register_buffer("memory", torch.zeros(config.memory, channels))
        self.register_buffer("projection", torch.randn(channels, PROJECTED), persistent=False)

    def features(self, image: Tensor) -> Tensor:
        """Normalised ``[N, 3, H, W]`` to the features of its places, ``[N, D, h, w]``."""
        found: Tensor = self.places(self.backbone(image))
        return found

    def least(self) -> float:
        """The smallest square distance that is told from 0."""
        return NEAREST * float((self.memory - self.memory.mean(dim=0)).square().sum(dim=1).mean())

    @torch.no_grad()
    def memorise(self, frames: Iterable[NDArray[np.uint8]], count: int) -> None:
        """Fill the memory.

        Args:
            frames: batches ``[B, H, W, 3] uint8 BGR`` of good images.
            count: images in all of them.
        """
        device, most = self.memory.device, max(1, MOST_CANDIDATES // count)
        generator = torch.Generator().manual_seed(count)
        kept = []
        for batch in frames:
            found = self.features(normalise(torch.from_numpy(batch).to(device))).flatten(2).transpose(1, 2)
            for features in found:
                chosen = torch.randperm(len(features), generator=generator)[:most]
                kept.append(features[chosen.sort().values.to(device)])
        candidates = torch.cat(kept)
        chosen = farthest_first(candidates @ self.projection, len(self.memory))
        self.memory.copy_(candidates[chosen])


def farthest_first(points: Tensor, count: int) -> Tensor:
    """Return the indices ``[count]`` of points ``[P, d]``, each the farthest from those before it (greedy k-centre).

    The first is the farthest from the mean. Where there are fewer points than `count`, they are repeated.
    """
    points = points - points.mean(dim=0)
    squares = points.square().sum(dim=1)
    nearest = torch.full_like(squares, torch.inf)
    chosen = [int(squares.argmax())]
    while len(chosen) < min(count, len(points)):
        last = chosen[-1]
        nearest = torch.minimum(nearest, squares + squares[last] - 2 * (points @ points[last]))
        nearest[last] = -torch.inf  # rounding must not take it twice
        chosen.append(int(nearest.argmax()))
    return torch.tensor(chosen, device=points.device).repeat(-(-count // len(chosen)))[:count]
