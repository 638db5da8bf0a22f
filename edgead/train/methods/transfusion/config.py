"""What TransFusion is configured with."""

from __future__ import annotations

from dataclasses import dataclass

from edgead.errors import ConfigError
from edgead.train.foreground import check_foreground
from edgead.train.method import MethodConfig, decayed
from edgead.train.methods.transfusion.diffusion import FIRST
from edgead.train.methods.transfusion.network import NORM_GROUPS
from edgead.train.methods.transfusion.preprocessing import LEARNED


@dataclass(frozen=True)
class TransfusionConfig(MethodConfig):
    """Configuration of TransFusion; the defaults are the published training for colour images."""

    depth: bool = False
    """Learn from colour and depth (docs/depth.md): a network of two halves, one for each."""
    depth_shift: float = 0.1
    """Largest displacement of a synthetic anomaly's surface either way, as a share of the depth range."""
    depth_values: tuple[float, ...] = LEARNED
    """What the nearest and the farthest depth of the range are to the network: -1 and 0 where edgead trains it. An
    imported checkpoint has the publication's scale."""
    epochs: int = 1500
    """Passes over the training images."""
    learning_rate: float = 1e-5
    """AdamW's step size before decay. The published code's default."""
    width: int = 64
    """Channels of the U-Net at full resolution, a multiple of 32. With depth the publication has 128."""
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    """Factor on the channels from each level to the next; a level has half the resolution of the one above."""
    attention_levels: tuple[int, ...] = (2, 3)
    """Levels with attention, from 0; the lowest point always has it. Its cost grows with the level's pixels squared."""
    blocks: int = 2
    """Blocks of a level on the way down; one more on the way up."""
    decay_at: tuple[float, ...] = (800 / 1500,)
    """Shares of the training after which the learning rate is multiplied by `decay`."""
    decay: float = 0.1
    """Factor on the learning rate at each of those points."""
    structural_share: float = 0.5
    """Share of the anomalies that are made of the image's own shuffled patches; the others of texture pictures."""
    foreground: str = "auto"
    """Where on the part anomalies are put: auto, all, bright, dark, disc, or a folder of masks, widened by two pixels.
    The published code reads masks that a segmentation network made, and takes everything for textures."""
    rotate_share: float = 0.3
    """Share of the examples that are rotated. Set to 0 where a turned part is itself a defect."""
    rotate_degrees: float = 20.0
    """Largest rotation either way, degrees."""
    reverse_steps: int = 18
    """Steps of the reverse process in the graph, 1 to 18 (published). Cost is in proportion. Open at export."""
    reconstruction_weight: float = 0.05
    """Weight of the squared change of the image in the map; the rest is the mean mask. Open at export."""

    def __post_init__(self) -> None:
        super().__post_init__()
        levels = len(self.multipliers)
        unit = 2 ** (levels - 1)
        if any(side % unit for side in self.size):
            near = "x".join(str(max(unit, round(side / unit) * unit)) for side in self.size)
            raise ConfigError(
                f"TransFusion with {levels} levels needs input sides that are multiples of {unit}, "
                f"not {self.size[0]}x{self.size[1]}. The nearest: --set size={near}"
            )
        if self.width < NORM_GROUPS or self.width % NORM_GROUPS:
            raise ConfigError(f"width must be a multiple of {NORM_GROUPS} (group norms), not {self.width}.")
        if not levels or min(self.multipliers) < 1 or self.blocks < 1:
            raise ConfigError(f"multipliers and blocks must be at least 1, not {self.multipliers}, {self.blocks}.")
        if any(not 0 <= level < levels for level in self.attention_levels):
            raise ConfigError(f"attention_levels must lie between 0 and {levels - 1}, not {self.attention_levels}.")
        for name in ("structural_share", "rotate_share", "reconstruction_weight", "depth_shift"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie between 0 and 1, not {getattr(self, name)}.")
        if len(self.depth_values) != 2 or not self.depth_values[0] < self.depth_values[1]:
            raise ConfigError(f"depth_values are two rising numbers, not {self.depth_values}.")
        if self.decay <= 0 or self.rotate_degrees < 0:
            raise ConfigError("decay must be positive, and rotate_degrees not negative.")
        check_foreground(self.foreground)
        if not 1 <= self.reverse_steps <= FIRST:
            raise ConfigError(f"reverse_steps must lie between 1 and {FIRST}, not {self.reverse_steps}.")

    @property
    def reads_depth(self) -> bool:
        return self.depth

    def learning_rate_factor(self, step: int, steps: int) -> float:
        """Factor on the learning rate at a step, counted from 0."""
        return decayed(step, steps, self.decay_at, self.decay)
