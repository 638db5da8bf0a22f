"""TransFusion's U-Net, with the published code's module and parameter names, so that its weights load.

Where there is a depth channel, the network is two networks in one: convolutions in two groups, attention and heads for
colour and for depth; only group norms, time and the mask's head see both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FINAL_NORM_GROUPS = 8
"""Groups of the group norm before the heads."""


@dataclass(frozen=True)
class BlockConfig:
    """What all residual and attention blocks of a network have in common."""

    time_width: int
    """Numbers that the time is embedded in."""
    halves: int
    """2 for colour and depth, 1 for colour alone: groups of the convolutions."""
    norm_groups: int
    """Groups of the group norms in residual blocks."""


class TimeEmbedding(nn.Module):
    """Time ``[B] int64`` to ``[B, width]``: sines and cosines of width / 8 frequencies each, then two layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.waves = width // 8
        self.linear_1 = nn.Linear(width // 4, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, time: Tensor) -> Tensor:
        index = torch.arange(self.waves, device=time.device)
        angles = time[:, None] * torch.exp(index * (-math.log(1e4) / (self.waves - 1)))
        out: Tensor = self.linear_2(F.silu(self.linear_1(torch.cat([angles.sin(), angles.cos()], dim=1))))
        return out


class ResidualBlock(nn.Module):
    """Two times norm, SiLU, convolution; the embedded time is added between them, without an activation."""

    def __init__(self, inputs: int, outputs: int, config: BlockConfig) -> None:
        super().__init__()
        groups = config.halves
        self.norm1 = nn.GroupNorm(config.norm_groups, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups)
        self.norm2 = nn.GroupNorm(config.norm_groups, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, groups=groups)
        same = inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, groups=groups)
        self.time_emb = nn.Linear(config.time_width, outputs)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.time_emb(time)[:, :, None, None]
        out: Tensor = self.conv2(F.silu(self.norm2(h))) + self.shortcut(x)
        return out


class AttentionBlock(nn.Module):
    """One head as wide as the features, over all places, without a norm; the input is added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.projection = nn.Linear(channels, 3 * channels)
        self.output = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)  # [B, H·W, C]
        query, key, value = self.projection(tokens).chunk(3, dim=2)
        # The published einsum and its softmax over axis 2, in a form that has a memory-saving kernel.
        attended = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])[:, 0]
        out: Tensor = self.output(attended) + tokens
        return out.transpose(1, 2).reshape(x.shape)


class Block(nn.Module):
    """A residual block and, where wanted, attention after it: the published DownBlock."""

    def __init__(self, inputs: int, outputs: int, attention: bool, config: BlockConfig) -> None:
        super().__init__()
        self.res = ResidualBlock(inputs, outputs, config)
        self.halves = tuple(("attn", "attn_d")[: config.halves]) if attention else ()
        for name in self.halves:
            self.add_module(name, AttentionBlock(outputs // config.halves))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return attend_by_halves(self, self.halves, self.res(x, time))


class UpBlock(Block):
    """The same on features joined with those of the way down."""

    def __init__(self, inputs: int, outputs: int, attention: bool, config: BlockConfig) -> None:
        super().__init__(inputs + outputs, outputs, attention, config)
        self.groups = config.halves

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        if self.groups == 2:
            # Colour of both, then depth of both. The published code cuts quarters also where the two parts are not
            # equally wide, so that some channels change sides; the weights were trained like that.
            x = torch.cat([parts_of(x, 4)[part] for part in (0, 2, 1, 3)], dim=1)
        return super().forward(x, time)


class MiddleBlock(nn.Module):
    """Residual block, attention, residual block."""

    def __init__(self, channels: int, config: BlockConfig) -> None:
        super().__init__()
        self.res1 = ResidualBlock(channels, channels, config)
        self.halves = tuple(("attn", "attn_d")[: config.halves])
        for name in self.halves:
            self.add_module(name, AttentionBlock(channels // config.halves))
        self.res2 = ResidualBlock(channels, channels, config)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        out: Tensor = self.res2(attend_by_halves(self, self.halves, self.res1(x, time)), time)
        return out


def parts_of(x: Tensor, count: int) -> Sequence[Tensor]:
    """Cut the channels into equal parts."""
    # Their number is a constant to the tracer only as an int; `chunk` would compute it in the graph.
    return torch.split(x, int(x.shape[1]) // count, dim=1) if count > 1 else (x,)


def attend_by_halves(block: nn.Module, halves: Sequence[str], x: Tensor) -> Tensor:
    """Send the channels, or each half of them, through the block's attentions of these names."""
    if not halves:
        return x
    attended = [block.get_submodule(name)(part) for name, part in zip(halves, parts_of(x, len(halves)))]
    return attended[0] if len(attended) == 1 else torch.cat(attended, dim=1)


class Resize(nn.Module):
    """A convolution that halves the resolution, or a transposed one that doubles it."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class SegmentationHead(nn.Module):
    """``[B, width, H, W]`` to the mask's logits ``[B, 1, H, W]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.silu(self.norm(x)))
        return out


