"""The options of export and import. Needs neither torch nor onnx."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from edgead import schema
from edgead.console import Console
from edgead.decision import check_false_reject
from edgead.errors import ConfigError
from edgead.schema import OneOf, Share, Within

PRECISIONS = ("fp32", "fp16", "int8", "int8-fp16")
"""``int8`` leaves what is not quantized in float32, ``int8-fp16`` in float16."""
AUTO = "auto"
"""The fastest precision on this machine that passes the gate."""
CALIBRATION_METHODS = ("minmax", "entropy", "percentile")
LEAST_IMAGES = 8
"""With fewer good images, a tensor's range is left to chance."""
SOURCES = ("onnx", "anomalib")

Positive = Annotated[float, Within(0, 1e30, above=True)]
Finite = Annotated[float, Within(-1e30, 1e30)]


@dataclass(frozen=True)
class Calibration:
    """The images that set the ranges of INT8, and that show whether float16 overflows.

    Attributes:
        samples: number of images; all of them where there are fewer.
        method: see `edgead.export.quantization.calibration.measure_ranges`.
        data: a folder of good images, or a data set; None for the training images of a run, and for the good images in
            the threshold data of an imported model.
    """

    samples: Annotated[int, Within(LEAST_IMAGES)] = 128
    method: Annotated[str, OneOf(CALIBRATION_METHODS)] = "minmax"
    data: Path | None = None

    def __post_init__(self) -> None:
        schema.check(self, "calibration.")


@dataclass(frozen=True)
class Budget:
    """What a lower precision may cost.

    Attributes:
        auroc_drop: largest loss of image AUROC, and of AUPRO.
        flips: largest share of frames whose settled verdict changes. Below one frame's share it means: none. A verdict
            is settled if the score is farther from the threshold than the threshold moves when one held-out image is
            left out. Of the others, `edgead.export.quantization.gate.BORDERLINE_SHARE` may change.
    """

    auroc_drop: Share = 0.005
    flips: Share = 0.001

    def __post_init__(self) -> None:
        schema.check(self, "budget.")


@dataclass(frozen=True)
class PrecisionOptions:
    """The precision of a bundle, and what it must pass.

    Attributes:
        precision: one of `PRECISIONS`, or `AUTO`. ``fp32`` leaves an imported model in the precision it comes in.
        calibration: what INT8 is scaled on.
        budget: what the gate allows.
        labelled: a data set with labelled test images that the gate judges on as well.
    """

    precision: Annotated[str, OneOf((*PRECISIONS, AUTO))] = "fp32"
    calibration: Calibration = field(default_factory=Calibration)
    budget: Budget = field(default_factory=Budget)
    labelled: Path | None = None

    def __post_init__(self) -> None:
        schema.check(self)

    @property
    def lowers(self) -> bool:
        """Whether a precision below float32 was asked for."""
        return self.precision != "fp32"


def to_precision_options(precision: str | PrecisionOptions) -> PrecisionOptions:
    """Return the options for a precision that is given by its name.

    Raises:
        ConfigError: there is no such precision.
    """
    return precision if isinstance(precision, PrecisionOptions) else PrecisionOptions(precision)


@dataclass(frozen=True)
class BuildOptions:
    """What is chosen for a bundle, whatever model it is made of; see `edgead.export.export`."""

    out: str | Path | None = None
    false_reject: float = 0.01
    precision: PrecisionOptions = field(default_factory=PrecisionOptions)
    force: bool = False
    console: Console = field(default_factory=Console)

    def __post_init__(self) -> None:
        check_false_reject(self.false_reject)


@dataclass(frozen=True)
class OnnxOptions:
    """What a user says about a third-party model; None where its file says it, or the default applies.

    Attributes:
        input, score, map: names of tensors; ``map="none"`` where the model has none.
        size: (height, width) in pixels, where the model's input is dynamic.
        rgb: colour order; RGB by default.
        scale: divisor of the grey values; 255 by default, 1 for a model that takes bytes.
        mean, std: for each channel, applied after that division.
        pool: how a missing score is computed: ``"max"``, or ``"top:SHARE"`` for the mean of that share of the pixels.
    """

    input: str | None = None
    score: str | None = None
    map: str | None = None
    size: tuple[Annotated[int, Within(8)], Annotated[int, Within(8)]] | None = None
    rgb: bool | None = None
    scale: Positive | None = None
    mean: tuple[Finite, ...] | None = None
    std: tuple[Positive, ...] | None = None
    pool: str = "max"

    def __post_init__(self) -> None:
        schema.check(self)
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) not in (1, 3):
                raise ConfigError(f"--{name} takes three numbers, one for each channel, or one for grey; not {values}.")

    @property
    def share(self) -> float:
        """`pool` as a share of pixels; 0 for the maximum.

        Raises:
            ConfigError: it is neither form.
        """
        if self.pool == "max":
            return 0.0
        kind, _, text = self.pool.partition(":")
        try:
            share = float(text)
        except ValueError:
            share = 0.0
        if kind != "top" or not 0 < share <= 1:
            raise ConfigError(f"--pool is max, or top: with a share of the pixels, as in top:0.01; not '{self.pool}'.")
        return share
