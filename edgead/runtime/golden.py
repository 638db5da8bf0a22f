"""Compares an engine's outputs with a bundle's reference outputs, at export and whenever a bundle is opened."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import Bundle, Golden
from edgead.errors import DeviceError
from edgead.runtime.engines import Engine

MOST_OF_SPREAD = 0.25
"""Largest tolerance as a share of the outputs' spread. Constant outputs differ by at least half the spread."""


@dataclass(frozen=True)
class Agreement:
    """Largest absolute differences from the reference, in units of the score, and their limits."""

    frames: int
    score_error: float
    map_error: float
    tolerance: float
    map_tolerance: float

    @property
    def good(self) -> bool:
        """Whether both errors are within their limits. NaN is not."""
        return self.score_error <= self.tolerance and self.map_error <= self.map_tolerance

    @property
    def largest(self) -> float:
        """The larger of the two errors."""
        return float(np.maximum(self.score_error, self.map_error))

    def describe(self) -> str:
        """Return the errors and limits in half a line."""
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

    If the bundle has graphs of a lower precision, the one with the best agreement counts: the engine runs one of them,
    or one that was quantised in the same way.

    Args:
        tolerance: limit for the scores, and for the maps if `map_tolerance` is None.
    """
    limit = tolerance if map_tolerance is None else map_tolerance
    errors = [
        (_largest_difference(scores, wanted), _largest_difference(maps, wanted_maps))
        for wanted, wanted_maps in reference.variants or ((reference.scores, reference.maps),)
    ]
    best = min(errors, key=lambda each: max(each[0] * limit, each[1] * tolerance))  # relative to what is allowed
    return Agreement(len(reference.frames), *best, tolerance, limit)


def _largest_difference(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """Return infinity for another shape: OpenVINO returns no scores, and no error, on one core with only SSE 4.1."""
    with np.errstate(invalid="ignore"):  # infinite on both sides: NaN, which is above every limit
        return float(np.abs(found - wanted).max()) if found.shape == wanted.shape else np.inf


def check_golden(bundle: Bundle, engine: Engine, batch: int = 1) -> Agreement:
    """Run a bundle's golden frames on an engine, one by one and in one batch, and compare with the reference outputs.

    Args:
        bundle: holds the frames, the reference outputs and the tolerances.
        engine: the engine. One that is not `exact` may differ by a quarter of the reference outputs' spread.
        batch: size of the batch; engines may use other kernels for it than for a single frame.
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
    """Refuse an engine with outputs that differ from the reference outputs.

    Raises:
        DeviceError: they differ.
    """
    if not agreement.good:
        raise DeviceError(
            f"On this machine the output of {engine} differs from the reference outputs stored in the bundle: "
            f"{agreement.describe()}.\nUse another engine, or export the bundle at another precision."
        )
