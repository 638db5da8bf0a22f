"""The configuration of DRepT."""

from __future__ import annotations

from dataclasses import dataclass

from edgead.errors import ConfigError
from edgead.train.method import MethodConfig
from edgead.train.methods.drept.network import check_size


@dataclass(frozen=True)
class DreptConfig(MethodConfig):
    """Configuration of DRepT; the defaults are the published training."""

    size: tuple[int, int] = (128, 128)
    """Input height and width, pixels: at least 64, multiples of 8; by the shorter side, of 16 from 128 on, of 32 from
    256 on, of 64 from 512 on."""
    batch_size: int = 16
    """Target images in a step; and good and defective images each in a step of the defect removal."""
    steps: int = 10_000
    """Optimiser steps of the segmentation network."""
    learning_rate: float = 2e-4
    """Adam's step size for the networks, constant."""
    width: int = 64
    """Channels of the segmentation network's first level; the deepest have eight times as many."""
    source_width: int = 64
    """The same of the defect-removal network and its discriminator."""
    removal_steps: int = 10_000
    """Optimiser steps of the defect removal, for each donor."""
    identity_weight: float = 40.0
    """Weight of what the removal changes on good images, beside what the discriminator says."""
    components: int = 30
    """Gaussians in one defect."""
    defect_steps: int = 10_000
    """Optimiser steps in which the defects of a donor are fitted, all at once."""
    defect_learning_rate: float = 5e-3
    """Adam's step size for them."""
    unchanged_weight: float = 0.2
    """Weight of opacity where the removal changed nothing."""
    hue_degrees: float = 360.0
    """The hue of a defect is turned by up to this. Set to 0 where the colour of a defect is known to matter."""
    shift: float = 1.0
    """A defect is shifted by up to this, in halves of the image, along either side."""
    random_extent: float = 1.0
    """Without donors: random mixtures are shrunk, each by a factor between this and 1. The published ones (1) cover
    half of the image; small defects want small ones."""
    seen_change: float = 0.15
    """A Gaussian that changes the image by no more than this is left out; the image's range is 2."""
    seen_opacity: float = 0.15
    """Pixels of more than this opacity are the defect's mask."""
    score_window: int = 1
    """Side of the mean filter whose maximum is the image score, pixels, odd. The published score is the maximum of
    single pixels; 5 is less noisy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size(self.size)
        positive = ("width", "source_width", "removal_steps", "components", "defect_steps")
        for name in (*positive, "defect_learning_rate", "score_window"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be positive, not {getattr(self, name)}.")
        for name in ("identity_weight", "unchanged_weight", "hue_degrees", "shift"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} cannot be negative: {getattr(self, name)}.")
        if self.score_window % 2 == 0:
            raise ConfigError(f"score_window must be odd, not {self.score_window}.")
        if not 0 <= self.seen_opacity < 1:
            raise ConfigError(f"seen_opacity must lie between 0 and 1, not {self.seen_opacity}.")
        if not 0 < self.random_extent <= 1:
            raise ConfigError(f"random_extent must lie between 0 and 1, not {self.random_extent}.")
