"""Does an engine give what the trained network gave? Asked at export, and whenever a bundle is opened."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import Bundle, Golden
from edgead.errors import DeviceError
from edgead.runtime.engines import Engine

MOST_OF_SPREAD = 0.25
"""Most of the outputs' spread that may be allowed: an engine that gives the same for every frame is half of it away."""


@dataclass(frozen=True)
class Agreement:
    """Largest absolute differences from the reference, in units of the score, and what is allowed."""

    frames: int
    score_error: float
    map_error: float
    tolerance: float
    map_tolerance: float

    @property
    def good(self) -> bool:
        """Within the tolerance. Errors that are not a number are not."""
        return self.score_error <= self.tolerance and self.map_error <= self.map_tolerance

    @property
    def largest(self) -> float:
        """The larger of the two errors."""
        return float(np.maximum(self.score_error, self.map_error))

    def describe(self) -> str:
        """Say it in half a line."""
        return (
            f"scores within {self.score_error:.2g} (allowed {self.tolerance:.2g}), "
            f"maps within {self.map_error:.2g} (allowed {self.map_tolerance:.2g})"
        )


def compare(
    reference: Golden,
    scores: NDArray[np.float32],
    maps: NDArray[np.float32],
    tolerance: float,
    map_tolerance: float | None = None,
) -> Agreement:
    """Compare an engine's scores ``[K]`` and maps ``[K, H, W]`` on the reference's frames with the reference.

    Where there are graphs of a lower precision, with the one that it agrees with best: an engine runs one of them, or
    one that was quantised alike.

    Args:
        tolerance: for the scores, and for the maps where they have no other.
    """
    limit = tolerance if map_tolerance is None else map_tolerance
    errors = [
        (_largest_difference(scores, wanted), _largest_difference(maps, wanted_maps))
        for wanted, wanted_maps in reference.variants or ((reference.scores, reference.maps),)
    ]
    best = min(errors, key=lambda each: max(each[0] * limit, each[1] * tolerance))  # relative to what is allowed
    return Agreement(len(reference.frames), *best, tolerance, limit)


def _largest_difference(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """Infinity for another shape: OpenVINO on a single core with SSE 4.1 alone gave no scores at all, and no error."""
    return float(np.abs(found - wanted).max()) if found.shape == wanted.shape else np.inf


def check_golden(bundle: Bundle, engine: Engine, batch: int = 1) -> Agreement:
    """Run a bundle's golden frames on an engine, one by one and in one batch, and compare with the golden outputs.

    Args:
        bundle: with the frames, what they must give, and what an engine may differ from that.
        engine: what is checked. One that is not `exact` may differ by a quarter of the golden outputs' spread.
        batch: size of the batch; engines may run it with other kernels than a single frame.
    """
    golden, parity = bundle.golden(), bundle.manifest.parity
    limits = [parity.tolerance, parity.tolerance if parity.map_tolerance is None else parity.map_tolerance]
    if not getattr(engine, "exact", True):
        spreads = [float(np.ptp(values)) for values in (golden.scores, golden.maps)]
        limits = [max(limit, MOST_OF_SPREAD * spread) for limit, spread in zip(limits, spreads)]
    count = len(golden.frames)
    outputs = [engine.infer(golden.frames[index : index + 1]) for index in range(count)]
    scores, maps = (np.concatenate(parts) for parts in zip(*outputs))
    found = compare(golden, scores, maps, *limits)
    if batch > 1 and found.good and bundle.manifest.input.batch != 1:
        order = np.arange(batch) % count
        forms = tuple((scores[order], maps[order]) for scores, maps in golden.variants)
        repeated = Golden(golden.frames[order], golden.scores[order], golden.maps[order], forms)
        together = compare(repeated, *engine.infer(repeated.frames), *limits)
        found = dataclasses.replace(together, frames=count) if not together.good else found
    return found


def require_agreement(agreement: Agreement, engine: str) -> None:
    """Refuse an engine that does not give the golden outputs.

    Raises:
        DeviceError: with what to do.
    """
    if not agreement.good:
        raise DeviceError(
            f"On this machine {engine} does not give what the bundle must give: {agreement.describe()}.\n"
            "Do not use it here; try another engine, or another precision of the bundle."
        )
