"""Validation of an engine on this machine, for `edgead doctor --build` and `edgead export --format engine`."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

import numpy as np

from edgead.bundle import Bundle
from edgead.console import Console
from edgead.runtime.engines.opening import open_engine
from edgead.runtime.engines.tiled import batch_for
from edgead.runtime.golden import Agreement, check_golden

ROUNDS = 50
"""Timed inferences, after those on the golden frames."""


@dataclass(frozen=True)
class EngineValidation:
    """Result of a validation.

    Attributes:
        engine: its name with version.
        precision: of the bundle's graph.
        opening_seconds: time to open it, including a build.
        golden: deviation from the reference outputs stored in the bundle.
        latency_ms: p50 and p99 of one frame, including upload and download.
        recorded: whether each frame is one launch of a CUDA graph; None for engines without CUDA graphs.
        build_command: the trtexec command that builds the same engine; empty for engines that are not built.
    """

    engine: str
    precision: str
    opening_seconds: float
    golden: Agreement
    latency_ms: dict[str, float]
    recorded: bool | None
    build_command: str

    def to_dict(self) -> dict[str, object]:
        """Return the result as JSON values; `build_command` is called ``by_hand`` there."""
        values = dataclasses.asdict(self)
        command = values.pop("build_command")
        return {**values, "by_hand": command}

    def describe(self) -> str:
        """Return the result in three or four lines."""
        agreement = "agrees with" if self.golden.good else "DIFFERS from"
        command = f"\nTo build it with trtexec:  {self.build_command}" if self.build_command else ""
        graph = {True: ", as a CUDA graph", False: ", not as a CUDA graph", None: ""}[self.recorded]
        return (
            f"{self.engine}, {self.precision}: opened in {self.opening_seconds:.1f} s\n"
            f"{agreement} the reference outputs of {self.golden.frames} golden frames: {self.golden.describe()}\n"
            f"one frame takes {self.latency_ms['p50']:.2f} ms (p99 {self.latency_ms['p99']:.2f} ms){graph}{command}"
        )


def validate_engine(
    bundle: Bundle, engine: str = "tensorrt", *, batch: int = 1, console: Console | None = None
) -> EngineValidation:
    """Open a bundle on an engine, build the engine if necessary, run the golden frames and time it.

    Raises:
        EdgeadError: it cannot be opened or run; see `edgead.runtime.engines.opening.open_engine`.
    """
    start, batch = time.perf_counter(), batch_for(bundle.manifest, batch)
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
            build_command=getattr(opened.inner, "build_command", ""),
        )
    finally:
        opened.close()
