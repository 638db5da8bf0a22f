"""The configuration of DifferNet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgead.errors import ConfigError
from edgead.train.backbones import LEVELS
from edgead.train.method import MethodConfig


@dataclass(frozen=True)
class DiffernetConfig(MethodConfig):
    """Configuration of DifferNet; the defaults are the published training."""

    size: tuple[int, int] = (448, 448)
    """Input height and width, pixels."""
    batch_size: int = 24
    """Images in one optimiser step; each is seen `train_views` times."""
    epochs: int = 192
    """Passes over the training images (24 × 8 in the published code)."""
    learning_rate: float = 2e-4
    """Adam's step size, constant."""
    backbone: str = "alexnet"
    """A classification network of torchvision, or resnet50v2."""
    layer: str = ""
    """The layer whose features are pooled; where empty, the last that is listed for the backbone."""
    scales: int = 3
    """The image is seen at its size, at half of it, at a quarter, …"""
    blocks: int = 8
    """Couplings of the flow."""
    hidden: int = 2048
    """Width of the three hidden layers of each coupling's networks."""
    clamp: float = 3.0
    """α: bounds the logarithm of a coupling's scale to about ±α."""
    weight_decay: float = 1e-5
    """Adam's, on the flow."""
    rotate_degrees: float = 180.0
    """Largest rotation either way, when training and when scoring. Set to 0 (and views to 1) where a turned part is
    itself a defect."""
    train_views: int = 4
    """Random rotations of each image in one step."""
    views: int = 64
    """Fixed rotations that are scored; latency is proportional to them."""
    cached_views: int = 0
    """Rotations of each training image whose features are computed once and then drawn from, which makes the flow
    train in minutes. 0 draws new angles, and computes the features, in every step, as published."""
    map_sigma: float = 8.0
    """Gaussian on the pixel map, pixels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("scales", "blocks", "hidden", "clamp", "train_views", "views"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be positive, not {getattr(self, name)}.")
        for name in ("weight_decay", "cached_views", "map_sigma"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} cannot be negative: {getattr(self, name)}.")
        if not 0 <= self.rotate_degrees <= 180:
            raise ConfigError(f"rotate_degrees must lie between 0 and 180, not {self.rotate_degrees}.")
        if self.rotate_degrees == 0 and self.views > 1:
            raise ConfigError(f"Without rotation all {self.views} views are the same: --set views=1.")
        step = 2 ** (self.scales - 1)
        if any(side % step for side in self.size):
            raise ConfigError(f"With {self.scales} scales both sides must be multiples of {step}, not {self.size}.")
        if not self.layer and self.backbone not in LEVELS:
            raise ConfigError(f"Say which layer of {self.backbone} is pooled: --set layer=NAME.")
        if 0 < self.cached_views < self.train_views:
            raise ConfigError(f"cached_views must be at least train_views ({self.train_views}), or 0.")

    def angles(self) -> NDArray[np.float64]:
        """The rotations that are scored, degrees."""
        if self.rotate_degrees == 180:
            return np.arange(self.views, dtype=np.float64) * (360 / self.views)
        middle = (np.arange(self.views) + 0.5) / self.views * 2 - 1
        return np.asarray(middle * self.rotate_degrees)
