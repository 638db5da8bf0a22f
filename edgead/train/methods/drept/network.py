"""The networks: a U-Net that removes or finds defects, and the discriminator that judges removals.

Module and parameter names are the published code's, so its ``gen.pth``, ``dis.pth`` and ``seg.pth`` load.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from edgead.errors import ConfigError

SMALLEST = 64
"""Shortest side that the U-Net takes, pixels."""


def check_size(size: tuple[int, int]) -> None:
    """Refuse sizes at which the skip connections would not meet.

    Raises:
        ConfigError: with the nearest size that works.
    """
    if min(size) >= SMALLEST and not any(side % (8 * 2 ** halvings(size)) for side in size):
        return
    height, width = nearest_size(size)
    raise ConfigError(
        f"DRepT's U-Net cannot take {size[0]}x{size[1]}: both sides must be at least {SMALLEST} and multiples of 8, "
        f"or of 16, 32 or 64 if the shorter is at least 128, 256 or 512, and so on.\n"
        f"The nearest: --set size={height}x{width}"
    )


def nearest_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size that the network takes whose sides differ least, in sum, from these; of two the deeper's."""
    found: list[tuple[int, int]] = []
    for level in range(max(halvings(size), 0) + 2):  # the shorter side may round up to the next level's
        step, low = 8 * 2**level, SMALLEST * 2**level
        shorter = min(max(_round(min(size), step), low), 2 * low - step)
        longer = max(_round(max(size), step), shorter)
        found.append((shorter, longer) if size[0] <= size[1] else (longer, shorter))
    return min(reversed(found), key=lambda sides: abs(sides[0] - size[0]) + abs(sides[1] - size[1]))


def _round(side: int, step: int) -> int:
    """Round to a multiple; of two that are equally near, to the cheaper one."""
    return (side + step // 2 - 1) // step * step


def halvings(size: tuple[int, int]) -> int:
    """How often the image is halved beyond three times: the shorter side is 8 to 15 at the deepest of them."""
    return int(math.log2(min(size))) - 6


class Block(nn.Module):
    """One level: down, what lies deeper, up; its input is put beside its output where there is a `skip`."""

    def __init__(self, layers: list[nn.Module], skip: bool = True) -> None:
        super().__init__()
        self.model = nn.Sequential(*layers)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return torch.cat([x, out], dim=1) if self.skip else out


def _down(inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _up(inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> list[nn.Module]:
    convolution = nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _halving(outer: int, inner: int, deeper: Block) -> Block:
    return Block([*_down(outer, inner, 4, 2, 1), deeper, *_up(2 * inner, outer, 4, 2, 1)])


class UNet(nn.Module):
    """``[N, 3, H, W]`` RGB in [−1, 1] to ``[N, outputs, H, W]``: logits, or, where `bounded`, values in [−1, 1].

    Args:
        outputs: channels.
        width: channels of the first level; the deepest have eight times as many.
        size: (height, width) in pixels; the deepest level is 1×1 at a square power of two.
        bounded: end with a hyperbolic tangent.
    """

    def __init__(self, outputs: int, width: int, size: tuple[int, int], bounded: bool = False) -> None:
        super().__init__()
        deep = 8 * width
        core = [nn.Conv2d(deep, deep, 2, bias=False), nn.ReLU(inplace=True), nn.Conv2d(deep, deep, 1, bias=False)]
        block = Block([*core, *_up(deep, deep, 2)])
        for _ in range(3):
            block = Block([*_down(deep, deep, 3), block, *_up(2 * deep, deep, 3)])
        for _ in range(halvings(size)):
            block = _halving(deep, deep, block)
        for factor in (4, 2, 1):
            block = _halving(factor * width, 2 * factor * width, block)
        first, last = (
            nn.Conv2d(3, width, 3, padding=1, bias=False),
            nn.Conv2d(2 * width, outputs, 3, padding=1, bias=False),
        )
        self.model = Block([first, nn.ReLU(inplace=True), block, last], skip=False)
        self.act: nn.Module = nn.Tanh() if bounded else nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.act(self.model(image))
        return out


class Discriminator(nn.Module):
    """PatchGAN: ``[N, 3, H, W]`` in [−1, 1] to ``[N, 1, h, w]`` logits, higher for a real good image."""

    def __init__(self, width: int, size: tuple[int, int]) -> None:
        super().__init__()
        count = halvings(size) + 1
        widths = [width * min(2**level, 8) for level in range(count + 1)]
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for level, (inputs, outputs) in enumerate(itertools.pairwise(widths), start=1):
            layers += [
                nn.Conv2d(inputs, outputs, 4, 2 if level < count else 1, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.model = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.model(image)
        return out


def initialise(module: nn.Module) -> None:
    """The published initialisation: N(0, 0.02) convolutions, N(1, 0.02) batch-norm scales, no offsets."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)) and module.bias is not None:
        nn.init.zeros_(module.bias)


def preprocess(frames: Tensor) -> Tensor:
    """``[N, H, W, 3] uint8 BGR`` to ``[N, 3, H, W] float32`` RGB in [−1, 1]."""
    return frames.float().permute(0, 3, 1, 2).flip(1) / 127.5 - 1
