"""The configuration of a student."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

from edgead.errors import ConfigError
from edgead.schema import OneOf, Within
from edgead.train.backbones import LEVELS
from edgead.train.method_config import MOST_STEPS, Count, NotNegative, OptimisedConfig, Share

COARSEST = 4
"""Pixels to a cell of the finest level that the map is decoded at, unless the stem is coarser."""

MOST_LEVELS = 5
"""Levels of an encoder; each has half the resolution of the one before."""

SMALLEST = 32
"""Least side of an image that a backbone sees."""


@dataclass(frozen=True)
class StudentConfig(OptimisedConfig):
    """Configuration of a student."""

    paths: ClassVar[tuple[str, ...]] = ("teacher",)

    batch_size: Count = 16
    """Images in one optimiser step, over all processes."""
    epochs: Count = 1
    """Not used: `steps` says how long it learns, whatever the number of good images."""
    steps: Annotated[int, Within(0, MOST_STEPS)] = 4000
    """Optimiser steps, over all rounds."""
    learning_rate: Annotated[float, Within(0, above=True)] = 2e-3
    """Adam's step size at the start; it falls to 0 as a cosine over all rounds."""
    teacher: str = ""
    """Folder of the bundle that is imitated; `edgead distil` sets it. It must see colour images without depth."""
    teacher_digest: str = ""
    """`digest` in the teacher's manifest; another bundle in that folder is refused. Empty: any is taken."""
    backbone: Annotated[str, OneOf(("", *LEVELS))] = ""
    """Pretrained network that encodes the image and is not trained. Empty: the student learns its encoder."""
    stem: Count = 2
    """Pixels per cell of the first learned level, along each side: 2, 4 or 8. Not used with a backbone."""
    widths: tuple[Count, ...] = (16, 32, 64, 96)
    """Channels of the levels, each half as fine as the one before. Multiples of 16 fill a CPU's INT8 kernels. With a
    backbone, the first three are levels of it; those above are learned."""
    blocks: Count = 1
    """Convolutions of each level after its first one."""
    pictures: Count = 2000
    """Images that the teacher is run on, over all rounds."""
    rounds: Count = 3
    """Parts of the training; each but the first begins with new images, half of them variants of the hardest ones."""
    anomaly_share: Share = 0.7
    """Share of the images that get synthetic anomalies; the others are good ones, jittered."""
    hard_share: Share = 0.3
    """Share of the examples that are drawn from the hardest quarter of the images."""
    shift: Share = 0.03
    """Largest shift of an image, as a share of its side."""
    turn: NotNegative = 4.0
    """Largest rotation of an image either way, degrees."""
    light: Share = 0.1
    """Largest relative change of an image's brightness."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backbone:
            self._check_backbone()
            return
        if self.stem not in (2, 4, 8):
            raise ConfigError(f"stem must be 2, 4 or 8, not {self.stem}.")
        if not 2 <= len(self.widths) <= MOST_LEVELS:
            raise ConfigError(f"widths must name 2 to {MOST_LEVELS} levels, not {len(self.widths)}.")
        if self.stem == 2 and len(self.widths) < 3:
            raise ConfigError("With stem 2 a student needs 3 levels or more; add one to widths, or set stem=4.")
        coarsest = self.stem * 2 ** (len(self.widths) - 1)
        if min(self.size) < coarsest:
            raise ConfigError(f"The sides of a student with these levels must be {coarsest} pixels or more.")

    def _check_backbone(self) -> None:
        if not 1 <= len(self.widths) <= MOST_LEVELS:
            raise ConfigError(f"widths must name 1 to {MOST_LEVELS} levels with a backbone, not {len(self.widths)}.")
        if min(self.size) < SMALLEST:
            raise ConfigError(f"The sides of a student with a backbone must be {SMALLEST} pixels or more.")

    def learning_rate_factor(self, step: int, steps: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * step / steps))

    def round_steps(self, total: int) -> list[int]:
        """Return the steps of each round, the same up to rounding."""
        ends = [total * number // self.rounds for number in range(self.rounds + 1)]
        return [end - start for start, end in pairwise(ends)]

    def round_pictures(self) -> list[int]:
        """Return the images that each round adds: half of all in the first, the others shared by the rest."""
        if self.rounds == 1:
            return [self.pictures]
        first = max(1, self.pictures // 2)
        rest = self.pictures - first
        ends = [rest * number // (self.rounds - 1) for number in range(self.rounds)]
        return [first, *(end - start for start, end in pairwise(ends))]
