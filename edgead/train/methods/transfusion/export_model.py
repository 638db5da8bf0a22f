"""TransFusion's reverse process as one straight graph that engines run fast. Reasons: docs/adr/0010."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgead.train.maps import box_mean
from edgead.train.methods.transfusion.config import TransfusionConfig
from edgead.train.methods.transfusion.diffusion import COLOURS, LAST, schedule
from edgead.train.methods.transfusion.network import (
    FINAL_NORM_GROUPS,
    AttentionBlock,
    ResidualBlock,
    Resize,
    UNet,
)
from edgead.train.methods.transfusion.preprocessing import preprocess
from edgead.train.methods.transfusion.reference_model import MASK_SCALE, WINDOW


class ExportModel(nn.Module):
    """The detector's function, unrolled and in fewer operations.

    * Every step's embedded time is part of the bias of a convolution; all steps share the weights.
    * The position channel's convolution is a constant map, its border included.
    * Attention has two products with constant matrices instead of four, see `_Attention`.
    * Each step's factors on the two appearances are part of the heads' weights, and so is the order of the colours.
    * The first step's mask is empty, so it has no channel; the last step has no heads where its image is not used.

    Attributes:
        standardise, attend, decide: all group norms' statistics, all softmaxes with their logits, and all thresholds:
            what has to stay in float32.
    """

    rows: Tensor
    columns: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, network: UNet, config: TransfusionConfig) -> None:
        super().__init__()
        self.steps = schedule(config.reverse_steps)
        self.weight, self.size = config.reconstruction_weight, config.size
        self.depth_values = (config.depth_values[0], config.depth_values[1])
        self.standardise = _Standardise({config.norm_groups, FINAL_NORM_GROUPS})
        self.attend, self.decide = _Attend(), _Decide()
        with torch.no_grad():
            self.network = copy.deepcopy(network).float().eval()
            times = torch.tensor([time for time, _ in self.steps], device=next(network.parameters()).device)
            self._rewrite(self.network.time_emb(times), config.size)
            self.project = _Projection(self.network, config.size)
            self.head = _Head(self.network, self.steps, self._norm(self.network.norm, config.size))
            norm = self.network.final_seg.norm
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            self.register_buffer("scale", scale[:, None, None])
            self.register_buffer("shift", (norm.bias - norm.running_mean * scale)[:, None, None])
        self.register_buffer("rows", box_mean(config.size[0], WINDOW))
        self.register_buffer("columns", box_mean(config.size[1], WINDOW))
        for name in ("time_emb", "pos_emb", "norm", "final", "final_mean"):
            delattr(self.network, name)
        self.reconstruct = nn.Identity()  # a name for what is left, see `Transfusion.reconstruction`
        self.eval()

    def _norm(self, norm: nn.GroupNorm, size: tuple[int, int]) -> _Norm:
        return _Norm(norm, size, self.standardise)

    def _rewrite(self, embedded: Tensor, size: tuple[int, int]) -> None:
        """Replace the blocks' parts, each knowing the size of its features."""
        network, level = self.network, 0
        for module in [*network.down, network.middle, *network.up]:
            if isinstance(module, Resize):
                level += -1 if isinstance(module.conv, nn.ConvTranspose2d) else 1
                continue
            here = (size[0] >> level, size[1] >> level)
            for name, part in list(module.named_children()):
                if isinstance(part, ResidualBlock):
                    norms = self._norm(part.norm1, here), self._norm(part.norm2, here)
                    module.add_module(name, _Residual(part, embedded, *norms))
                elif isinstance(part, AttentionBlock):
                    module.add_module(name, _Attention(part, here, self.attend))

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        image = preprocess(frames, self.depth_values)
        x, mask, total = image, None, torch.zeros(1)
        for step in range(len(self.steps)):
            features = self.network.features(self.project(x, mask), step)  # type: ignore[arg-type]
            probability = self.network.final_seg.conv(F.silu(features * self.scale + self.shift)).sigmoid()
            total = total + probability if step else probability
            if step < len(self.steps) - 1 or self.weight:
                mask = self.decide(probability)
                x = x + mask * self.head(features, step)
        maps = total * ((1 - self.weight) * MASK_SCALE / len(self.steps))
        if self.weight:
            maps = maps + _change(image, self.reconstruct(x)) * self.weight
        maps = self.rows @ maps.reshape(-1, *self.size) @ self.columns
        return maps.amax(dim=(1, 2)), maps


