"""The teacher with its residual modules, the bottleneck and the student."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgead.errors import ConfigError
from edgead.train.backbones import LEVELS, Backbone
from edgead.train.methods.aand.config import AandConfig

TINY = 1e-8
"""Smallest norm that is divided by; a patch of zeros has cosine 0 to everything."""


def position_table(channels: int, height: int, width: int) -> Tensor:
    """Return ``[channels, height, width]``: waves along the columns in the first half, along the rows in the second.

    Frequencies 10000^(−2i / (channels / 2)), sine and cosine in turn.
    """
    half = channels // 2
    frequency = torch.exp(torch.arange(0, half, 2) * (-np.log(1e4) / half))

    def waves(count: int) -> Tensor:
        angles = frequency[:, None] * torch.arange(count)
        return torch.stack([angles.sin(), angles.cos()], dim=1).flatten(0, 1)  # [half, count]

    columns = waves(width)[:, None, :].expand(-1, height, -1)
    rows = waves(height)[:, :, None].expand(-1, -1, width)
    return torch.cat([columns, rows])


def _pointwise(channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 1),
        nn.ReLU(),
        nn.Conv2d(hidden, hidden, 1),
        nn.ReLU(),
        nn.Conv2d(hidden, channels, 1),
    )


class Amplifier(nn.Module):
    """Residual anomaly amplification at one level: a gate (matching-guided) times a generator (attribute-scaling)."""

    positions: Tensor

    def __init__(self, shape: tuple[int, int, int], config: AandConfig) -> None:
        super().__init__()
        channels = shape[0]
        hidden = min(round(config.hidden_factor * channels), config.hidden_most)
        self.keys, self.temperature = config.keys, config.temperature
        self.projs = nn.ModuleList([_pointwise(channels, hidden)])
        self.projs2 = nn.ModuleList([_pointwise(channels, hidden)])
        self.K_list = nn.ParameterList([nn.Parameter(torch.randn(1, 2 * config.keys, channels))])
        self.register_buffer("positions", position_table(*shape), persistent=False)

    def gate(self, features: Tensor) -> Tensor:
        """``[N, C, h, w]`` to ``[N, 1, h, w]``: softmax over all prototypes, summed over the abnormal ones."""
        query = self.projs[0](features + self.positions)
        with torch.autocast(query.device.type, enabled=False):  # a small temperature multiplies what cosines are off by
            query = F.normalize(query.float(), dim=1, eps=TINY)
            cosines = torch.einsum("nphw,mp->nmhw", query, F.normalize(self.K_list[0][0], dim=1, eps=TINY))
            return (cosines / self.temperature).softmax(dim=1)[:, self.keys :].sum(dim=1, keepdim=True)

    def value(self, features: Tensor) -> Tensor:
        """What is added to an anomalous patch: ``tanh(·) ⊙ features``, ``[N, C, h, w]``."""
        scale: Tensor = self.projs2[0](features).tanh()
        return scale * features


class Teacher(Backbone):
    """The pretrained network with an amplifier at each level; the next level sees features that are not amplified."""

    def __init__(self, config: AandConfig) -> None:
        super().__init__(config.backbone, LEVELS[config.backbone])
        self.level_shapes = self.shapes(config.size)
        _check_levels(self, config)
        for letter, shape in zip("abc", self.level_shapes):
            self.add_module(f"feat_recons_{letter}", Amplifier(shape, config))

    def amplifiers(self) -> list[Amplifier]:
        return [self.get_submodule(f"feat_recons_{letter}") for letter in "abc"]  # type: ignore[misc]

    def amplified(self, image: Tensor) -> list[Tensor]:
        """Normalised ``[N, 3, H, W]`` to the three amplified feature maps: f + gate · value."""
        pairs = zip(self.amplifiers(), self(image))
        return [plain + amplifier.gate(plain) * amplifier.value(plain) for amplifier, plain in pairs]


def _check_levels(teacher: Teacher, config: AandConfig) -> None:
    if _halving(teacher.level_shapes):
        return
    sides = range(max(config.size) + 1, max(config.size) + 33)
    side = next((side for side in sides if _halving(teacher.shapes((side, side)))), None)
    hint = f" --set size={side} does." if side else ""
    raise ConfigError(
        f"The three levels of {config.backbone} must have sides that halve, the last of them even; an input of "
        f"{config.size[0]}×{config.size[1]} gives {', '.join(f'{h}×{w}' for _, h, w in teacher.level_shapes)}.{hint}"
    )


def _halving(shapes: Sequence[tuple[int, int, int]]) -> bool:
    (_, h1, w1), (_, h2, w2), (_, h3, w3) = shapes
    return (h1, w1) == (2 * h2, 2 * w2) == (4 * h3, 4 * w3) and h3 % 2 == w3 % 2 == 0


class Block(nn.Module):
    """A ResNet bottleneck that halves (``stride=2``), keeps, or doubles (``double``) the resolution."""

    def __init__(self, inputs: int, outputs: int, inner: int, stride: int = 1, double: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2: nn.Module = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn2: nn.Module = nn.BatchNorm2d(inner)
        if double:
            self.conv2 = nn.ConvTranspose2d(inner, inner, 2, 2, bias=False)
        self.conv3, self.bn3 = nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        if double:
            shortcut: nn.Module = nn.ConvTranspose2d(inputs, outputs, 2, 2, bias=False)
            self.upsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))
        elif stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        resize = getattr(self, "upsample", None) or getattr(self, "downsample", None)
        return F.relu(self.bn3(self.conv3(y)) + (x if resize is None else resize(x)))


class Bottleneck(nn.Module):
    """Joins the three levels at the deepest one's resolution and halves it (RD4AD's one-class embedding)."""

    def __init__(self, widths: Sequence[int], config: AandConfig) -> None:
        super().__init__()
        first, second, third = widths
        self.conv1, self.bn1 = nn.Conv2d(first, second, 3, 2, 1, bias=False), nn.BatchNorm2d(second)
        self.conv2, self.bn2 = nn.Conv2d(second, third, 3, 2, 1, bias=False), nn.BatchNorm2d(third)
        self.conv3, self.bn3 = nn.Conv2d(second, third, 3, 2, 1, bias=False), nn.BatchNorm2d(third)
        inner = round(2 * third * config.student_factor)
        blocks = [Block(3 * third, 2 * third, inner, stride=2)]
        blocks += [Block(2 * third, 2 * third, inner) for _ in range(config.bottleneck_blocks - 1)]
        self.bn_layer = nn.Sequential(*blocks)

    def forward(self, levels: list[Tensor]) -> Tensor:
        first = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(levels[0]))))))
        second = F.relu(self.bn3(self.conv3(levels[1])))
        out: Tensor = self.bn_layer(torch.cat([first, second, levels[2]], dim=1))
        return out


class Student(nn.Module):
    """A ResNet backwards: from the bottleneck's embedding to features like the teacher's, finest level first."""

    def __init__(self, widths: Sequence[int], config: AandConfig) -> None:
        super().__init__()
        inputs = 2 * widths[-1]
        for number, (outputs, blocks) in enumerate(zip(reversed(widths), config.student_blocks), start=1):
            inner = round(outputs * config.student_factor)
            first = Block(inputs, outputs, inner, double=True)
            rest = (Block(outputs, outputs, inner) for _ in range(blocks - 1))
            setattr(self, f"layer{number}", nn.Sequential(first, *rest))
            inputs = outputs

    def forward(self, embedding: Tensor) -> list[Tensor]:
        third = self.get_submodule("layer1")(embedding)
        second = self.get_submodule("layer2")(third)
        return [self.get_submodule("layer3")(second), second, third]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class AandNetwork(nn.Module):
    """Teacher, bottleneck and student."""

    def __init__(self, config: AandConfig) -> None:
        super().__init__()
        self.encoder_AT = Teacher(config)
        widths = [shape[0] for shape in self.encoder_AT.level_shapes]
        self.bn, self.decoder_ss = Bottleneck(widths, config), Student(widths, config)
        for trained in (*self.encoder_AT.amplifiers(), self.bn, self.decoder_ss):
            trained.apply(_initialise)

    def levels(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Normalised ``[N, 3, H, W]`` to the teacher's amplified features and the student's, finest first."""
        amplified = self.encoder_AT.amplified(image)
        return amplified, self.decoder_ss(self.bn(amplified))
