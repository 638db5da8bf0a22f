"""What is known about one frame after it was inspected."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.decision import Verdict
from edgead.images import Mask, cv2

SCHEMA = 1
"""Version of what `Result.to_dict` gives; fields may be added under the same version."""


@dataclass
class Result:
    """The decision on one frame. Its arrays belong to the caller.

    Attributes:
        score: raw image score, higher is more anomalous, not bounded; NaN where nothing was inferred.
        verdict: PASS, FAIL or UNKNOWN. UNKNOWN is never to be read as PASS.
        reason: why, in words.
        threshold: a score above it fails.
        anomaly_map: ``(h, w) float32`` raw pixel map at the model's size; None where nothing was inferred.
        mask_threshold: map values above it belong to the mask.
        frame_size: (height, width) of the frame; (0, 0) where there was none.
        source_id: where the frame comes from, without credentials.
        frame_id: number of the frame at its source, from 0.
        t_capture: when the frame arrived, `time.monotonic` seconds.
        latency_ms: milliseconds by stage: ``queue`` (capture until work begins), ``fit``, ``infer``, ``post`` and
            ``total`` (capture until decision).
        engine: what inferred, for instance ``"onnxruntime-cpu"``.
        path: of the image file, where the frame comes from one.
    """

    score: float
    verdict: Verdict
    reason: str
    threshold: float
    anomaly_map: NDArray[np.float32] | None = None
    mask_threshold: float = math.inf
    frame_size: tuple[int, int] = (0, 0)
    source_id: str = ""
    frame_id: int = 0
    t_capture: float = 0.0
    latency_ms: dict[str, float] = field(default_factory=dict)
    engine: str = ""
    path: str = ""

    @cached_property
    def mask(self) -> Mask:
        """``(H, W) bool`` at the frame's resolution: where the map exceeds `mask_threshold`. Made at first use."""
        if self.anomaly_map is None:
            return np.zeros(self.frame_size, np.bool_)
        height, width = self.frame_size
        resized = cv2().resize(self.anomaly_map, (width, height), interpolation=cv2().INTER_LINEAR)
        return np.asarray(resized > self.mask_threshold)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values, without the arrays."""
        return {
            "schema": SCHEMA,
            "source_id": self.source_id,
            "frame_id": self.frame_id,
            "path": self.path or None,
            "verdict": self.verdict.value,
            "reason": self.reason,
            "score": self.score if math.isfinite(self.score) else None,
            "threshold": self.threshold,
            "t_capture": round(self.t_capture, 6),
            "latency_ms": {name: round(value, 3) for name, value in self.latency_ms.items()},
            "engine": self.engine,
        }
