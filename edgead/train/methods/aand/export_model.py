"""The same in fewer and faster operations, as exported."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edgead.train.backbones import fold_normalisation
from edgead.train.maps import upsampling
from edgead.train.methods.aand.config import AandConfig
from edgead.train.methods.aand.network import TINY, AandNetwork, Amplifier, Block


class ExportModel(nn.Module):
    """The same function in fewer and faster operations.

    * Upsampling and Gaussian are two constant matrices for each level.
    * A gate is two 1×1 convolutions: with the normalised prototypes, and with the ones that sum their exponentials.
    * A transposed convolution with its batch norm is a 1×1 convolution whose channels are laid out as pixels.
    * ImageNet's normalisation is part of the first convolution where the network begins with one.
    """

    def __init__(self, network: AandNetwork, config: AandConfig) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        self.preprocess = fold_normalisation(self.network.encoder_AT)
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
                self.queries, self.gates, teacher.amplifiers(), teacher(self.preprocess(frames))
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
        fused = fuse_conv_bn_eval(transposed, norm, transpose=True)
        weight = fused.weight.permute(1, 2, 3, 0).reshape(-1, transposed.in_channels, 1, 1)
        assert fused.bias is not None
        self.spread = nn.Conv2d(transposed.in_channels, len(weight), 1)
        self.spread.weight = nn.Parameter(weight.detach())
        self.spread.bias = nn.Parameter(fused.bias.detach().repeat_interleave(4))

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.spread(x), 2)
