"""The result of one frame."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from edgead.decision import Verdict
from edgead.errors import ConfigError
from edgead.files import atomic_file
from edgead.geometry import STRETCH, Geometry
from edgead.images import Frame, Mask, encode_image, encode_png, to_frame
from edgead.masks import cold_value, draw_overlay, spread_map
from edgead.redaction import redact
from edgead.runtime.defects import boxes_of, contours_of, is_finite, mark_in_frame
from edgead.text import valid

SCHEMA = 1
"""Version of the fields of `Result.to_dict`; fields may be added under the same version. See docs/results.md."""

CAUSES = {
    "unreadable": "the source delivered a frame that cannot be decoded, or that is not an image",
    "lost": "the camera stopped, or the source failed",
    "silent": "the camera delivers no frames",
    "stale": "the picture was too old when its inference would have begun",
    "late": "the decision came after its deadline",
    "black": "the frame shows nothing",
    "blurred": "the frame is far less sharp than good parts are",
    "resized": "the frame has another aspect ratio than the frames before, or fewer pixels, which min_area counts",
    "untrained": "the frame has an aspect ratio that no training image had, or far fewer pixels",
    "misplaced": "the part is not found, or lies too far from where it is on the reference picture",
    "drift": "a report, not a verdict: frames that passed look different from the held-out good images",
    "frozen": "the camera repeats one picture",
    "paused": "the inspection is paused",
    "failed": "the engine failed",
    "score": "score or map is not finite",
    "no_frame": "no frame came for the part within the time allowed",
    "too_close": "two triggers came too close: their parts cannot be told apart",
    "stopped": "the run ended before the part was decided",
}
"""Causes of UNKNOWN results and their meanings."""


class _Shapes(TypedDict, total=False):
    boxes: list[dict[str, int]]
    contours: list[list[list[int]]]


class ResultFields(_Shapes):
    """A result as JSON. The fields are described in docs/results.md; `boxes` and `contours` are there on request."""

    schema: int
    id: str
    part_id: str | None
    source_id: str
    frame_id: int | None
    path: str | None
    verdict: str
    reason: str
    cause: str | None
    score: float | None
    threshold: float
    t_capture: float
    captured_at: str
    latency_ms: dict[str, float]
    engine: str
    precision: str
    bundle: str
    bundle_digest: str
    recipe: str | None


def place_of(source_id: str, frame_id: int | None) -> str:
    """Return the name of a frame, or of the source for a report about it, for messages."""
    return source_id if frame_id is None else f"{source_id}#{frame_id}"


@dataclass(eq=False, repr=False)
class Result:
    """The decision on one frame. Its arrays belong to the caller.

    Attributes:
        score: raw image score, unbounded, higher is more anomalous; NaN if nothing was inferred.
        verdict: PASS, FAIL or UNKNOWN. Never treat UNKNOWN as PASS.
        reason: why the verdict is so, as text.
        cause: why it is UNKNOWN, a word of `CAUSES`; empty for PASS and FAIL.
        threshold: a frame with a higher score fails.
        anomaly_map: ``(h, w) float32`` raw pixel map on the model's canvas (its input, or all of its tiles together);
            None if nothing was inferred. With a crop or a letterbox, `geometry` says where the canvas lies on the
            frame.
        mask_threshold: pixels with map values above it are the mask of a FAIL; if there are none, those with the
            highest values are.
        region: ``bool``: the inspected part of the whole frame (of the aligned one); None for all of it.
        frame_size: (height, width) of the frame; (0, 0) if there was none.
        source_id: where the frame comes from, without credentials.
        frame_id: number of the frame at its source, from 0; None for a report about the source (``lost``, ``silent``)
            and for a part without a frame.
        t_capture: estimated time at which the frame was taken: its arrival minus the delay that the source reports, in
            seconds of `time.monotonic`.
        latency_ms: milliseconds by stage: ``source`` (taken to arrived), ``queue`` (arrived to start of work), ``fit``,
            ``infer``, ``post`` and ``total`` (taken to decision); for a part also ``part`` (trigger to result).
        engine: name of the engine, for instance ``"onnxruntime-cpu"``.
        path: path of the image file, if the frame comes from one.
        precision: precision of the graph, for instance ``"fp32"``.
        bundle: name of the bundle.
        bundle_digest: SHA-256 of the bundle's manifest, which distinguishes bundles of the same name.
        captured_at: `t_capture` as UTC in ISO 8601, for display only.
        shapes: which of ``"boxes"`` and ``"contours"`` `to_dict` contains.
        id: id of this result, globally unique and sorted by time (UUID version 7), for deduplication by receivers.
        frame: ``(H, W, 3 or 4) uint8``, BGR and the code of the depth: the inspected frame itself, not a copy. None if
            it was not kept: `Inspector.inspect` keeps it, a stream only with ``keep_frames=True`` or for a sink that
            needs it.
        part_id: id of the part that this result is for; empty for a frame without a part.
        recipe: name and version of the product that decided, as in ``"bottle 3"``; empty without products.
        geometry: how the frame was fitted to the canvas; with `Geometry.pose` where the part lies, if it was aligned.
        t_answer: when it left as the answer of a part, at the latest when the part's time was over, in seconds of
            `time.monotonic`; 0 for a frame without a part.
    """

    score: float
    verdict: Verdict
    reason: str
    threshold: float
    anomaly_map: NDArray[np.float32] | None = None
    mask_threshold: float = math.inf
    frame_size: tuple[int, int] = (0, 0)
    source_id: str = ""
    frame_id: int | None = 0
    t_capture: float = 0.0
    latency_ms: dict[str, float] = field(default_factory=dict)
    engine: str = ""
    path: str = ""
    cause: str = ""
    precision: str = ""
    bundle: str = ""
    captured_at: str = ""
    region: Mask | None = None
    bundle_digest: str = ""
    shapes: tuple[str, ...] = ()
    id: str = ""
    frame: Frame | None = None
    part_id: str = ""
    recipe: str = ""
    geometry: Geometry = STRETCH
    t_answer: float = 0.0

    @cached_property
    def mask(self) -> Mask:
        """``(H, W) bool`` at the frame's resolution: where the defect is, see `edgead.runtime.defects.mark`.

        The mask of a FAIL is never empty, that of a PASS always is. That of an UNKNOWN is not empty if its score was
        above the threshold. Computed at first use.
        """
        if self.anomaly_map is None or self.verdict is Verdict.PASS or not self.score > self.threshold:
            return np.zeros(self.frame_size, np.bool_)
        if not is_finite(self.anomaly_map):
            return np.zeros(self.frame_size, np.bool_)
        return mark_in_frame(self.anomaly_map, self.mask_threshold, self.region, self.frame_size, self.geometry)

    @cached_property
    def boxes(self) -> list[dict[str, int]]:
        """The connected parts of `mask`, largest first: ``x``, ``y``, ``width``, ``height`` and ``area`` in pixels."""
        return boxes_of(self.mask)

    @cached_property
    def contours(self) -> list[list[list[int]]]:
        """Outlines of the parts of `mask`, one for each of `boxes` in their order: lists of ``[x, y]`` in pixels."""
        return contours_of(self.mask, self.boxes)

    def overlay(self, frame: Frame | None = None) -> Frame:
        """Draw the map as heat over the frame, and the mask's outline in red.

        Args:
            frame: the inspected one, with or without depth, or anything else that `edgead.images.to_frame` takes; None
                for the kept one.

        Returns:
            A new ``(H, W, 3) uint8 BGR`` picture; of a result without a map, the frame alone.

        Raises:
            ConfigError: no frame was kept and none is given, or it has another size than the inspected one.
            DataError: not a frame.
        """
        frame = self.frame if frame is None else frame
        if frame is None:
            raise ConfigError(
                "This result holds no frame to draw on.\n"
                "Pass it:  result.overlay(frame), or keep frames:  inspector.stream(source, keep_frames=True)"
            )
        frame = to_frame(frame)
        if self.anomaly_map is None:
            return frame.copy()
        if frame.shape[:2] != self.frame_size:
            (height, width), (h, w) = self.frame_size, frame.shape[:2]
            raise ConfigError(f"The inspected frame has {width}×{height} pixels, the given one {w}×{h}.")
        heat = self.anomaly_map
        if self.geometry != STRETCH:
            size, nothing = self.frame_size, cold_value(self.mask_threshold)
            heat = spread_map(heat, self.geometry, size, size, outside=nothing)
        return draw_overlay(frame, heat, self.mask, self.mask_threshold)

    def save(self, path: str | Path, frame: Frame | None = None) -> Path:
        """Write the overlay to a file; one that exists is replaced.

        Args:
            path: has one of the suffixes `edgead.images.WRITTEN`, for instance ``.png`` or ``.jpg``.
            frame: see `overlay`.

        Returns:
            The path.

        Raises:
            ConfigError: see `overlay`.
            DataError: another suffix, or not a frame.
            OSError: the file cannot be written.
        """
        path = Path(path)
        data = encode_image(self.overlay(frame), path.suffix)
        with atomic_file(path) as stream:
            stream.write(data)
        return path

    @property
    def size_bytes(self) -> int:
        """Bytes of the map and the frame."""
        return sum(array.nbytes for array in (self.anomaly_map, self.frame) if array is not None)

    def without_map(self) -> Result:
        """Return a copy without map and frame, so that it can wait long; `to_dict` gives the same."""
        copy = dataclasses.replace(self, anomaly_map=None, frame=None)
        for shape in self.shapes:
            vars(copy)[shape] = getattr(self, shape)
        return copy

    def _repr_png_(self) -> bytes | None:
        """Return the overlay as PNG, which notebooks show; None if no frame was kept."""
        return None if self.frame is None else encode_png(self.overlay())

    def __repr__(self) -> str:
        where = self.path or place_of(self.source_id, self.frame_id)
        return f"<Result {self.verdict} {where}: score {self.score:.6g}, threshold {self.threshold:.6g}>"

    def to_dict(self) -> ResultFields:
        """Return the result as JSON values, without the arrays."""
        fields: ResultFields = {
            "schema": SCHEMA,
            "id": self.id,
            "part_id": valid(self.part_id) or None,
            "source_id": valid(self.source_id),
            "frame_id": self.frame_id,
            "path": valid(self.path) or None,
            "verdict": self.verdict.value,
            "reason": valid(redact(self.reason)),
            "cause": self.cause or None,
            "score": self.score if math.isfinite(self.score) else None,
            "threshold": self.threshold,
            "t_capture": round(self.t_capture, 6),
            "captured_at": self.captured_at,
            "latency_ms": {name: round(value, 3) for name, value in self.latency_ms.items()},
            "engine": self.engine,
            "precision": self.precision,
            "bundle": self.bundle,
            "bundle_digest": self.bundle_digest,
            "recipe": valid(self.recipe) or None,
        }
        for shape in self.shapes:  # in the order of the request
            if shape == "boxes":
                fields["boxes"] = self.boxes
            else:
                fields["contours"] = self.contours
        return fields
