"""The configuration of DifferNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from edgead.errors import ConfigError
from edgead.schema import Within
from edgead.train.backbones import LEVELS
from edgead.train.method_config import Count, NotNegative, OptimisedConfig, Positive


@dataclass(frozen=True)
class DiffernetConfig(OptimisedConfig):
    """Configuration of DifferNet; the defaults are the published training."""

    size: tuple[Count, Count] = (448, 448)
    """Input height and width, pixels."""
    batch_size: Count = 24
    """Images in one optimiser step; each is seen `train_views` times."""
    epochs: Count = 192
    """Passes over the training images (24 × 8 in the published code)."""
    learning_rate: Positive = 2e-4
    """Adam's step size, constant."""
    backbone: str = "alexnet"
    """A classification network of torchvision, or resnet50v2."""
    layer: str = ""
    """The layer to pool features of; if empty, the last one that is listed for the backbone."""
    scales: Count = 3
    """The image is seen at its size, at half of it, at a quarter, …"""
    blocks: Count = 8
    """Couplings of the flow."""
    hidden: Count = 2048
    """Width of the three hidden layers of each coupling's networks."""
    clamp: Positive = 3.0
    """α: bounds the logarithm of a coupling's scale to about ±α."""
    weight_decay: NotNegative = 1e-5
    """Adam's, on the flow."""
    rotate_degrees: Annotated[float, Within(0, 180)] = 180.0
    """Largest rotation either way, when training and when scoring. Set to 0 (and views to 1) where a turned part is
    itself a defect."""
    train_views: Count = 4
    """Random rotations of each image in one step."""
    views: Count = 64
    """Fixed rotations that are scored; latency is proportional to them."""
    cached_views: Annotated[int, Within(0)] = 0
    """Rotations of each training image whose features are computed once and then drawn from, which makes the flow
    train in minutes. 0 draws new angles, and computes the features, in every step, as published."""
    map_sigma: NotNegative = 8.0
    """Gaussian on the pixel map, pixels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rotate_degrees == 0 and self.views > 1:
            raise ConfigError(f"Without rotation all {self.views} views are the same: --set views=1.")
        step = 2 ** (self.scales - 1)
        if any(side % step for side in self.size):
            raise ConfigError(f"With {self.scales} scales both sides must be multiples of {step}, not {self.size}.")
        if not self.layer and self.backbone not in LEVELS:
            raise ConfigError(f"{self.backbone} has no default layer. Name the layer to pool: --set layer=NAME.")
        if 0 < self.cached_views < self.train_views:
            raise ConfigError(f"cached_views must be at least train_views ({self.train_views}), or 0.")

    def angles(self) -> NDArray[np.float64]:
        """The rotations that are scored, degrees."""
        if self.rotate_degrees == 180:
            return np.arange(self.views, dtype=np.float64) * (360 / self.views)
        middle = (np.arange(self.views) + 0.5) / self.views * 2 - 1
        return np.asarray(middle * self.rotate_degrees)
