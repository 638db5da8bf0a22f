"""What AAND is configured with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from edgead.errors import ConfigError
from edgead.train.backbones import LEVELS
from edgead.train.foreground import check_foreground
from edgead.train.method import MethodConfig, decayed


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

    def learning_rate_factor(self, step: int, steps: int) -> float:
        """Factor on the learning rate at a step of a stage, counted from 0."""
        return decayed(step, steps, self.decay_at, self.decay)