def _change(image: Tensor, x: Tensor) -> Tensor:
    """Mean over the channels of the squared change, ``[N, 1, H, W]``; of colours in [0, 1]."""
    if image.shape[1] == COLOURS:  # in [−1, 1]: four times that in [0, 1]
        return ((x.clamp(-1, 1) - image) ** 2).mean(dim=1, keepdim=True) * (1 / 4)
    colour = ((x[:, :COLOURS].clamp(-1, 1) - image[:, :COLOURS]) ** 2).sum(dim=1, keepdim=True) * (1 / 4)
    return (colour + (x[:, COLOURS:] - image[:, COLOURS:]) ** 2) * (1 / (COLOURS + 1))


class _Standardise(nn.Module):
    """Mean 0 and variance 1 over the last axis of ``[N, groups, values]``, for numbers of groups known beforehand."""

    def __init__(self, groups: set[int]) -> None:
        super().__init__()
        for count in groups:
            self.register_buffer(f"ones{count}", torch.ones(count))
            self.register_buffer(f"zeros{count}", torch.zeros(count))

    def forward(self, x: Tensor, groups: int) -> Tensor:
        return F.instance_norm(x, weight=self.get_buffer(f"ones{groups}"), bias=self.get_buffer(f"zeros{groups}"))


class _Attend(nn.Module):
    """Weights of all keys for each query, ``[N, L, L]``."""

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return (query @ key).softmax(dim=-1)


class _Decide(nn.Module):
    """The mask, 0 or 1."""

    def forward(self, probability: Tensor) -> Tensor:
        return (probability > 0.5).float()


