"""A U-Net on a learned or a pretrained encoder; sums where it goes up again, so that every level is one width."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgead.train.backbones import LEVELS, Backbone, fold_normalisation, normalise
from edgead.train.methods.student.config import COARSEST, StudentConfig


def _unit(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _level(first: nn.Module, width: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(first, *(_unit(width, width) for _ in range(blocks)))


class LearnedEncoder(nn.Module):
    """Levels of strided convolutions. The first has cells of `stem` pixels, each other one is half as fine."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        widths = config.widths
        firsts = [_unit(3, widths[0], config.stem + 1, config.stem)]
        firsts += (_unit(before, after, stride=2) for before, after in pairwise(widths))
        self.levels = nn.ModuleList(_level(first, width, config.blocks) for first, width in zip(firsts, widths))
        self.largest = 255
        self.sizes = [_cells(config.size, config.stem)]
        for _ in widths[1:]:
            self.sizes.append(_cells(self.sizes[-1], 2))

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Frames ``[N, H, W, 3]`` in 0 to 255 to one ``[N, C, h, w]`` for each level."""
        x, found = frames.float().permute(0, 3, 1, 2), []
        if self.largest != 1:
            x = x / self.largest
        for level in self.levels:
            x = level(x)
            found.append(x)
        return found

    def fold(self) -> None:
        """Move the division by 255 into the first convolution, in place."""
        first = cast(nn.Conv2d, self.levels.get_submodule("0.0.0"))
        first.weight, self.largest = nn.Parameter((first.weight / self.largest).detach()), 1


class PretrainedEncoder(nn.Module):
    """Levels of a frozen backbone, each followed by convolutions that are learned, and learned levels above them."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        widths = config.widths
        self.backbone = Backbone(config.backbone, LEVELS[config.backbone][: len(widths)])
        self.normalise: Callable[[Tensor], Tensor] = normalise
        shapes = self.backbone.shapes(config.size)
        firsts = [_unit(shape[0], width, kernel=1) for shape, width in zip(shapes, widths)]
        firsts += (_unit(before, after, stride=2) for before, after in pairwise(widths[len(shapes) - 1 :]))
        self.levels = nn.ModuleList(_level(first, width, config.blocks) for first, width in zip(firsts, widths))
        self.sizes = [shape[1:] for shape in shapes]
        for _ in widths[len(shapes) :]:
            self.sizes.append(_cells(self.sizes[-1], 2))

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Frames ``[N, H, W, 3]`` in 0 to 255 to one ``[N, C, h, w]`` for each level."""
        features = self.backbone(self.normalise(frames))
        found = [level(each) for level, each in zip(self.levels, features)]
        for level in self.levels[len(found) :]:
            found.append(level(found[-1]))
        return found

    def fold(self) -> None:
        """Move ImageNet's deviation into the first convolution, in place."""
        self.normalise = fold_normalisation(self.backbone)


def _cells(size: tuple[int, int], side: int) -> tuple[int, int]:
    return -(-size[0] // side), -(-size[1] // side)


class StudentNetwork(nn.Module):
    """Frames ``[N, H, W, 3]`` in 0 to 255 to three planes ``[N, 3, h, w]``, and what they mean.

    The first plane is the map, compressed (`compress`). The score is the maximum of the first two, added, plus the mean
    of the third: teachers score by a place or by the whole image.
    """

    map_scale: Tensor
    score_scale: Tensor

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.encoder = PretrainedEncoder(config) if config.backbone else LearnedEncoder(config)
        first = COARSEST if config.backbone else config.stem
        self.finest = sum(first << level < COARSEST for level in range(len(config.widths)))
        self.sizes = self.encoder.sizes[self.finest :]
        self.grid = self.sizes[0]
        widths = config.widths[self.finest :]
        self.narrow = nn.ModuleList(_unit(coarse, fine, kernel=1) for fine, coarse in pairwise(widths))
        self.merge = nn.ModuleList(_unit(fine, fine) for fine in widths[:-1])
        self.head = nn.Conv2d(widths[0], 3, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.slope = nn.Parameter(torch.ones(()))
        self.register_buffer("map_scale", torch.tensor([0.0, 1.0]))
        self.register_buffer("score_scale", torch.tensor([0.0, 1.0]))

    def features(self, frames: Tensor) -> Tensor:
        """Frames to the features of the finest cells that are decoded, ``[N, C, h, w]``."""
        found = self.encoder(frames)[self.finest :]
        x: Tensor = found[-1]
        for level in reversed(range(len(self.merge))):
            finer = _double(self.narrow[level](x), self.sizes[level + 1], self.sizes[level])
            x = self.merge[level](finer + found[level])
        return x

    def score(self, planes: Tensor) -> Tensor:
        """Planes ``[N, 3, h, w]`` to scores ``[N]``."""
        highest = planes[:, :2].sum(dim=1).amax(dim=(1, 2))
        return self.slope * highest + planes[:, 2].mean(dim=(1, 2))

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames to scores ``[N]`` and maps ``[N, h, w]``, both compressed."""
        planes = self.head(self.features(frames))
        return self.score(planes), planes[:, 0]


def _double(cells: Tensor, size: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """Cells of a level to those of the next finer one. Where a backbone leaves out the last ones, they are zeros."""
    rows, columns = (max(0, -(-side // 2) - count) for side, count in zip(wanted, size))
    if rows or columns:
        cells = F.pad(cells, (0, columns, 0, rows))
    return F.interpolate(cells, scale_factor=2.0, mode="nearest")[:, :, : wanted[0], : wanted[1]]


def compress(values: Tensor, scale: Tensor) -> Tensor:
    """Teacher's values to what the student learns: asinh((v − centre) / spread).

    It is linear for what good images have and a logarithm far beyond, whatever the teacher's range and sign: one
    defect of a thousand times the usual value does not decide what all others are worth, and 8 bits are enough.

    Args:
        values: any shape.
        scale: ``[2]``, centre and spread.
    """
    return torch.asinh((values - scale[0]) / scale[1])
