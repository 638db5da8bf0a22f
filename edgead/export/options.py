"""The options of export and import. Needs neither torch nor onnx."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from edgead import schema
from edgead.bundle.manifest import LARGEST_SIDE
from edgead.console import Console
from edgead.decision import check_false_reject
from edgead.errors import ConfigError
from edgead.schema import OneOf, Share, Within

PRECISIONS = ("fp32", "fp16", "int8", "int8-fp16")
"""Layers that are not quantised stay in float32 with ``int8``; ``int8-fp16`` puts them in float16."""
AUTO = "auto"
"""The fastest precision on this machine that passes the gate."""
CALIBRATION_METHODS = ("minmax", "entropy", "percentile")
LEAST_IMAGES = 8
"""Fewest good images for calibration; with fewer, the range of a tensor depends on chance."""
SOURCES = ("onnx", "anomalib")

Positive = Annotated[float, Within(0, 1e30, above=True)]
Finite = Annotated[float, Within(-1e30, 1e30)]


@dataclass(frozen=True)
class Calibration:
    """Images that calibrate INT8 and show whether float16 overflows.

    Attributes:
        samples: number of images; all of them if there are fewer.
        method: see `edgead.export.quantization.calibration.measure_ranges`.
        data: folder of good images, or a data set. None: the training images of a run, or the good images in the
            threshold data of an imported model.
    """

    samples: Annotated[int, Within(LEAST_IMAGES)] = 128
    method: Annotated[str, OneOf(CALIBRATION_METHODS)] = "minmax"
    data: Path | None = None

    def __post_init__(self) -> None:
        schema.check(self, "calibration.")


@dataclass(frozen=True)
class Budget:
    """Largest loss that the gate accepts for a lower precision.

    Attributes:
        auroc_drop: largest loss of image AUROC, and of AUPRO.
        flips: largest share of frames with a changed verdict, among settled verdicts. A verdict is settled if the
            score is farther from the threshold than the threshold moves when one held-out image is left out. Of the
            borderline verdicts, `edgead.export.quantization.gate.BORDERLINE_SHARE` may change.
    """

    auroc_drop: Share = 0.005
    flips: Share = 0.001

    def __post_init__(self) -> None:
        schema.check(self, "budget.")


@dataclass(frozen=True)
class PrecisionOptions:
    """The precision of a bundle and the limits of its gate.

    Attributes:
        precision: one of `PRECISIONS`, or `AUTO`. ``fp32`` keeps the precision of an imported model.
        calibration: images and method of INT8 calibration.
        budget: largest loss that the gate accepts.
        labelled: data set with labelled test images for the gate.
    """

    precision: Annotated[str, OneOf((*PRECISIONS, AUTO))] = "fp32"
    calibration: Calibration = field(default_factory=Calibration)
    budget: Budget = field(default_factory=Budget)
    labelled: Path | None = None

    def __post_init__(self) -> None:
        schema.check(self)

    @property
    def lowers(self) -> bool:
        """Whether the user requests a precision below float32."""
        return self.precision != "fp32"


def to_precision_options(precision: str | PrecisionOptions) -> PrecisionOptions:
    """Return options for the name of a precision; options are returned as they are.

    Raises:
        ConfigError: unknown precision.
    """
    return precision if isinstance(precision, PrecisionOptions) else PrecisionOptions(precision)


@dataclass(frozen=True)
class BuildOptions:
    """Options that every kind of model shares, see `edgead.export.export`."""

    out: str | Path | None = None
    false_reject: Annotated[float, Within()] = 0.01
    precision: PrecisionOptions = field(default_factory=PrecisionOptions)
    force: bool = False
    console: Console = field(default_factory=Console)

    def __post_init__(self) -> None:
        schema.check(self)
        check_false_reject(self.false_reject)


InputSide = Annotated[int, Within(8, LARGEST_SIDE)]


@dataclass(frozen=True)
class OnnxOptions:
    """What the user states about a third-party ONNX model. None: read from the file, or the default.

    Attributes:
        input, score, map: names of tensors; ``map="none"`` for a model without a map.
        size: (height, width) in pixels, for a model with a dynamic input.
        rgb: whether the colour order is RGB (default) or BGR.
        scale: divisor of the pixel values; 255 by default, 1 for a model with a uint8 input.
        mean, std: per channel, applied after that division.
        pool: how to compute a missing score from the map: ``"max"``, or ``"top:SHARE"``, the mean of that share of
            the pixels, largest values first.
    """

    input: str | None = None
    score: str | None = None
    map: str | None = None
    size: tuple[InputSide, InputSide] | None = None
    rgb: bool | None = None
    scale: Positive | None = None
    mean: tuple[Finite, ...] | None = None
    std: tuple[Positive, ...] | None = None
    pool: str = "max"

    def __post_init__(self) -> None:
        schema.check(self)
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) not in (1, 3):
                raise ConfigError(
                    f"--{name} takes three numbers, one per channel, or one for grey images; not {values}."
                )

    @property
    def share(self) -> float:
        """`pool` as a share of pixels; 0 for the maximum.

        Raises:
            ConfigError: `pool` has another form.
        """
        if self.pool == "max":
            return 0.0
        kind, _, text = self.pool.partition(":")
        try:
            share = float(text)
        except ValueError:
            share = 0.0
        if kind != "top" or not 0 < share <= 1:
            raise ConfigError(f"--pool takes max or top:SHARE, for instance top:0.01; not '{self.pool}'.")
        return share
