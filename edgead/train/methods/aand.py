"""AAND: anomaly amplification and normality distillation ("Advancing Pre-trained Teacher", arXiv 2405.02068).

A frozen pretrained network gets a small residual module at each of three levels. Stage I teaches them, on synthetic
anomalies, to find anomalous patches (a gate) and to push their features away (a generator). Stage II distils the
amplified features of good images into a student that sees them through a bottleneck only. What the student cannot
follow is anomalous. Module and parameter names are the published code's (the ResNet version), so its weights load;
layers that it declares and never uses are left out.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgead.errors import ConfigError
from edgead.train.backbones import LEVELS, Backbone, fold_normalisation, normalise
from edgead.train.foreground import check_foreground, part_of
from edgead.train.maps import gaussian_weights, upsampling
from edgead.train.method import Arrays, Batch, Card, Method, MethodConfig, Official, Stage, Track, TrainingData
from edgead.train.synthetic import synthesise

TINY = 1e-8
"""Smallest norm that is divided by; a patch of zeros has cosine 0 to everything."""
MASK_SHARE = 0.3
"""A patch counts as anomalous, or as foreground, from this share of its pixels on."""
MOST_NORMAL, MOST_ANOMALOUS = 5000, 1000
"""Patches of a batch that are paired in the amplification loss."""


@dataclass(frozen=True)
class AandConfig(MethodConfig):
    """Configuration of AAND; the defaults are the published training."""

    batch_size: int = 16
    """Images in one optimiser step, in both stages."""
    epochs: int = 120
    """Passes over the training images in stage II, the distillation."""
    amplify_epochs: int = 100
    """Passes over the training images in stage I, the amplification."""
    steps: int = 0
    """Optimiser steps of both stages together, shared out as the epochs are; 0 means that the epochs decide."""
    learning_rate: float = 5e-3
    """Adam's step size before decay, in both stages."""
    backbone: str = "wide_resnet50_2"
    """The teacher: a network with three levels listed in `edgead.train.backbones.LEVELS`."""
    decay_at: tuple[float, ...] = (0.8, 0.9)
    """Shares of each stage after which the learning rate is multiplied by `decay`."""
    decay: float = 0.2
    """Factor on the learning rate at each of those points."""
    keys: int = 50
    """Normal prototypes of each gate, and as many abnormal ones."""
    temperature: float = 0.2
    """Cosines are divided by it before the softmax over all prototypes."""
    hidden_factor: float = 2.0
    """Width of the residual modules' hidden layers, relative to the level's channels."""
    hidden_most: int = 1024
    """The most channels that such a hidden layer has."""
    student_factor: float = 0.5
    """Inner width of the student's blocks relative to the outer: 0.5 as in a wide ResNet, 0.25 as in a plain one."""
    bottleneck_blocks: int = 3
    """Blocks of the bottleneck after the levels are joined."""
    student_blocks: tuple[int, ...] = (3, 4, 6)
    """Blocks of the student's three levels, deepest first."""
    anomaly_share: float = 0.8
    """Share of stage I's examples that get a synthetic anomaly."""
    lowest_opacity: float = 0.2
    """Opacity of the texture is drawn from [this, 1]."""
    foreground: str = "auto"
    """Where on the part anomalies are put: auto, all, bright, dark, disc, or a folder of masks. `auto` takes the part
    where its brightness stands out from a background along the border, and everything where it does not."""
    margin: float = 0.3
    """By how much an amplified anomalous patch has to become less similar to normal ones (cosine)."""
    amplify_weight: float = 0.1
    """Weight of that loss beside the gate's focal loss."""
    top_patches: int = 10
    """Worst patches of each level that the distillation looks at in particular."""
    map_sigma: float = 4.0
    """Gaussian on the pixel map, pixels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive = ("amplify_epochs", "decay", "keys", "temperature", "hidden_factor", "hidden_most", "student_factor")
        for name in (*positive, "bottleneck_blocks", "top_patches"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be positive, not {getattr(self, name)}.")
        for name in ("anomaly_share", "lowest_opacity"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie between 0 and 1, not {getattr(self, name)}.")
        if len(self.student_blocks) != 3 or min(self.student_blocks) < 1:
            raise ConfigError(f"student_blocks are three positive numbers, not {self.student_blocks}.")
        check_foreground(self.foreground)
        if self.backbone not in LEVELS:
            raise ConfigError(f"AAND's teacher is one of {', '.join(LEVELS)}, not '{self.backbone}'.")
        if self.margin < 0 or self.amplify_weight < 0 or self.map_sigma < 0:
            raise ConfigError("margin, amplify_weight and map_sigma cannot be negative.")

    def stage_steps(self, images: int) -> tuple[int, int]:
        """Optimiser steps of stage I and stage II."""
        if self.steps:
            first = max(1, round(self.steps * self.amplify_epochs / (self.amplify_epochs + self.epochs)))
            return first, max(1, self.steps - first)
        return -(-self.amplify_epochs * images // self.batch_size), -(-self.epochs * images // self.batch_size)

    def total_steps(self, images: int) -> int:
        return sum(self.stage_steps(images))

    def learning_rate_factor(self, step: int, steps: int) -> float:
        """Factor on the learning rate at a step of a stage, counted from 0."""
        return self.decay ** sum(step >= share * steps for share in self.decay_at)


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
        cosines = torch.einsum(
            "nphw,mp->nmhw", F.normalize(query, dim=1, eps=TINY), F.normalize(self.K_list[0][0], dim=1, eps=TINY)
        )
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


def gate_loss(gate: Tensor, anomalous: Tensor, alpha: float = 0.8, gamma: float = 2.0) -> Tensor:
    """Binary focal loss, the mean over patches. Both ``[N, 1, h, w]``, `gate` in [0, 1], `anomalous` bool."""
    gate = gate.clamp(1e-6, 1 - 1e-6)
    hit = -alpha * (1 - gate) ** gamma * gate.log()
    miss = -(1 - alpha) * gate**gamma * (1 - gate).log()
    return torch.where(anomalous, hit, miss).mean()


def amplify_loss(plain: Tensor, amplified: Tensor, normal: Tensor, anomalous: Tensor, margin: float) -> Tensor:
    """Mean of ReLU(cos(nᵢ, a'ⱼ) − (cos(nᵢ, aⱼ) − margin)) over normal patches i and anomalous patches j of a batch.

    Args:
        plain: ``[N, C, h, w]``, not amplified: n and a.
        amplified: same shape: a'.
        normal, anomalous: ``[N, 1, h, w] bool``, which patches are drawn.
        margin: wanted loss of similarity.
    """
    if not (normal.any() and anomalous.any()):
        return amplified.sum() * 0
    normals = _draw(plain, normal, MOST_NORMAL)[0]
    before, after = _draw(plain, anomalous, MOST_ANOMALOUS, amplified)
    return F.relu(normals @ after.T - (normals @ before.T - margin)).mean()


def _draw(features: Tensor, chosen: Tensor, most: int, *others: Tensor) -> list[Tensor]:
    """Draw at most `most` of the chosen patches, the same ones of each: unit vectors ``[n, C]``."""
    places = chosen.flatten().nonzero().squeeze(1)
    places = places[torch.randperm(len(places), device=places.device)[:most]]
    rows = (each.permute(0, 2, 3, 1).flatten(0, 2)[places] for each in (features, *others))
    return [F.normalize(row, dim=1, eps=TINY) for row in rows]


def distill_loss(teacher: Tensor, student: Tensor, top: int) -> Tensor:
    """Hard-patch and global cosine distance of one level ``[N, C, h, w]``: worst `top` patches, and the whole map."""
    patches = 1 - F.cosine_similarity(teacher, student, dim=1, eps=TINY).flatten(1)
    hardest = patches.topk(min(top, patches.shape[1]), dim=1).values.mean()
    return hardest + (1 - F.cosine_similarity(teacher.flatten(1), student.flatten(1), dim=1, eps=TINY)).mean()


class Amplification(nn.Module):
    """Stage I. The true mask takes the gate's place in the features (teacher forcing), so each loss trains its part."""

    def __init__(self, teacher: Teacher, config: AandConfig) -> None:
        super().__init__()
        self.teacher, self.config = teacher, config

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses on ``image [B, H, W, 3]`` BGR up to 255, ``mask`` and ``foreground [B, 1, H, W] float32``."""
        gate, amplify = [], []
        for amplifier, plain in zip(self.teacher.amplifiers(), self.teacher(normalise(batch["image"]))):
            anomalous = F.adaptive_avg_pool2d(batch["mask"], plain.shape[2:]) > MASK_SHARE
            part = F.adaptive_avg_pool2d(batch["foreground"], plain.shape[2:]) > MASK_SHARE
            amplified = plain + anomalous * amplifier.value(plain)
            gate.append(gate_loss(amplifier.gate(plain).float(), anomalous))
            amplify.append(amplify_loss(plain, amplified, part & ~anomalous, anomalous, self.config.margin))
        return {"gate": torch.stack(gate).sum(), "amplify": self.config.amplify_weight * torch.stack(amplify).sum()}


class Distillation(nn.Module):
    """Stage II: the student learns the amplified teacher's features of good images."""

    def __init__(self, network: AandNetwork, top: int) -> None:
        super().__init__()
        self.network, self.top = network, top

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Loss on ``frames [B, H, W, 3] uint8 BGR``."""
        with torch.no_grad():
            amplified = self.network.encoder_AT.amplified(normalise(batch["frames"]))
        student = self.network.decoder_ss(self.network.bn(amplified))
        losses = [distill_loss(t.float(), s.float(), self.top) for t, s in zip(amplified, student)]
        return {"distill": torch.stack(losses).sum()}


class Detector(nn.Module):
    """The published scoring: cosine distances of all levels, upsampled and added, Gaussian; score = its maximum."""

    window: Tensor

    def __init__(self, network: AandNetwork, config: AandConfig) -> None:
        super().__init__()
        self.network, self.size = network, config.size
        self.register_buffer("window", gaussian_weights(config.map_sigma).float(), persistent=False)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        maps = torch.zeros(1)
        for teacher, student in zip(*self.network.levels(normalise(frames))):
            distance = 1 - F.cosine_similarity(teacher, student, dim=1, eps=TINY)
            maps = maps + F.interpolate(distance[:, None], self.size, mode="bilinear", align_corners=True)
        maps = self._blur(self._blur(maps).transpose(2, 3)).transpose(2, 3)[:, 0]
        return maps.amax(dim=(1, 2)), maps

    def _blur(self, maps: Tensor) -> Tensor:
        """Gaussian along the last axis; the border repeats the edge pixel and mirrors the rest (SciPy's reflect)."""
        radius = len(self.window) // 2
        padded = torch.cat([maps[..., :radius].flip(-1), maps, maps[..., -radius:].flip(-1)], dim=-1)
        return F.conv2d(padded, self.window[None, None, None])


class Deployable(nn.Module):
    """The same function in fewer and faster operations.

    * Upsampling and Gaussian are two constant matrices for each level.
    * A gate is two 1×1 convolutions: with the normalised prototypes, and with the ones that sum their exponentials.
    * A transposed convolution with its batch norm is a 1×1 convolution whose channels are laid out as pixels.
    * ImageNet's normalisation is part of the first convolution where the network begins with one.
    """

    def __init__(self, network: AandNetwork, config: AandConfig) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        self.planes = fold_normalisation(self.network.encoder_AT)
        self.queries = nn.ModuleList([_Query(each) for each in self.network.encoder_AT.amplifiers()])
        self.gates = nn.ModuleList([_Gate(each) for each in self.network.encoder_AT.amplifiers()])
        for block in self.network.decoder_ss.modules():
            if isinstance(block, Block) and isinstance(block.conv2, nn.ConvTranspose2d):
                block.conv2, block.bn2 = _Doubling(block.conv2, block.bn2), nn.Identity()
                block.upsample = nn.Sequential(_Doubling(block.upsample[0], block.upsample[1]))
        self.scoring = _Scoring(network.encoder_AT.level_shapes, config)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        teacher = self.network.encoder_AT
        amplified = [
            plain + gate(query(plain)) * amplifier.value(plain)
            for query, gate, amplifier, plain in zip(
                self.queries, self.gates, teacher.amplifiers(), teacher(self.planes(frames))
            )
        ]
        scores, maps = self.scoring(amplified, self.network.decoder_ss(self.network.bn(amplified)))
        return scores, maps


class _Query(nn.Module):
    """The part of `Amplifier.gate` with the weights: features ``[N, C, h, w]`` to queries, same shape."""

    positions: Tensor

    def __init__(self, amplifier: Amplifier) -> None:
        super().__init__()
        self.project = amplifier.projs[0]
        self.register_buffer("positions", amplifier.positions, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        query: Tensor = self.project(features + self.positions)
        return query


class _Gate(nn.Module):
    """The rest of `Amplifier.gate` without reshaping: queries ``[N, C, h, w]`` to ``[N, 1, h, w]``.

    Cosines are at most 1, so their exponentials need no shift.
    """

    def __init__(self, amplifier: Amplifier) -> None:
        super().__init__()
        keys = F.normalize(amplifier.K_list[0][0].detach(), dim=1, eps=TINY) / amplifier.temperature
        self.squares = _total(keys.shape[1])
        self.match = nn.Conv2d(keys.shape[1], len(keys), 1, bias=False)
        self.match.weight = nn.Parameter(keys[:, :, None, None])
        self.total = nn.Conv2d(len(keys), 2, 1, bias=False)
        abnormal = torch.arange(len(keys)) >= amplifier.keys
        self.total.weight = nn.Parameter(torch.stack([abnormal, torch.ones(len(keys))])[:, :, None, None].float())

    def forward(self, query: Tensor) -> Tensor:
        length = self.squares(query * query).clamp(min=TINY**2)
        sums: Tensor = self.total((self.match(query) * length.rsqrt()).exp())
        return sums[:, :1] / sums[:, 1:]


class _Scoring(nn.Module):
    """The teacher's and the student's levels to scores ``[N]`` and maps ``[N, H, W]``."""

    def __init__(self, shapes: Sequence[tuple[int, int, int]], config: AandConfig) -> None:
        super().__init__()
        self.levels = nn.ModuleList([_Distance(shape, config) for shape in shapes])

    def forward(self, teacher: list[Tensor], student: list[Tensor]) -> tuple[Tensor, Tensor]:
        first, *others = (level(t, s) for level, t, s in zip(self.levels, teacher, student))
        maps = first
        for other in others:
            maps = maps + other
        return maps.amax(dim=(1, 2)), maps


class _Distance(nn.Module):
    """Cosine distances of one level ``[N, C, h, w]``, upsampled and smoothed, ``[N, H, W]``."""

    rows: Tensor
    columns: Tensor

    def __init__(self, shape: tuple[int, int, int], config: AandConfig) -> None:
        super().__init__()
        self.total = _total(shape[0])
        for name, side, count in zip(("rows", "columns"), config.size, shape[1:]):
            matrix = upsampling(side, count, corners=True, sigma=config.map_sigma)
            self.register_buffer(name, matrix if name == "rows" else matrix.T.contiguous())

    def forward(self, teacher: Tensor, student: Tensor) -> Tensor:
        squares = self.total(teacher * teacher), self.total(student * student)
        lengths = squares[0].clamp(min=TINY**2) * squares[1].clamp(min=TINY**2)
        distance = (1 - self.total(teacher * student) * lengths.rsqrt())[:, 0]
        maps: Tensor = self.rows @ distance @ self.columns
        return maps


def _total(channels: int) -> nn.Conv2d:
    """Sum over channels as a 1×1 convolution: on a CPU it stays in the layout of the convolutions around it."""
    convolution = nn.Conv2d(channels, 1, 1, bias=False)
    nn.init.ones_(convolution.weight)
    return convolution


class _Doubling(nn.Module):
    """A 2×2 transposed convolution with stride 2 and the batch norm after it, as a 1×1 convolution."""

    def __init__(self, transposed: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        assert isinstance(transposed, nn.ConvTranspose2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        weight = (
            (transposed.weight * scale[:, None, None]).permute(1, 2, 3, 0).reshape(-1, transposed.in_channels, 1, 1)
        )
        self.spread = nn.Conv2d(transposed.in_channels, len(weight), 1)
        self.spread.weight = nn.Parameter(weight.detach())
        self.spread.bias = nn.Parameter((norm.bias - norm.running_mean * scale).detach().repeat_interleave(4))

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.spread(x), 2)


UNUSED = re.compile(r"encoder_AT\.(layer4|fc)\.|bn\.(conv4|bn4)\.|bn\..*memory")
"""Layers that the published code saves and never uses."""


def _official_settings(weights: Mapping[str, Tensor]) -> list[str]:
    def shape(name: str) -> tuple[int, ...]:
        return tuple(weights[name].shape) if name in weights else (0, 0)

    def blocks(prefix: str) -> int:
        return len({name[len(prefix) :].partition(".")[0] for name in weights if name.startswith(prefix)})

    found = []
    if inner := shape("encoder_AT.layer1.0.conv2.weight")[0]:
        plain = "resnet34" if blocks("encoder_AT.layer1.") == 3 else "resnet18"
        bottleneck = "wide_resnet50_2" if inner == 128 else "resnet50"
        found.append(f"backbone={bottleneck if 'encoder_AT.layer1.0.conv3.weight' in weights else plain}")
    if keys := shape("encoder_AT.feat_recons_a.K_list.0")[1]:
        found.append(f"keys={keys // 2}")
        hidden, channels = shape("encoder_AT.feat_recons_a.projs.0.0.weight")[:2]
        found += [f"hidden_factor={hidden / channels}"]
        found += [f"hidden_most={shape('encoder_AT.feat_recons_c.projs.0.0.weight')[0]}"]
    if outputs := shape("decoder_ss.layer1.0.conv3.weight")[0]:
        found.append(f"student_factor={shape('decoder_ss.layer1.0.conv3.weight')[1] / outputs}")
        found.append("student_blocks=" + ",".join(str(blocks(f"decoder_ss.layer{number}.")) for number in (1, 2, 3)))
        found.append(f"bottleneck_blocks={blocks('bn.bn_layer.')}")
    return found


class Aand(Method):
    """AAND as a method of this package."""

    name = "aand"
    card = Card(
        title="AAND",
        paper="Anomaly amplification and normality distillation, arXiv 2405.02068",
        parameters=120.4,
        macs=40.8,
        published="no figure of the ResNet version could be read",
        localises="distance of teacher and student at 1/4, 1/8 and 1/16 of the input's resolution",
        needs="good images and ImageNet weights (--weights); texture pictures help (--textures)",
    )
    Config = AandConfig
    presets = {  # noqa: RUF012
        "paper": {},
        "edge": {"backbone": "resnet50", "hidden_factor": 0.5, "student_factor": 0.25},
        "nano": {
            "size": (129, 129),
            "backbone": "squeezenet1_1",
            "hidden_factor": 0.5,
            "student_factor": 0.25,
            "bottleneck_blocks": 1,
            "student_blocks": (1, 1, 1),
            "batch_size": 8,
            "steps": 300,
        },
    }
    sensitive = ("gates", "scoring")
    official = Official(
        marks=("encoder_AT.feat_recons_a.K_list.0", "decoder_ss.layer1.0.conv1.weight"),
        settings=_official_settings,
        rename=lambda name: None if UNUSED.match(name) else name,
        partners=((r"Stage1([/\\][^/\\]+)$", r"Stage2\1"), (r"Stage2([/\\][^/\\]+)$", r"Stage1\1")),
        resize="pillow bicubic",
        inference="RGB, ImageNet's mean and deviation; map: cosine distances of three levels, Gaussian of 4 pixels; "
        "score: its maximum",
    )

    def __init__(self, config: AandConfig) -> None:
        self.config: AandConfig = config
        self.network: AandNetwork = AandNetwork(config)

    def load_pretrained(self, weights: Path | None) -> None:
        self.network.encoder_AT.load_pretrained(weights)

    def stages(self, data: TrainingData) -> list[Stage]:
        config, network, normals = self.config, self.network, data.normals
        teacher, amplifiers = network.encoder_AT, nn.ModuleList(network.encoder_AT.amplifiers())
        parts = [part_of(data, number, config.foreground) for number in range(len(normals))]

        def draw(rng: np.random.Generator) -> Arrays:
            number = rng.integers(len(normals))
            image, mask = normals[number].astype(np.float32), np.zeros(config.size, np.bool_)
            if rng.random() < config.anomaly_share:
                image, mask = synthesise(rng, normals[number], data.textures, config.lowest_opacity, parts[number])
                image = image * np.float32(255)
            return {
                "image": image,
                "mask": mask[None].astype(np.float32),
                "foreground": parts[number][None].astype(np.float32),
            }

        def draw_normal(rng: np.random.Generator) -> Arrays:
            return {"frames": normals[rng.integers(len(normals))]}

        def stage(name: str, module: nn.Module, sample: Callable[[np.random.Generator], Arrays], steps: int) -> Stage:
            def prepare(device: torch.device, track: Track) -> None:
                amplifiers.requires_grad_(name == "amplify")

            def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
                return torch.optim.Adam(parameters, lr=config.learning_rate, betas=(0.5, 0.999))

            return Stage(
                name=name,
                module=module,
                sample=sample,
                steps=steps,
                batch_size=config.batch_size,
                optimizer=optimizer,
                schedule=lambda step: config.learning_rate_factor(step, steps),
                prepare=prepare,
            )

        first, second = config.stage_steps(len(normals))
        return [
            stage("amplify", Amplification(teacher, config), draw, first),
            stage("distill", Distillation(network, config.top_patches), draw_normal, second),
        ]

    def example(self, data: TrainingData, rng: np.random.Generator) -> Arrays:
        mask = np.zeros(self.config.size, np.bool_)
        while not mask.any():
            number = int(rng.integers(len(data.normals)))
            part = part_of(data, number, self.config.foreground)
            image, mask = synthesise(rng, data.normals[number], data.textures, self.config.lowest_opacity, part)
        return {"frame": np.round(image * 255).astype(np.uint8), "mask": mask}

    def detector(self) -> nn.Module:
        return Detector(self.network, self.config).eval()

    def deployable(self) -> nn.Module:
        return Deployable(self.network, self.config).eval()
