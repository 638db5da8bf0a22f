"""The schema of a bundle's `manifest.json`. docs/bundle.md describes the fields; `edgead.schema` reads and writes them.

A field that a later version adds has a default, so that older bundles can be read. It is not written if it is empty, so
that an unchanged bundle is written byte for byte as before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from edgead import schema
from edgead.binomial import CONFIDENCE
from edgead.bundle.gate_record import CalibrationRecord, GateRecord
from edgead.bundle.provenance import Origin, TrainingRecord
from edgead.decision import CONDITION, Normals, RequestedBound, Threshold
from edgead.geometry import STRETCH, Geometry
from edgead.images import PixelFormat
from edgead.schema import Count, Float32, NonNegative, OneOf, SchemaError, Share, Within, left_out, section, stored_as

LARGEST_SIDE = 1 << 14
Side = Annotated[int, Within(1, LARGEST_SIDE)]
"""Of an input or a picture, pixels."""


@dataclass(frozen=True)
class InputRecord:
    """The graph's input.

    Attributes:
        height, width: in pixels.
        bit_depth: significant bits of 16-bit images.
        batch: 1 for a graph that accepts one frame at a time; None for any number.
        channels: 4 with depth, else None.
        depth_range: of frames with depth, the distances of codes 1 and 255, see `edgead.depth`.
    """

    height: Side
    width: Side
    bit_depth: Annotated[int, Within(9, 16)]
    batch: Annotated[int, Within(1, 1)] | None = left_out()
    channels: Annotated[int, Within(3, 4)] | None = left_out()
    depth_range: tuple[NonNegative, NonNegative] | None = left_out()

    @classmethod
    def of(cls, size: tuple[int, int], pixels: PixelFormat, batch: int | None = None) -> InputRecord:
        """Return the record of frames of a size (height, width) in pixels."""
        channels = None if pixels.depth_range is None else pixels.channels
        return cls(*size, pixels.bit_depth, batch, channels, pixels.depth_range)

    def check(self) -> None:
        """Refuse fields that contradict each other.

        Raises:
            SchemaError: they do.
        """
        if self.depth_range is not None and self.depth_range[0] >= self.depth_range[1]:
            raise SchemaError(f"input.depth_range is {list(self.depth_range)}; the first number must be the lower one")
        if self.channels not in (None, self.pixels.channels):
            raise SchemaError(f"input.channels is {self.channels}; it must be 4 with input.depth_range, else 3")

    @property
    def pixels(self) -> PixelFormat:
        """How images become frames."""
        return PixelFormat(self.bit_depth, self.depth_range)


@dataclass(frozen=True)
class StoredThreshold:
    """The threshold and the data it was fitted to, see `edgead.decision.Threshold`.

    Attributes:
        value, normals, false_reject_bound, requested_bound: of the threshold.
        false_reject_limit, confidence, condition: its promise, for readers without edgead.
        scores, map_maxima: sorted scores and map maxima of the held-out good images, or empty.
    """

    value: Float32
    normals: Normals
    false_reject_bound: Share
    requested_bound: RequestedBound
    false_reject_limit: Share | None = left_out()
    confidence: Share | None = left_out()
    condition: str | None = left_out()
    scores: tuple[Float32, ...] = ()
    map_maxima: tuple[Float32, ...] = stored_as("peaks", ())

    @classmethod
    def of(cls, rule: Threshold, scores: Sequence[float] = (), map_maxima: Sequence[float] = ()) -> StoredThreshold:
        """Return the record of a threshold and of the data it was fitted to."""
        return cls(
            **dataclasses.asdict(rule),
            false_reject_limit=rule.false_reject_limit,
            confidence=CONFIDENCE,
            condition=CONDITION if rule.normals else "",
            scores=tuple(scores),
            map_maxima=tuple(map_maxima),
        )

    @property
    def rule(self) -> Threshold:
        """The threshold itself."""
        return Threshold(self.value, self.normals, self.false_reject_bound, self.requested_bound)

    def describe(self, unseen: bool = True) -> str:
        """Describe the threshold's promise in one line."""
        return self.rule.describe(unseen)


@dataclass(frozen=True, kw_only=True)
class ParityRecord:
    """Largest differences between graph and reference, and an engine's tolerance on the golden frames.

    Values are absolute, in units of the score. If `map_tolerance` is None, `tolerance` applies to maps too.
    """

    frames: Count = 0
    score_error: NonNegative
    map_error: NonNegative
    tolerance: Float32
    map_tolerance: Float32 | None = left_out()


@dataclass(frozen=True)
class DataRecord:
    """SHA-256 over the training images and over the held-out images; empty if unknown.

    `held_out_part` is the origin of an imported model's threshold images: ``validation``, ``test``,
    ``train`` or ``folder``.
    """

    fingerprint: str = ""
    held_out_fingerprint: str = ""
    held_out_part: str | None = left_out()

    @property
    def unseen(self) -> bool:
        """Whether the threshold images are, as far as known, not training images."""
        return self.held_out_part != "train"


@dataclass(frozen=True)
class ImageSizes:
    """Smallest and largest height and width in pixels, and width / height, of the training images."""

    heights: tuple[NonNegative, NonNegative]
    widths: tuple[NonNegative, NonNegative]
    aspects: tuple[NonNegative, NonNegative]


@dataclass(frozen=True)
class HeldOutRecord:
    """What the held-out good images looked like.

    Attributes:
        brightness, sharpness, aspects: see `edgead.runtime.look.Look`, in the order of `StoredThreshold.scores`.
        dark: one is almost black (`edgead.runtime.health.is_black`).
    """

    brightness: tuple[NonNegative, ...]
    sharpness: tuple[NonNegative, ...]
    aspects: tuple[NonNegative, ...]
    dark: bool


