"""What every method is configured with, and how its schedule is counted."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, ClassVar

from edgead import schema
from edgead.bundle.manifest import Side
from edgead.errors import ConfigError
from edgead.schema import Within

LARGEST = 1e30
"""No setting makes sense beyond it, and a few steps beyond it float32 ends."""

MOST_STEPS = 1_000_000_000
Count = Annotated[int, Within(1, MOST_STEPS)]
Positive = Annotated[float, Within(0, above=True)]
NotNegative = Annotated[float, Within(0)]
Share = Annotated[float, Within(0, 1)]

Setting = bool | int | float | str | tuple[int, ...] | tuple[float, ...]
"""A setting's value."""


@dataclass(frozen=True)
class MethodConfig:
    """What every method is configured with; a method adds its own fields.

    The fields' types say what is allowed (`edgead.schema`). `__post_init__` checks that, and in a method's class what
    a single field's type cannot say.
    """

    step_settings: ClassVar[tuple[str, ...]] = ()
    """Settings that are numbers of optimiser steps: first that of the method's own training, then its pretraining's.
    Empty where nothing is optimised."""

    paths: ClassVar[tuple[str, ...]] = ("foreground",)
    """Settings that may be paths of the machine that trains; a bundle, which goes to others, keeps the last part."""

    size: tuple[Side, Side] = (256, 256)
    """Input height and width, pixels."""
    batch_size: Count = 8
    """Images in one optimiser step, over all processes."""

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, (int, float)) and not abs(number) < LARGEST:  # nan is not less either
                    raise ConfigError(f"{name} must be a finite number below {LARGEST:.0e}, not {number}.")
        schema.check(self)

    @property
    def reads_depth(self) -> bool:
        """Whether frames have a fourth channel, depth."""
        return False

    @property
    def channels(self) -> int:
        """Of a frame: 3, or 4 with depth."""
        return 4 if self.reads_depth else 3

    # A method that has one of the next two as a setting has a field of that name.

    @property
    def foreground(self) -> str:
        """Where on the part synthetic anomalies are put (`edgead.train.foreground`); empty: the method does not ask."""
        return ""

    @property
    def backbone(self) -> str:
        """Name of the pretrained network; empty where there is none."""
        return ""

    def replaced(self, **values: Any) -> MethodConfig:
        """Return a copy with other values of these settings, checked."""
        return dataclasses.replace(self, **values)

    def total_steps(self, epoch: Fraction) -> int:
        """Optimiser steps of the whole training, where an epoch has that many (`RunConfig.steps_in_epoch`)."""
        return 0

    def schedule(self, epoch: Fraction) -> str:
        """Describe how `total_steps` is determined."""
        return "0 steps: one pass over the good images, nothing is optimised"


@dataclass(frozen=True)
class OptimisedConfig(MethodConfig):
    """What a method is configured with that optimises its weights."""

    step_settings: ClassVar[tuple[str, ...]] = ("steps",)

    epochs: Count = 700
    """Passes over the good images, as published: an epoch is N / batch_size steps, rounded up, where N are all good
    images, those held out for the threshold too."""
    steps: Annotated[int, Within(0, MOST_STEPS)] = 0
    """Optimiser steps; 0 means that `epochs` decides. The learning rate's decay is scaled with them."""
    learning_rate: Positive = 1e-4
    """The optimiser's step size before any decay."""

    # A method that has one of the next two as a setting has a field of that name.

    @property
    def decay_at(self) -> tuple[float, ...]:
        """Shares of a stage after which the learning rate is multiplied by `decay`; empty: it is constant."""
        return ()

    @property
    def decay(self) -> float:
        """Factor on the learning rate at each of those points."""
        return 1.0

    def learning_rate_factor(self, step: int, steps: int) -> float:
        """Factor on the learning rate at a step of a stage of so many, counted from 0."""
        return self.decay ** sum(step >= share * steps for share in self.decay_at)

    def total_steps(self, epoch: Fraction) -> int:
        return self.steps or math.ceil(self.epochs * epoch)

    def schedule(self, epoch: Fraction) -> str:
        total = f"{self.total_steps(epoch):,} steps"
        return total if self.steps else f"{total} = {self.epochs} epochs of {float(epoch):g}"


def steps_in_epoch(images: int, batch_size: int) -> Fraction:
    """Return the optimiser steps in an epoch, as the published codes' loaders count: the last batch may be smaller."""
    return Fraction(math.ceil(Fraction(images, batch_size)))