class _Norm(nn.Module):
    """A group norm as a standardisation of groups and an affine map of channels."""

    weight: Tensor
    bias: Tensor

    def __init__(self, norm: nn.GroupNorm, size: tuple[int, int], standardise: _Standardise) -> None:
        super().__init__()
        self.grouped = (-1, norm.num_groups, norm.num_channels // norm.num_groups * size[0] * size[1])
        self.planar = (-1, norm.num_channels, *size)
        self.standardise = standardise
        self.register_buffer("weight", norm.weight.detach()[:, None, None].clone())
        self.register_buffer("bias", norm.bias.detach()[:, None, None].clone())

    def forward(self, x: Tensor) -> Tensor:
        standard = self.standardise(x.reshape(self.grouped), self.grouped[1])
        out: Tensor = standard.reshape(self.planar) * self.weight + self.bias
        return out


class _Residual(nn.Module):
    """A residual block whose first convolution has one bias for each step."""

    def __init__(self, block: ResidualBlock, embedded: Tensor, norm1: _Norm, norm2: _Norm) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm1, norm2
        self.conv1, self.conv2, self.shortcut = block.conv1, block.conv2, block.shortcut
        assert block.conv1.bias is not None
        for step, shift in enumerate(block.time_emb(embedded) + block.conv1.bias):
            self.register_buffer(f"shift{step}", shift.detach().clone())

    def forward(self, x: Tensor, step: int) -> Tensor:
        shift = self.get_buffer(f"shift{step}")
        h = F.conv2d(F.silu(self.norm1(x)), self.conv1.weight, shift, padding=1, groups=self.conv1.groups)
        out: Tensor = self.conv2(F.silu(self.norm2(h))) + self.shortcut(x)
        return out


class _Attention(nn.Module):
    """One head that is as wide as its input needs two matrices, not four.

    Queries and keys meet in x·Wq·Wkᵀ·xᵀ, so their two matrices are one and the keys are the tokens. Of the biases, what
    is the same for all keys does not change the softmax. Its rows sum to one, so the output's matrix can be part of
    the values', and both biases are one.
    """

    mix: Tensor
    lean: Tensor
    value: Tensor
    bias: Tensor

    def __init__(self, block: AttentionBlock, size: tuple[int, int], attend: _Attend) -> None:
        super().__init__()
        channels = block.output.in_features
        self.flat, self.planar = (-1, channels, size[0] * size[1]), (-1, channels, *size)
        self.attend = attend
        query, key, value = block.projection.weight.double().chunk(3)
        query_bias, _, value_bias = block.projection.bias.double().chunk(3)
        output, output_bias = block.output.weight.double(), block.output.bias.double()
        scale = channels**-0.5  # before the product, so that the logits never exceed their final range
        constants = {
            "mix": query.T @ key * scale,
            "lean": query_bias @ key * scale,
            "value": value.T @ output.T,
            "bias": value_bias @ output.T + output_bias,
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant.float())

    def forward(self, x: Tensor) -> Tensor:
        keys = x.reshape(self.flat)
        tokens = keys.transpose(1, 2)
        weights = self.attend(tokens @ self.mix + self.lean, keys)
        attended = weights @ (tokens @ self.value) + self.bias
        out: Tensor = x + attended.transpose(1, 2).reshape(self.planar)
        return out


class _Projection(nn.Module):
    """The first convolution, on BGR, with its bias and the position channel as one constant map."""

    weight: Tensor
    constant: Tensor

    def __init__(self, network: UNet, size: tuple[int, int]) -> None:
        super().__init__()
        with_mask = 1
        if network.groups == 1:
            weight, bias = network.image_proj.weight, network.image_proj.bias
        else:  # two convolutions as one: the depth is no input of the first, the colours are none of the second
            colour, depth = network.image_proj_rgb, network.image_proj_d
            half = colour.out_channels
            weight = torch.zeros(2 * half, COLOURS + 1 + with_mask + 1, 3, 3)
            weight[:half, [0, 1, 2, 4, 5]], weight[half:, [3, 4, 5]] = colour.weight, depth.weight
            assert colour.bias is not None
            assert depth.bias is not None
            bias = torch.cat([colour.bias, depth.bias])
        self.image = weight.shape[1] - with_mask - 1
        order = [2, 1, 0, *range(COLOURS, self.image + with_mask)]
        self.register_buffer("weight", weight[:, order].detach().clone())
        self.register_buffer("constant", F.conv2d(network.pos_emb(*size), weight[:, -1:], bias, padding=1).detach())

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``[N, C, H, W]`` and the mask, if it is not empty, to ``[N, width, H, W]``."""
        if mask is None:
            return F.conv2d(x, self.weight[:, : self.image], padding=1) + self.constant
        return F.conv2d(torch.cat([x, mask], dim=1), self.weight, padding=1) + self.constant


class _Head(nn.Module):
    """What a step adds inside the mask, in BGR: Δ·N − (Δ/β)·(β·ε); for depth the second term alone."""

    def __init__(self, network: UNet, steps: list[tuple[int, int]], norm: _Norm) -> None:
        super().__init__()
        self.norm = norm
        (anomaly, anomaly_bias), (normal, normal_bias) = _dense(network, "final"), _dense(network, "final_mean")
        order = [2, 1, 0, *range(COLOURS, len(anomaly))]
        coloured = (torch.arange(len(anomaly)) < COLOURS).float()
        for step, (time, next_time) in enumerate(steps):
            gain, loss = coloured * ((time - next_time) / LAST), (time - next_time) / time
            self.register_buffer(f"normal{step}", (normal * gain[:, None, None, None])[order].detach().clone())
            self.register_buffer(f"anomaly{step}", (anomaly * -loss)[order].detach().clone())
            self.register_buffer(f"bias{step}", (normal_bias * gain - anomaly_bias * loss)[order].detach().clone())

    def forward(self, features: Tensor, step: int) -> Tensor:
        bias = self.get_buffer(f"bias{step}")
        normal = F.conv2d(features, self.get_buffer(f"normal{step}"), bias, padding=1)
        return normal + F.conv2d(F.silu(self.norm(features)), self.get_buffer(f"anomaly{step}"), padding=1)


def _dense(network: UNet, name: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a head in RGB, and depth where there is one, over all features."""
    colour = network.get_submodule(name)
    assert isinstance(colour, nn.Conv2d)
    assert colour.bias is not None
    if network.groups == 1:
        return colour.weight, colour.bias
    depth = network.get_submodule(f"{name}_d")
    assert isinstance(depth, nn.Conv2d)
    assert depth.bias is not None
    half = colour.in_channels
    weight = torch.zeros(COLOURS + 1, 2 * half, 3, 3)
    weight[:COLOURS, :half], weight[COLOURS:, half:] = colour.weight, depth.weight
    return weight, torch.cat([colour.bias, depth.bias])