def sizes_of(ranges: dict[str, list[float]]) -> ImageSizes | None:
    """Return the record of `edgead.datasets.Frames.size_ranges`; None if it is empty."""
    return schema.read(ImageSizes, ranges) if ranges else None


@dataclass(frozen=True)
class ReconstructionRecord:
    """The tensor inside the graphs with the reconstructed good image, and its values of black and white.

    ``[N, C, H, W]`` with three or more channels, BGR first.
    """

    tensor: str
    black: Float32
    white: Float32

    def check(self) -> None:
        """Refuse equal values of black and white.

        Raises:
            SchemaError: they are equal.
        """
        if self.black == self.white:
            raise SchemaError(f"reconstruction.white is {self.white:g}; it must differ from reconstruction.black")


@dataclass(frozen=True)
class ThresholdChange:
    """A change of the threshold after the export, see `edgead.review.version`.

    Attributes:
        before, after: thresholds.
        base: digest of the bundle that this one was made from.
        by, at, why: who, when (UTC, ISO 8601) and for what reason.
        marked: rejects that people had marked by then, by mark.
    """

    before: Float32
    after: Float32
    base: str
    by: str
    at: str
    why: str
    marked: dict[str, int]

    def describe(self) -> str:
        """Describe it in one line."""
        counts = ", ".join(f"{count} marked {mark}" for mark, count in self.marked.items())
        reason = f": {self.why}" if self.why else ""
        return f"{self.before:.6g} to {self.after:.6g} by {self.by or 'unknown'} at {self.at}{reason} ({counts})"


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`.

    Attributes:
        format: version of this format; a reader refuses newer versions.
        name: of the bundle.
        method, preset, config: configuration of the model.
        category: name of the product.
        input: of the graph.
        precision: of the graph.
        threshold: of the score, with the data it was fitted to.
        mask_threshold: higher map values belong to the mask.
        parity: differences between graph and reference, and the tolerance of engines.
        data: fingerprints of the images.
        training: how it was trained.
        created: UTC, ISO 8601.
        edgead: version that wrote the bundle.
        origin: of an imported model; None where edgead trained it, and in bundles of edgead 0.1.
        calibration: of a lower precision.
        gate: of a lower precision: measurements, limits, layers in float32; see docs/precision.md.
        images: sizes of the training images (of an imported model, of the threshold images), if known.
        held_out: what the images of the threshold looked like; None in older bundles and where there are none.
        reconstruction: tensor with the reconstructed good image, if the graph has one.
        changes: of the threshold after the export, oldest first.
        stored_geometry: how frames are brought to the graph; None if they are stretched to its input.
        files: file name ↦ SHA-256, for every file but the manifest.
        digest: SHA-256 of the manifest itself, see `edgead.bundle.manifest_digest`.
    """

    format: int
    name: str
    method: str
    preset: str
    config: dict[str, Any]  # JSON; each method has its own schema
    category: str
    input: InputRecord
    precision: Annotated[str, OneOf(("fp32", "fp16", "int8", "int8-fp16"))]
    threshold: StoredThreshold
    mask_threshold: Float32
    parity: ParityRecord
    data: DataRecord
    training: TrainingRecord
    created: str
    edgead: str
    origin: Origin | None = section()
    calibration: CalibrationRecord | None = section()
    gate: GateRecord | None = section()
    images: ImageSizes | None = left_out()
    held_out: HeldOutRecord | None = left_out()
    reconstruction: ReconstructionRecord | None = left_out()
    changes: tuple[ThresholdChange, ...] | None = left_out()
    stored_geometry: Geometry | None = left_out("geometry")
    files: dict[str, str] = field(default_factory=dict)
    digest: str = ""

    def check(self) -> None:
        """Refuse fields that contradict each other.

        Raises:
            SchemaError: they do.
        """
        self.input.check()
        if self.reconstruction:
            self.reconstruction.check()
        for name in ("brightness", "sharpness", "aspects") if self.held_out else ():
            values = getattr(self.held_out, name)
            if len(values) != len(self.threshold.scores):
                raise SchemaError(
                    f"held_out.{name} has {len(values)} values, threshold.scores {len(self.threshold.scores)}"
                )
        self.geometry.check(self.size)

    @property
    def size(self) -> tuple[int, int]:
        """Input (height, width) of the graph in pixels."""
        return self.input.height, self.input.width

    @property
    def geometry(self) -> Geometry:
        """How frames are brought to the graph."""
        return self.stored_geometry or STRETCH

    @property
    def canvas(self) -> tuple[int, int]:
        """(height, width) that frames are fitted to: the graph's, or that of all tiles together."""
        return self.geometry.canvas(self.size)

    @property
    def region_size(self) -> tuple[int, int]:
        """(height, width) of a region of the whole frame: the canvas's, larger with a crop."""
        return self.geometry.region_size(self.size)

    @property
    def aspects(self) -> tuple[float, float] | None:
        """Lowest and highest width / height of the training images; None if unknown."""
        return None if self.images is None else self.images.aspects

    @property
    def pixels(self) -> PixelFormat:
        """How images become frames."""
        return self.input.pixels

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a frame that the graph takes: (height, width, channels)."""
        return *self.size, self.pixels.channels

    @property
    def failed_engines(self) -> dict[str, str]:
        """Engines on the exporting machine that cannot run this precision, with the reason."""
        failed = self.gate.failed_here if self.gate else None
        return dict((failed or {}).get(self.precision, {}))

    def to_dict(self) -> dict[str, object]:
        """Return the JSON values of `manifest.json`."""
        return dict(schema.write(self))
