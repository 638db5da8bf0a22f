"""Is the exported graph the network that was trained? Measured on real frames, refused above a tolerance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import Golden
from edgead.errors import GateError
from edgead.runtime.golden import MOST_OF_SPREAD, Agreement, compare

if TYPE_CHECKING:  # a graph that comes as ONNX is compared without torch
    from torch import nn

TOLERANCE = 1e-4
"""Largest difference of a score or map value, relative to the largest reference value where that exceeds 1."""

HALF_TOLERANCE = 2e-3
"""The same for a graph in half precision: engines differ in where they round."""


def run_reference(detector: nn.Module, frames: NDArray[np.uint8]) -> Golden:
    """Run the trained network frame by frame on the CPU."""
    import torch

    detector = detector.cpu()
    with torch.inference_mode():
        outputs = [detector(torch.from_numpy(frame[None])) for frame in frames]
    scores = np.concatenate([scores.numpy() for scores, _ in outputs])
    maps = np.concatenate([maps.numpy() for _, maps in outputs])
    return Golden(frames, scores, maps)


def check_parity(
    reference: Golden, scores: NDArray[np.float32], maps: NDArray[np.float32], tolerance: float = TOLERANCE
) -> Agreement:
    """Compare an engine's output with the trained network's; the tolerance is relative, as `TOLERANCE`.

    Scores or maps that are all small are held to less, a quarter of their spread; but a tenth of the tolerance is left
    for rounding, for networks that hardly tell frames apart.

    Raises:
        GateError: above the tolerance, or not finite.
    """
    most = tolerance * max(1.0, float(np.abs(reference.scores).max()), float(np.abs(reference.maps).max()))
    limits = [
        min(most, max(MOST_OF_SPREAD * float(np.ptp(values)), 0.1 * tolerance * float(np.abs(values).max())))
        for values in (reference.scores, reference.maps)
    ]
    agreement = compare(reference, scores, maps, *limits)
    if not agreement.good:
        raise GateError(
            f"The exported graph is not the trained network: scores differ by {agreement.score_error:.2g} (allowed "
            f"{agreement.tolerance:.2g}), maps by {agreement.map_error:.2g} (allowed {agreement.map_tolerance:.2g}). "
            "No bundle was written."
        )
    return agreement
