"""The inspector: a bundle on an engine, ready to decide on frames."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import Bundle, read_bundle
from edgead.decision import Verdict, decide
from edgead.errors import ConfigError
from edgead.images import fit_frame, to_frame
from edgead.runtime.engines import Engine, open_engine
from edgead.runtime.result import Result
from edgead.runtime.sources import Captured, Source, open_source

WARM_UP_RUNS = 2
"""Inferences before the first frame: engines allocate and choose kernels in their first ones."""


def load(bundle: str | Path, *, engine: str = "auto", threshold: float | None = None) -> Inspector:
    """Read a bundle, check its hashes, open it on an engine and warm it up.

    Args:
        bundle: the folder ``NAME.edgead``.
        engine: ``"auto"`` or ``"onnxruntime"``.
        threshold: scores above it fail; the bundle's own where None.

    Raises:
        BundleError: missing, damaged or of a newer format.
        MissingDependencyError: the engine's package is not installed.
    """
    opened = read_bundle(bundle)
    return Inspector(opened, open_engine(engine, opened.model), threshold=threshold)


class Inspector:
    """Decides on frames. Use it from one thread, and close it (or use ``with``) to release the engine.

    Attributes:
        bundle: what it runs.
        engine: what runs it.
        threshold: a score above it fails; may be changed at any time.
    """

    def __init__(self, bundle: Bundle, engine: Engine, *, threshold: float | None = None) -> None:
        self.bundle, self.engine = bundle, engine
        self.threshold = bundle.manifest.threshold["value"] if threshold is None else threshold
        if not math.isfinite(self.threshold):
            raise ConfigError(f"The threshold must be a finite number, not {self.threshold}.")
        self._size = bundle.manifest.size
        self._bit_depth = bundle.manifest.input["bit_depth"]
        self._mask_threshold = bundle.manifest.mask_threshold
        blank = np.zeros((1, *self._size, 3), np.uint8)
        for _ in range(WARM_UP_RUNS):
            self.engine.infer(blank)

    def inspect(
        self, frame: NDArray[Any], *, source_id: str = "", frame_id: int = 0, t_capture: float | None = None
    ) -> Result:
        """Decide on one frame.

        Args:
            frame: ``(H, W, 3) uint8 BGR``, or anything that `edgead.images.to_frame` takes. It is not changed.
            source_id, frame_id: copied to the result.
            t_capture: when the frame arrived, `time.monotonic` seconds; now where None.

        Raises:
            DataError: not a frame.
            DeviceError: the engine failed.
        """
        start = time.monotonic()
        t_capture = start if t_capture is None else t_capture
        frame = to_frame(frame, self._bit_depth)
        fitted = fit_frame(frame, self._size)[None]
        fit_done = time.monotonic()
        scores, maps = self.engine.infer(fitted)
        infer_done = time.monotonic()
        score = float(scores[0])
        verdict, reason = decide(score, self.threshold)
        result = Result(
            score=score,
            verdict=verdict,
            reason=reason,
            threshold=self.threshold,
            anomaly_map=maps[0],
            mask_threshold=self._mask_threshold,
            frame_size=(frame.shape[0], frame.shape[1]),
            source_id=source_id,
            frame_id=frame_id,
            t_capture=t_capture,
            engine=self.engine.name,
        )
        done = time.monotonic()
        result.latency_ms = {
            "queue": (start - t_capture) * 1e3,
            "fit": (fit_done - start) * 1e3,
            "infer": (infer_done - fit_done) * 1e3,
            "post": (done - infer_done) * 1e3,
            "total": (done - t_capture) * 1e3,
        }
        return result

    def judge(self, captured: Captured) -> Result:
        """Decide on what a source gave. What stops a decision gives UNKNOWN with the reason; nothing is raised."""
        reason = captured.error
        if captured.image is not None:
            try:
                result = self.inspect(
                    captured.image,
                    source_id=captured.source_id,
                    frame_id=captured.frame_id,
                    t_capture=captured.t_capture,
                )
                result.path = captured.path
                return result
            except Exception as error:  # whatever it is: beside a line a failure is a verdict, not an end
                reason = f"{type(error).__name__}: {error}"
        return Result(
            score=math.nan,
            verdict=Verdict.UNKNOWN,
            reason=reason or "no image",
            threshold=self.threshold,
            source_id=captured.source_id,
            frame_id=captured.frame_id,
            t_capture=captured.t_capture,
            latency_ms={"total": (time.monotonic() - captured.t_capture) * 1e3},
            engine=self.engine.name,
            path=captured.path,
        )

    def stream(self, source: str | Source) -> Iterator[Result]:
        """Decide on every frame of a source, in order, until it ends.

        Args:
            source: what `edgead.runtime.sources.open_source` takes, or an open source.

        Raises:
            SourceError: the source cannot be opened.
        """
        with open_source(source, self._bit_depth) if isinstance(source, str) else source as frames:
            for captured in frames:
                yield self.judge(captured)

    def close(self) -> None:
        """Release the engine."""
        self.engine.close()

    def __enter__(self) -> Inspector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
