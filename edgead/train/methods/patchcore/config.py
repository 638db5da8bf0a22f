"""The configuration of PatchCore."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from edgead.errors import ConfigError
from edgead.schema import OneOf
from edgead.train.backbones import LEVELS
from edgead.train.method_config import Count, MethodConfig, NotNegative


@dataclass(frozen=True)
class PatchcoreConfig(MethodConfig):
    """Configuration of PatchCore; the defaults are the published ones."""

    size: tuple[Count, Count] = (224, 224)
    """Input height and width, pixels."""
    batch_size: Count = 8
    """Images that the backbone sees at once while the memory is filled."""
    backbone: Annotated[str, OneOf(tuple(LEVELS))] = "wide_resnet50_2"
    """The pretrained network, with three levels listed in `edgead.train.backbones.LEVELS`."""
    levels: tuple[Count, ...] = (2, 3)
    """Levels of the backbone whose features describe a place, from 1, ascending. The first one's places are used."""
    window: Count = 3
    """Each feature is the mean over a square of this many places a side; odd."""
    cosine: bool = False
    """Compare directions of features (each level's scaled to length 1) instead of features as they are."""
    memory: Count = 2048
    """Features in the memory. The time of an inference grows with it; it does not depend on the number of images."""
    map_sigma: NotNegative = 4.0
    """Gaussian on the pixel map, pixels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.levels or list(self.levels) != sorted(set(self.levels)) or self.levels[-1] > 3:
            raise ConfigError(f"levels must be some of 1,2,3, ascending, not {self.levels}.")
        if self.window % 2 == 0:
            raise ConfigError(f"window must be odd, not {self.window}.")