class _RowWave(nn.Module):
    """The one channel that is left of the published code's positional encoding: the sine of the row's number."""

    def __init__(self) -> None:
        super().__init__()
        self.penc = nn.Module()
        self.penc.register_buffer("inv_freq", torch.ones(1))

    def forward(self, rows: int, columns: int) -> Tensor:
        """Return ``[1, 1, rows, columns]``."""
        frequency = self.penc.get_buffer("inv_freq")
        wave = torch.sin(torch.arange(rows, device=frequency.device) * frequency)
        return wave[None, None, :, None].expand(-1, -1, -1, columns)


class UNet(nn.Module):
    """Predicts the anomaly's share of a blend, the good appearance, and where the anomaly is.

    Args:
        channels: of the image, 3 (colour) or 4 (colour and depth).
        width: channels at full resolution, a multiple of `norm_groups` and 8.
        multipliers: of the width from level to level, each relative to the level above.
        attention_levels: numbers of the levels that have attention, from 0; the middle always has it.
        blocks: in each level on the way down; one more on the way up.
        norm_groups: of the blocks' group norms.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        multipliers: Sequence[int],
        attention_levels: Sequence[int],
        blocks: int,
        norm_groups: int = 32,
    ) -> None:
        super().__init__()
        self.groups = groups = 2 if channels == 4 else 1
        config = BlockConfig(4 * width, groups, norm_groups)
        self.pos_emb = _RowWave()
        if groups == 2:
            self.image_proj_rgb = nn.Conv2d(5, width // 2, 3, padding=1)
            self.image_proj_d = nn.Conv2d(3, width // 2, 3, padding=1)
        else:
            self.image_proj = nn.Conv2d(5, width, 3, padding=1)
        self.time_emb = TimeEmbedding(config.time_width)
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        now = width
        for level, multiplier in enumerate(multipliers):
            attention = level in attention_levels
            down.append(Block(now, now * multiplier, attention, config))
            now *= multiplier
            down += [Block(now, now, attention, config) for _ in range(blocks - 1)]
            if level < len(multipliers) - 1:
                down.append(Resize(nn.Conv2d(now, now, 3, 2, 1, groups=groups)))
        self.down = nn.ModuleList(down)
        self.middle = MiddleBlock(now, config)
        for level, multiplier in reversed(list(enumerate(multipliers))):
            attention = level in attention_levels
            up += [UpBlock(now, now, attention, config) for _ in range(blocks)]
            up.append(UpBlock(now, now // multiplier, attention, config))
            now //= multiplier
            if level:
                up.append(Resize(nn.ConvTranspose2d(now, now, 4, 2, 1, groups=groups)))
        self.up = nn.ModuleList(up)
        self.norm = nn.GroupNorm(FINAL_NORM_GROUPS, width)
        self.final = nn.Conv2d(width // groups, 3, 3, padding=1)
        self.final_mean = nn.Conv2d(width // groups, 3, 3, padding=1)
        if groups == 2:
            self.final_d = nn.Conv2d(width // 2, 1, 3, padding=1)
            self.final_mean_d = nn.Conv2d(width // 2, 1, 3, padding=1)
        self.final_seg = SegmentationHead(width)

    def forward(self, x: Tensor, previous: Tensor, time: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict.

        Args:
            x: ``[B, channels, H, W]``, the blend: RGB in [−1, 1] and depth.
            previous: ``[B, 1, H, W]``, 0 or 1: the mask found in the step before.
            time: ``[B] int64``.

        Returns:
            The anomaly's appearance times its opacity and its mask, the good appearance, both shaped like `x`, and the
            mask's logits ``[B, 1, H, W]``.
        """
        return self.heads(self.features(self.project(x, previous), self.time_emb(time)))

    def project(self, x: Tensor, previous: Tensor) -> Tensor:
        """Join image, mask and position: ``[B, width, H, W]``."""
        position = self.pos_emb(x.shape[2], x.shape[3]).to(x.dtype).expand(len(x), -1, -1, -1)
        if self.groups == 1:
            out: Tensor = self.image_proj(torch.cat([x, previous, position], dim=1))
            return out
        colour = self.image_proj_rgb(torch.cat([x[:, :3], previous, position], dim=1))
        depth = self.image_proj_d(torch.cat([x[:, 3:], previous, position], dim=1))
        return torch.cat([colour, depth], dim=1)

    def features(self, x: Tensor, time: Tensor) -> Tensor:
        """Down and up again, ``[B, width, H, W]`` both."""
        skips = [x]
        for module in self.down:
            x = module(x, time)
            skips.append(x)
        x = self.middle(x, time)
        for module in self.up:
            x = module(x if isinstance(module, Resize) else torch.cat([x, skips.pop()], dim=1), time)
        return x

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features to the three predictions."""
        active, logits = F.silu(self.norm(x)), self.final_seg(x)
        if self.groups == 1:
            return self.final(active), self.final_mean(x), logits
        (active, active_d), (colour, depth) = parts_of(active, 2), parts_of(x, 2)
        anomaly = torch.cat([self.final(active), self.final_d(active_d)], dim=1)
        return anomaly, torch.cat([self.final_mean(colour), self.final_mean_d(depth)], dim=1), logits
