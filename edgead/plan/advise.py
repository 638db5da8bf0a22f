"""What would have to change so that a candidate meets the numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

from edgead.plan.profile import Times
from edgead.plan.simulate import Forecast, Load, simulate

LARGEST_LOSS = 0.001
"""Largest share of frames that may be dropped or stale."""
FASTEST = 32.0
"""Largest speed-up that is looked for."""
STEPS = 7
"""Halvings in a search."""


def meets(forecast: Forecast, load: Load) -> bool:
    """Tell whether 99 % of the verdicts come within the deadline and almost no frame is lost."""
    return forecast.p99 <= load.deadline and forecast.dropped + forecast.stale <= LARGEST_LOSS


@dataclass(frozen=True)
class Advice:
    """Changes each of which alone would do. None: this change alone does not help.

    Attributes:
        cameras: largest number of cameras, at the same frame rate.
        fps: largest frame rate, with the same cameras.
        speed_up: the engine has to be this many times as fast.
        deadline: shortest deadline, milliseconds, if the engine keeps up.
    """

    cameras: int | None
    fps: float | None
    speed_up: float | None
    deadline: float | None

    def describe(self) -> str:
        """Return a sentence about the changes."""
        found = []
        if self.cameras is not None:
            found.append(f"{self.cameras} camera{'s' * (self.cameras > 1)}")
        if self.fps is not None:
            found.append(f"{self.fps:g} frames per second")
        if self.deadline is not None:
            found.append(f"a deadline of {self.deadline:g} ms")
        if self.speed_up is not None:
            found.append(f"an engine {self.speed_up:g} times as fast (INT8, a smaller preset, more cores, a GPU)")
        if not found:
            return "No single change is enough: combine fewer cameras with a faster engine."
        return f"It would be fast enough with {', or '.join(found)}."


def advise(times: Times, load: Load, forecast: Forecast) -> Advice:
    """Search for the changes by simulation.

    Args:
        times: of a candidate that does not meet the numbers.
        load: the numbers.
        forecast: of the candidate.
    """

    def fits(speed_up: float = 1.0, **changes: float) -> bool:
        changed = dataclasses.replace(load, **changes)  # type: ignore[arg-type]
        return meets(simulate(times, changed, speed_up), changed)

    fewer = (number for number in range(load.cameras - 1, 0, -1) if fits(cameras=number))
    keeps_up = forecast.dropped + forecast.stale <= LARGEST_LOSS
    return Advice(
        cameras=next(fewer, None),
        fps=_largest(lambda fps: fits(fps=fps), load.fps),
        speed_up=_smallest(lambda speed_up: fits(speed_up), FASTEST),
        deadline=float(math.ceil(forecast.p99)) if keeps_up else None,
    )


def _largest(fits: Callable[[float], bool], refused: float) -> float | None:
    """Return the largest value below a refused one that fits, to 1 % of that one; None if there is none.

    It is rounded down: to two digits below 10, else to a whole number.
    """
    low, high = refused / 2**STEPS, refused
    if not fits(low):
        return None
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    scale: int = 10 ** max(0, 1 - math.floor(math.log10(low)))
    return float(math.floor(low * scale) / scale)


def _smallest(fits: Callable[[float], bool], largest: float) -> float | None:
    """Return the smallest factor above 1 that fits, rounded up to one decimal; None if the largest does not fit."""
    if not fits(largest):
        return None
    low, high = 1.0, largest
    for _ in range(STEPS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    return math.ceil(high * 10) / 10
