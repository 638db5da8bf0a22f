"""Compare the outputs of an exported graph with those of its reference, on real frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import Golden
from edgead.errors import GateError
from edgead.runtime.golden import MOST_OF_SPREAD, Agreement, compare

PARITY_TOLERANCE = 1e-4
"""Largest difference of a score or map value, relative to the largest reference value where that exceeds 1."""

FLOAT16_TOLERANCE = 2e-3
"""The same for a float16 graph: engines round at different places."""


def check_parity(
    reference: Golden, scores: NDArray[np.float32], maps: NDArray[np.float32], tolerance: float = PARITY_TOLERANCE
) -> Agreement:
    """Compare a graph's outputs with its reference's; the tolerance is relative, see `PARITY_TOLERANCE`.

    Small scores or maps have a lower limit, a quarter of their spread. It is never below a tenth of the tolerance:
    rounding needs that in networks with nearly equal outputs for all frames.

    Raises:
        GateError: a difference is above the tolerance, or the reference's outputs are not finite.
    """
    if not (np.isfinite(reference.scores).all() and np.isfinite(reference.maps).all()):
        raise GateError(
            "The model's own scores or maps of these images are not finite (NaN or infinite): no part could pass. "
            "No bundle was written."
        )
    most = tolerance * max(1.0, float(np.abs(reference.scores).max()), float(np.abs(reference.maps).max()))
    limits = [
        min(most, max(MOST_OF_SPREAD * float(np.ptp(values)), 0.1 * tolerance * float(np.abs(values).max())))
        for values in (reference.scores, reference.maps)
    ]
    agreement = compare(reference, scores, maps, *limits)
    if not agreement.good:
        raise GateError(
            f"The exported graph does not reproduce the model: scores differ by {agreement.score_error:.2g} (allowed "
            f"{agreement.tolerance:.2g}), maps by {agreement.map_error:.2g} (allowed {agreement.map_tolerance:.2g}). "
            "No bundle was written."
        )
    return agreement
