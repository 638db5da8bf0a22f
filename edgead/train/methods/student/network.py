"""A plain U-Net: convolutions, batch norm and ReLU; sums where it goes up again, so that every level is one width."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgead.train.methods.student.config import COARSEST, StudentConfig


def _unit(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def level_sizes(config: StudentConfig) -> list[tuple[int, int]]:
    """Return the (rows, columns) of the cells of each level."""
    height, width = (-(-side // config.stem) for side in config.size)
    sizes = [(height, width)]
    for _ in config.widths[1:]:
        height, width = (height + 1) // 2, (width + 1) // 2
        sizes.append((height, width))
    return sizes


class StudentNetwork(nn.Module):
    """Images ``[N, 3, H, W]`` in [0, 1] to two planes ``[N, 2, h, w]``, and what they mean.

    The first plane is the map, compressed (`compress`), the second is added to it before its maximum is the score.
    """

    map_scale: Tensor
    score_scale: Tensor

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        widths, self.sizes = config.widths, level_sizes(config)
        self.finest = sum(config.stem * 2**level < COARSEST for level in range(len(widths)))
        self.grid = self.sizes[self.finest]
        stem = [_unit(3, widths[0], config.stem + 1, config.stem)]
        downs = [*stem, *(_unit(before, after, stride=2) for before, after in pairwise(widths))]
        self.levels = nn.ModuleList(
            nn.Sequential(down, *(_unit(width, width) for _ in range(config.blocks)))
            for down, width in zip(downs, widths)
        )
        above = widths[self.finest :]
        self.narrow = nn.ModuleList(_unit(coarse, fine, kernel=1) for fine, coarse in pairwise(above))
        self.merge = nn.ModuleList(_unit(fine, fine) for fine in above[:-1])
        self.head = nn.Conv2d(above[0], 2, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.slope, self.offset = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))
        self.register_buffer("map_scale", torch.tensor([0.0, 1.0]))
        self.register_buffer("score_scale", torch.tensor([0.0, 1.0]))

    def features(self, image: Tensor) -> Tensor:
        """Image to the features of the finest cells that are decoded, ``[N, C, h, w]``."""
        found = []
        for level in self.levels:
            image = level(image)
            found.append(image)
        x = found[-1]
        for number in reversed(range(len(self.merge))):
            skip, (rows, columns) = found[self.finest + number], self.sizes[self.finest + number]
            up = F.interpolate(self.narrow[number](x), scale_factor=2.0, mode="nearest")[:, :, :rows, :columns]
            x = self.merge[number](up + skip)
        return x

    def score(self, planes: Tensor) -> Tensor:
        """Planes ``[N, 2, h, w]`` to scores ``[N]``."""
        scores: Tensor = self.slope * planes.sum(dim=1).amax(dim=(1, 2)) + self.offset
        return scores

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Image to scores ``[N]`` and maps ``[N, h, w]``, both compressed."""
        planes = self.head(self.features(image))
        return self.score(planes), planes[:, 0]


def compress(values: Tensor, scale: Tensor) -> Tensor:
    """Teacher's values to what the student learns: asinh((v − centre) / spread).

    It is linear for what good images have and a logarithm far beyond, whatever the teacher's range and sign: one
    defect of a thousand times the usual value does not decide what all others are worth, and 8 bits are enough.

    Args:
        values: any shape.
        scale: ``[2]``, centre and spread.
    """
    return torch.asinh((values - scale[0]) / scale[1])
