"""A power law fitted to costs: cost = factor · size ^ exponent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgead.schema import left_out

STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""97.5 % quantile of Student's t for 1, 2, … degrees of freedom."""


@dataclass(frozen=True)
class PowerLaw:
    """A fitted power law.

    Attributes:
        exponent: slope of log cost over log size.
        interval: of the exponent, 95 %, by Student's t; None of two points.
        factor: cost at size 1.
    """

    exponent: float
    factor: float
    interval: tuple[float, float] | None = left_out()

    def at(self, size: float) -> float:
        """Return the fitted cost."""
        return float(self.factor * size**self.exponent)

    def describe(self) -> str:
        """Return the exponent with its interval."""
        if self.interval is None:
            return f"{self.exponent:.2f}"
        return f"{self.exponent:.2f} ({self.interval[0]:.2f} to {self.interval[1]:.2f})"


def fit_power_law(points: Sequence[tuple[float, float]]) -> PowerLaw:
    """Fit least squares of logarithms to points (size, cost), all above 0.

    Raises:
        ValueError: fewer than two sizes.
    """
    x, y = np.log(np.asarray(points, np.float64)).T
    spread = float(((x - x.mean()) ** 2).sum())
    if len(points) < 2 or not spread > 0:
        raise ValueError("a power law needs two different sizes")
    exponent = float(((x - x.mean()) * (y - y.mean())).sum() / spread)
    factor = math.exp(float(y.mean()) - exponent * float(x.mean()))
    freedom = len(points) - 2
    if not freedom:
        return PowerLaw(exponent, factor)
    left = y - math.log(factor) - exponent * x
    error = math.sqrt(float((left**2).sum()) / freedom / spread)
    margin = STUDENT[min(freedom, len(STUDENT)) - 1] * error
    return PowerLaw(exponent, factor, (exponent - margin, exponent + margin))
