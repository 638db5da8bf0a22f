"""Does an engine do here what the bundle promises? What `edgead doctor --build` and `export --format engine` ask."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from edgead.bundle import Bundle
from edgead.console import Console
from edgead.runtime.engines.opening import open_engine
from edgead.runtime.golden import Agreement, check_golden

ROUNDS = 50
"""Timed inferences, after the golden ones."""


@dataclass(frozen=True)
class EngineValidation:
    """What was found.

    Attributes:
        engine: its name with version.
        precision: of the bundle's graph.
        opening_seconds: to open it, a build included.
        golden: how far its outputs are from those that the bundle must give.
        latency_ms: p50 and p99 of one frame, upload and download included.
        recorded: whether each frame is one launch of a CUDA graph; None for engines that have none.
        by_hand: the command line of NVIDIA's own tool that builds the same engine; empty for those that are not built.
    """

    engine: str
    precision: str
    opening_seconds: float
    golden: Agreement
    latency_ms: dict[str, float]
    recorded: bool | None
    by_hand: str

    def describe(self) -> str:
        """Say it in lines."""
        golden = f"{self.golden.describe()} of the golden outputs"
        by_hand = f"\nThe same by hand:  {self.by_hand}" if self.by_hand else ""
        graph = {True: ", as a CUDA graph", False: ", not as a CUDA graph", None: ""}[self.recorded]
        return (
            f"{self.engine}, {self.precision}: opened in {self.opening_seconds:.1f} s\n"
            f"{'right' if self.golden.good else 'WRONG'}: {golden} on {self.golden.frames} frames\n"
            f"one frame takes {self.latency_ms['p50']:.2f} ms (p99 {self.latency_ms['p99']:.2f} ms){graph}{by_hand}"
        )


def validate_engine(
    bundle: Bundle, engine: str = "tensorrt", *, batch: int = 1, console: Console | None = None
) -> EngineValidation:
    """Open a bundle on an engine, building it where that is needed, run its golden frames and time it.

    Raises:
        EdgeadError: it cannot be opened or run; see `edgead.runtime.engines.opening.open_engine`.
    """
    start = time.perf_counter()
    opened = open_engine(engine, bundle, batch=batch, console=console)
    try:
        opening = time.perf_counter() - start
        golden = check_golden(bundle, opened, batch)
        frames, times = bundle.golden().frames, []
        for number in range(ROUNDS):
            start = time.perf_counter()
            opened.infer(frames[number % len(frames)][None])
            times.append((time.perf_counter() - start) * 1e3)
        p50, p99 = np.percentile(times, [50, 99])
        return EngineValidation(
            engine=opened.name,
            precision=bundle.manifest.precision,
            opening_seconds=round(opening, 3),
            golden=golden,
            latency_ms={"p50": round(float(p50), 4), "p99": round(float(p99), 4)},
            recorded=getattr(opened.inner, "recorded", None),
            by_hand=getattr(opened.inner, "by_hand", ""),
        )
    finally:
        opened.close()
