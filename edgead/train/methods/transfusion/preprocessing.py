"""From a frame's bytes to what TransFusion computes with: colours in [−1, 1], depth in [−1, 0]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgead.depth import FARTHEST, NEAREST
from edgead.train.methods.transfusion.diffusion import COLOURS

FILL_ROUNDS = 2
"""How often pixels without depth get the mean of their neighbours, as in the published code."""


LEARNED = (-1.0, 0.0)
"""The values of the nearest and the farthest depth code that training takes."""


def preprocess(frames: Tensor, depth_values: tuple[float, float] = LEARNED) -> Tensor:
    """``[N, H, W, C] uint8`` to ``[N, C, H, W] float32``: B, G, R, and depth, see `to_depth`, where there is one."""
    # Cast first: TensorRT's parser takes bytes into no other operator.
    planes = frames.float().permute(0, 3, 1, 2)
    if planes.shape[1] == COLOURS:
        return planes * (2 / 255) - 1
    return torch.cat([planes[:, :COLOURS] * (2 / 255) - 1, to_depth(planes[:, COLOURS:], depth_values)], dim=1)


def to_depth(codes: Tensor, values: tuple[float, float] = LEARNED) -> Tensor:
    """Depth codes to depth: from one of the `values` at the nearest to the other at the farthest; 0 where unmeasured.

    Small holes are filled first: twice, what has no depth gets the mean of those of its 3×3 neighbours that have one.

    Args:
        codes: ``[N, 1, H, W] float32``, 0 to 255, see `edgead.depth`.
        values: of the nearest and of the farthest code, see `TransfusionConfig.depth_values`.
    """
    value, measured = codes, codes.clamp(max=1)
    for _ in range(FILL_ROUNDS):
        share = F.avg_pool2d(measured, 3, stride=1, padding=1)  # 0, or a ninth and more
        mean = F.avg_pool2d(value, 3, stride=1, padding=1) / share.clamp(min=1 / 18)
        value = value + (1 - measured) * mean
        measured = F.max_pool2d(measured, 3, stride=1, padding=1)
    depth = (value - FARTHEST) * measured * (1 / (FARTHEST - NEAREST))
    return depth if values == LEARNED else depth * (values[1] - values[0]) + measured * values[1]
