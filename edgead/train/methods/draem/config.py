"""The configuration of DRAEM."""

from __future__ import annotations

from dataclasses import dataclass

from edgead.errors import ConfigError
from edgead.train.method_config import Count, NotNegative, OptimisedConfig, Positive, Share


@dataclass(frozen=True)
class DraemConfig(OptimisedConfig):
    """Configuration of DRAEM; the defaults are the published training."""

    reconstructive_width: Count = 128
    """Channels of the first stage of the reconstructive network; the deepest has eight times as many."""
    discriminative_width: Count = 64
    """Channels of the first stage of the discriminative network."""
    decay_at: tuple[float, ...] = (0.8, 0.9)
    """Shares of the training after which the learning rate is multiplied by `decay`. The paper's text says
    (0.571, 0.857) with 0.1; its code, which made the published weights, says this."""
    decay: Positive = 0.2
    """Factor on the learning rate at each of those points."""
    anomaly_share: Share = 0.5
    """Share of the examples that get a synthetic anomaly."""
    rotate_share: Share = 0.3
    """Share of the examples that are rotated first. Set to 0 where a turned part is itself a defect."""
    rotate_degrees: NotNegative = 90.0
    """Largest rotation either way, degrees."""
    lowest_opacity: Share = 0.2
    """Opacity of the texture is drawn from [this, 1]. The published code has 0.2, the paper 0.1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(side % 32 for side in self.size):
            raise ConfigError(f"DRAEM's input sides must be multiples of 32, not {self.size[0]}x{self.size[1]}.")
