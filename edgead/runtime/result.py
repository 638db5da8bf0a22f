"""What is known about one frame after it was inspected."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgead.decision import Verdict
from edgead.images import Frame, Mask, cv2, fit_mask
from edgead.text import valid

SCHEMA = 1
"""Version of what `Result.to_dict` gives; fields may be added under the same version. See docs/results.md."""

CAUSES = {
    "unreadable": "the source gave a frame that cannot be decoded, or that is not an image",
    "lost": "the camera stopped, or the source failed",
    "silent": "the camera gives nothing",
    "stale": "the frame had waited too long when its turn came",
    "late": "the decision came after its deadline",
    "black": "the frame shows nothing",
    "blurred": "the frame is far less sharp than good parts are",
    "frozen": "the camera repeats one picture",
    "failed": "the engine failed",
    "score": "the score is not a number",
}
"""Why a result is UNKNOWN, in one word each."""


@dataclass
class Result:
    """The decision on one frame. Its arrays belong to the caller.

    Attributes:
        score: raw image score, higher is more anomalous, not bounded; NaN where nothing was inferred.
        verdict: PASS, FAIL or UNKNOWN. UNKNOWN is never to be read as PASS.
        reason: why, in words.
        cause: why it is UNKNOWN, a word of `CAUSES`; empty for PASS and FAIL.
        threshold: a score above it fails.
        anomaly_map: ``(h, w) float32`` raw pixel map at the model's size; None where nothing was inferred.
        mask_threshold: map values above it belong to the mask.
        region: ``(h, w) bool`` at the model's size: the part of the frame that counts; None for all of it.
        frame_size: (height, width) of the frame; (0, 0) where there was none.
        source_id: where the frame comes from, without credentials.
        frame_id: number of the frame at its source, from 0.
        t_capture: when the frame arrived, `time.monotonic` seconds.
        latency_ms: milliseconds by stage: ``queue`` (capture until work begins), ``fit``, ``infer``, ``post`` and
            ``total`` (capture until decision).
        engine: what inferred, for instance ``"onnxruntime-cpu"``.
        path: of the image file, where the frame comes from one.
        precision: of the graph, for instance ``"fp32"``.
        bundle: name of the bundle.
        captured_at: when the frame arrived, UTC in ISO 8601: for people; nothing is decided by it.
        shapes: which of ``"boxes"`` and ``"contours"`` `to_dict` holds.
        frame: ``(H, W, C) uint8``, kept only where a sink needs it.
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
    cause: str = ""
    precision: str = ""
    bundle: str = ""
    captured_at: str = ""
    region: Mask | None = None
    shapes: tuple[str, ...] = ()
    frame: Frame | None = None

    @cached_property
    def mask(self) -> Mask:
        """``(H, W) bool`` at the frame's resolution: where the map exceeds `mask_threshold`. Made at first use."""
        if self.anomaly_map is None:
            return np.zeros(self.frame_size, np.bool_)
        height, width = self.frame_size
        resized = cv2().resize(self.anomaly_map, (width, height), interpolation=cv2().INTER_LINEAR)
        mask = np.asarray(resized > self.mask_threshold)
        return mask if self.region is None else mask & fit_mask(self.region, self.frame_size)

    @cached_property
    def boxes(self) -> list[dict[str, int]]:
        """The connected parts of `mask`, largest first: ``x``, ``y``, ``width``, ``height`` and ``area`` in pixels."""
        _, _, statistics, _ = cv2().connectedComponentsWithStats(self.mask.astype(np.uint8), connectivity=8)
        found = [dict(zip(("x", "y", "width", "height", "area"), map(int, row))) for row in statistics[1:]]
        return sorted(found, key=lambda box: -box["area"])

    @cached_property
    def contours(self) -> list[list[list[int]]]:
        """Outlines of the connected parts of `mask`, each a list of ``[x, y]`` in pixels of the frame."""
        lib = cv2()
        outlines, _ = lib.findContours(self.mask.astype(np.uint8), lib.RETR_EXTERNAL, lib.CHAIN_APPROX_SIMPLE)
        return [outline.reshape(-1, 2).tolist() for outline in outlines]

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values, without the arrays. Its fields are described in docs/results.md."""
        return {
            "schema": SCHEMA,
            "source_id": valid(self.source_id),
            "frame_id": self.frame_id,
            "path": valid(self.path) or None,
            "verdict": self.verdict.value,
            "reason": valid(self.reason),
            "cause": self.cause or None,
            "score": self.score if math.isfinite(self.score) else None,
            "threshold": self.threshold,
            "t_capture": round(self.t_capture, 6),
            "captured_at": self.captured_at,
            "latency_ms": {name: round(value, 3) for name, value in self.latency_ms.items()},
            "engine": self.engine,
            "precision": self.precision,
            "bundle": self.bundle,
            **{name: getattr(self, name) for name in self.shapes},
        }
