"""The published inference of TransFusion, step by step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgead.train.methods.transfusion.config import TransfusionConfig
from edgead.train.methods.transfusion.diffusion import COLOURS, FIRST, LAST, advance, schedule
from edgead.train.methods.transfusion.network import UNet
from edgead.train.methods.transfusion.preprocessing import preprocess

WINDOW = 7
"""Side of the mean filter on the map, pixels; outside it sees zeros."""
MASK_SCALE = FIRST / LAST
"""The published code adds 18 masks and divides by 19. The order of scores does not depend on it, thresholds do."""


class ReferenceModel(nn.Module):
    """Masks of all steps and the change of the image, smoothed; score = the map's maximum.

    With fewer steps the masks are averaged, so that the scale of the map stays the same.
    """

    def __init__(self, network: UNet, config: TransfusionConfig) -> None:
        super().__init__()
        self.network, self.config = network, config

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        near, far = self.config.depth_values
        planes = preprocess(frames, (near, far))
        image = torch.cat([planes[:, :COLOURS].flip(1), planes[:, COLOURS:]], dim=1)
        x, total = self.reverse(image)
        discriminative = total * (MASK_SCALE / self.config.reverse_steps)
        colour, depth = slice(0, COLOURS), slice(COLOURS, None)
        change = torch.cat([to_unit(image[:, colour]) - to_unit(x[:, colour]), image[:, depth] - x[:, depth]], 1) ** 2
        weight = self.config.reconstruction_weight
        maps = (1 - weight) * discriminative + weight * change.mean(dim=1, keepdim=True)
        maps = F.avg_pool2d(maps, WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=True)[:, 0]
        return maps.amax(dim=(1, 2)), maps

    def reverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``[N, C, H, W]`` to what is left at time 0 and the sum of the mask's probabilities."""
        mask = torch.zeros_like(x[:, :1])
        total = torch.zeros_like(mask)
        for time, next_time in schedule(self.config.reverse_steps):
            scaled, normal, logits = self.network(x, mask, torch.full((len(x),), time, device=x.device))
            probability = logits.sigmoid()
            total = total + probability
            mask = (probability > 0.5).float()
            x = advance(x, scaled, normal, mask, time / LAST, (time - next_time) / LAST)
        return x, total


def to_unit(image: Tensor) -> Tensor:
    """[−1, 1] to [0, 1], cut there."""
    return (image * 0.5 + 0.5).clamp(0, 1)
