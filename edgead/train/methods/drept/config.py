"""The configuration of DRepT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from edgead.errors import ConfigError
from edgead.schema import Within
from edgead.train.method_config import MOST_STEPS, Count, NotNegative, OptimisedConfig, Positive, Share
from edgead.train.methods.drept.network import check_size


@dataclass(frozen=True)
class DreptConfig(OptimisedConfig):
    """Configuration of DRepT; the defaults are the published training."""

    step_settings: ClassVar[tuple[str, ...]] = ("steps", "removal_steps", "defect_steps")

    size: tuple[Count, Count] = (128, 128)
    """Input height and width, pixels: at least 64 and multiples of 8; of 16, 32 or 64 if the shorter side is at least
    128, 256 or 512."""
    batch_size: Count = 16
    """Target images in a step; and good and defective images each in a step of the defect removal."""
    steps: Annotated[int, Within(0, MOST_STEPS)] = 10_000
    """Optimiser steps of the segmentation network."""
    learning_rate: Positive = 2e-4
    """Adam's step size for the networks, constant."""
    width: Count = 64
    """Channels of the segmentation network's first level; the deepest have eight times as many."""
    source_width: Count = 64
    """The same for the defect-removal network and its discriminator."""
    removal_steps: Count = 10_000
    """Optimiser steps of the defect removal, for each donor."""
    identity_weight: NotNegative = 40.0
    """Weight of what the removal changes on good images, beside what the discriminator says."""
    components: Count = 30
    """Gaussians in one defect."""
    defect_steps: Count = 10_000
    """Optimiser steps in which the defects of a donor are fitted, all at once."""
    defect_learning_rate: Positive = 5e-3
    """Adam's step size for them."""
    unchanged_weight: NotNegative = 0.2
    """Weight of opacity where the removal changed nothing."""
    hue_degrees: NotNegative = 360.0
    """The hue of a defect is turned by up to this. Set to 0 where the colour of a defect is known to matter."""
    shift: NotNegative = 1.0
    """A defect is shifted by up to this, in halves of the image, along either side."""
    random_extent: Annotated[float, Within(0, 1, above=True)] = 1.0
    """Without donors: random mixtures are shrunk, each by a factor between this and 1. The published ones (1) cover
    half of the image; small defects want small ones."""
    seen_change: float = 0.15
    """A Gaussian that changes the image by no more than this is left out; the image's range is 2."""
    seen_opacity: Share = 0.15
    """Pixels of more than this opacity are the defect's mask."""
    score_window: Count = 1
    """Side of the mean filter whose maximum is the image score, pixels, odd. The published score is the maximum of
    single pixels; 5 is less noisy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size(self.size)
        if self.score_window % 2 == 0:
            raise ConfigError(f"score_window must be odd, not {self.score_window}.")
        if self.seen_opacity == 1:
            raise ConfigError("seen_opacity must be below 1: no pixel is more than opaque.")
