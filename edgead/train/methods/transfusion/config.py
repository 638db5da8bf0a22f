"""What TransFusion is configured with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from edgead.errors import ConfigError
from edgead.schema import Within
from edgead.train.foreground import check_foreground
from edgead.train.method_config import Count, NotNegative, OptimisedConfig, Positive, Share
from edgead.train.methods.transfusion.diffusion import FIRST
from edgead.train.methods.transfusion.network import FINAL_NORM_GROUPS
from edgead.train.methods.transfusion.preprocessing import LEARNED


@dataclass(frozen=True)
class TransfusionConfig(OptimisedConfig):
    """Configuration of TransFusion; the defaults are the published training for colour images."""

    depth: bool = False
    """Learn from colour and depth (docs/depth.md): a network of two halves, one for each."""
    depth_shift: Share = 0.1
    """Largest displacement of a synthetic anomaly's surface either way, as a share of the depth range."""
    depth_values: tuple[float, float] = LEARNED
    """What the nearest and the farthest depth of the range are to the network: -1 and 0 where edgead trains it. An
    imported checkpoint has the publication's scale."""
    epochs: Count = 1500
    """Passes over the training images."""
    learning_rate: Positive = 1e-5
    """AdamW's step size before decay. The published code's default."""
    width: int = 64
    """Channels of the U-Net at full resolution, a multiple of 8 and of `norm_groups`. With depth, 128 is published."""
    norm_groups: Count = 32
    """Groups of the blocks' group norms. With one channel per group, the norm removes what the embedded time adds."""
    multipliers: tuple[Count, ...] = (1, 2, 2, 2)
    """Factor on the channels from each level to the next; a level has half the resolution of the one above."""
    attention_levels: tuple[int, ...] = (2, 3)
    """Levels with attention, from 0; the lowest point always has it. Its cost grows with the level's pixels squared."""
    blocks: Count = 2
    """Blocks of a level on the way down; one more on the way up."""
    decay_at: tuple[float, ...] = (800 / 1500,)
    """Shares of the training after which the learning rate is multiplied by `decay`."""
    decay: Positive = 0.1
    """Factor on the learning rate at each of those points."""
    structural_share: Share = 0.5
    """Share of the anomalies that are made of the image's own shuffled patches; the others of texture pictures."""
    foreground: str = "auto"
    """Where on the part anomalies are put: auto, all, bright, dark, disc, or a folder of masks, widened by two pixels.
    The published code reads masks that a segmentation network made, and takes everything for textures."""
    rotate_share: Share = 0.3
    """Share of the examples that are rotated. Set to 0 where a turned part is itself a defect."""
    rotate_degrees: NotNegative = 20.0
    """Largest rotation either way, degrees."""
    reverse_steps: Annotated[int, Within(1, FIRST)] = 18
    """Steps of the reverse process in the graph, 1 to 18 (published). Cost is in proportion. Open at export."""
    reconstruction_weight: Share = 0.05
    """Weight of the squared change of the image in the map; the rest is the mean mask. Open at export."""

    def __post_init__(self) -> None:
        super().__post_init__()
        levels = len(self.multipliers)
        if not levels:
            raise ConfigError("multipliers must have at least one number.")
        unit = 2 ** (levels - 1)
        if any(side % unit for side in self.size):
            near = "x".join(str(max(unit, round(side / unit) * unit)) for side in self.size)
            raise ConfigError(
                f"TransFusion with {levels} levels needs input sides that are multiples of {unit}, "
                f"not {self.size[0]}x{self.size[1]}. The nearest: --set size={near}"
            )
        for groups in (self.norm_groups, FINAL_NORM_GROUPS):
            if self.width < groups or self.width % groups:
                raise ConfigError(f"width must be a multiple of {groups} (group norms), not {self.width}.")
        if any(not 0 <= level < levels for level in self.attention_levels):
            raise ConfigError(f"attention_levels must lie between 0 and {levels - 1}, not {self.attention_levels}.")
        if len(self.depth_values) != 2 or not self.depth_values[0] < self.depth_values[1]:
            raise ConfigError(f"depth_values must be two increasing numbers, not {self.depth_values}.")
        check_foreground(self.foreground)

    @property
    def reads_depth(self) -> bool:
        return self.depth
