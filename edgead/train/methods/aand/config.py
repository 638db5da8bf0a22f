"""What AAND is configured with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated

from edgead.schema import OneOf, Within
from edgead.train.backbones import LEVELS
from edgead.train.foreground import check_foreground
from edgead.train.method_config import MOST_STEPS, Count, NotNegative, OptimisedConfig, Positive, Share


@dataclass(frozen=True)
class AandConfig(OptimisedConfig):
    """Configuration of AAND; the defaults are the published training."""

    batch_size: Count = 16
    """Images in one optimiser step, in both stages."""
    epochs: Count = 120
    """Passes over the training images in stage II, the distillation."""
    amplify_epochs: Count = 100
    """Passes over the training images in stage I, the amplification."""
    steps: Annotated[int, Within(0, MOST_STEPS)] = 0
    """Optimiser steps of both stages together, shared out as the epochs are; 0 means that the epochs decide."""
    learning_rate: Positive = 5e-3
    """Adam's step size before decay, in both stages."""
    backbone: Annotated[str, OneOf(tuple(LEVELS))] = "wide_resnet50_2"
    """The teacher: a network with three levels listed in `edgead.train.backbones.LEVELS`."""
    decay_at: tuple[float, ...] = (0.8, 0.9)
    """Shares of each stage after which the learning rate is multiplied by `decay`."""
    decay: Positive = 0.2
    """Factor on the learning rate at each of those points."""
    keys: Count = 50
    """Normal prototypes of each gate, and as many abnormal ones."""
    temperature: Positive = 0.2
    """Cosines are divided by it before the softmax over all prototypes."""
    hidden_factor: Positive = 2.0
    """Width of the residual modules' hidden layers, relative to the level's channels."""
    hidden_most: Count = 1024
    """The most channels that such a hidden layer has."""
    student_factor: Positive = 0.5
    """Inner width of the student's blocks relative to the outer: 0.5 as in a wide ResNet, 0.25 as in a plain one."""
    bottleneck_blocks: Count = 3
    """Blocks of the bottleneck after the levels are joined."""
    student_blocks: tuple[Count, Count, Count] = (3, 4, 6)
    """Blocks of the student's three levels, deepest first."""
    anomaly_share: Share = 0.8
    """Share of stage I's examples that get a synthetic anomaly."""
    lowest_opacity: Share = 0.2
    """Opacity of the texture is drawn from [this, 1]."""
    foreground: str = "auto"
    """Where on the part anomalies are put: auto, all, bright, dark, disc, or a folder of masks. `auto` takes the part
    where its brightness stands out from a background along the border, and everything where it does not."""
    margin: NotNegative = 0.3
    """By how much an amplified anomalous patch has to become less similar to normal ones (cosine)."""
    amplify_weight: NotNegative = 0.1
    """Weight of that loss beside the gate's focal loss."""
    top_patches: Count = 10
    """Worst patches of each level that the distillation looks at in particular."""
    map_sigma: NotNegative = 4.0
    """Gaussian on the pixel map, pixels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_foreground(self.foreground)

    def stage_steps(self, epoch: Fraction) -> tuple[int, int]:
        """Optimiser steps of stage I and stage II, where an epoch has that many."""
        if self.steps:
            first = max(1, round(self.steps * self.amplify_epochs / (self.amplify_epochs + self.epochs)))
            return first, max(1, self.steps - first)
        return math.ceil(self.amplify_epochs * epoch), math.ceil(self.epochs * epoch)

    def total_steps(self, epoch: Fraction) -> int:
        return sum(self.stage_steps(epoch))

    def schedule(self, epoch: Fraction) -> str:
        total = f"{self.total_steps(epoch):,} steps"
        return total if self.steps else f"{total} = {self.amplify_epochs} + {self.epochs} epochs of {float(epoch):g}"
