"""Does a bundle still give here what it gave where it was made?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgead.bundle import Bundle
from edgead.runtime.engines import Engine


@dataclass(frozen=True)
class GoldenCheck:
    """Largest absolute differences of an engine from the golden outputs, and what is allowed."""

    frames: int
    score_error: float
    map_error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return max(self.score_error, self.map_error) <= self.tolerance  # False for NaN


def check_golden(bundle: Bundle, engine: Engine) -> GoldenCheck:
    """Run a bundle's golden frames on an engine and compare."""
    golden = bundle.golden()
    outputs = [engine.infer(golden.frames[index : index + 1]) for index in range(len(golden.frames))]
    return GoldenCheck(
        frames=len(golden.frames),
        score_error=float(np.abs(np.concatenate([scores for scores, _ in outputs]) - golden.scores).max()),
        map_error=float(np.abs(np.concatenate([maps for _, maps in outputs]) - golden.maps).max()),
        tolerance=bundle.manifest.parity["tolerance"],
    )
