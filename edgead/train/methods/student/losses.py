"""What a student minimises: the distance to its teacher's compressed map and score."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgead.train.method import Batch
from edgead.train.methods.student.network import StudentNetwork, compress

BEND = 0.3
"""Errors below it count by their square, larger ones by their size."""
HARD_CELLS = 0.02
"""Share of a batch's cells, those with the largest errors, that count once more (as EfficientAD's hard features)."""
HIGH = 0.5
"""Added weight of a cell for each unit that the teacher's compressed value is above 0: defects are few cells."""
CERTAIN = 2 * math.asinh(1)
"""Compressed score of an image that is beyond doubt anomalous."""


class Imitation(nn.Module):
    """The network with the losses of a batch.

    Args:
        network: is trained.
    """

    def __init__(self, network: StudentNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses on ``frames [B, H, W, 3] uint8``, the teacher's ``map [B, h, w]`` and ``score [B]``."""
        scores, maps = self.network(batch["frames"])
        with torch.autocast(maps.device.type, enabled=False):
            weighted = map_errors(maps.float(), compress(batch["map"], self.network.map_scale))
            hardest = weighted.flatten().topk(max(1, int(HARD_CELLS * weighted.numel()))).values
            wanted_scores = compress(batch["score"], self.network.score_scale)
            return {
                "map": weighted.mean(),
                "hard": 0.1 * hardest.mean(),
                "score": 0.5 * F.smooth_l1_loss(scores.float(), wanted_scores, beta=BEND),
            }


def map_errors(maps: Tensor, wanted: Tensor) -> Tensor:
    """Return the error of each cell of compressed maps ``[N, h, w]``, weighted by what the teacher sees there."""
    errors = F.smooth_l1_loss(maps, wanted, beta=BEND, reduction="none")
    return errors * (1 + HIGH * wanted.clamp(min=0))


def disagreement(scores: Tensor, wanted: Tensor) -> Tensor:
    """Return how far apart compressed scores of student and teacher are, as far as it can change a verdict.

    By the scale's definition, 0 is the median of good images and asinh 1 what 99 % of them are below. Where both
    are below 0, or both beyond `CERTAIN`, no threshold lies between them.
    """
    return (scores.clamp(0, CERTAIN) - wanted.clamp(0, CERTAIN)).abs()
