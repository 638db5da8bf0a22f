"""The contract between a published method and everything else.

A method is one folder in `edgead.train.methods`: a frozen configuration, a network, how it is trained (`stages`) and
the graph it becomes (`reference_model`). The loop, the export and the runtime know nothing else about it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgead.console import Track
from edgead.errors import ConfigError
from edgead.train.method_config import MethodConfig, steps_in_epoch

Arrays = dict[str, NDArray[Any]]
Batch = dict[str, Tensor]
T = TypeVar("T")


WITH_REPLACEMENT = "good images are drawn with replacement (published: shuffled in each epoch)"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One optimisation that the training loop runs from start to end.

    Attributes:
        name: shown in the progress bar and in metrics.jsonl.
        module: ``forward(batch) -> dict`` of scalars; the sum of those with a gradient is minimised, the others are
            only logged.
        sample: makes one training example from a random generator. It must depend on nothing else, so that a
            run can be resumed, or spread over workers, without changing its result.
        steps: optimiser steps; 0 where `prepare` computes all that there is to learn. It then may depend on the good
            images too, and neither `sample` nor `optimizer` is called.
        batch_size: examples in a step, over all processes.
        optimizer: makes the optimiser from the module's trainable parameters.
        schedule: step ↦ factor on the learning rate.
        prepare: called once with the network in its place, on its device, before the optimiser is made and the first
            example is drawn: freezes what this stage leaves alone, computes what does not change while it lasts. It
            must depend on the network's weights alone, because it is called again when a run is resumed.
        rehearse: called instead of `prepare` where only the training's time is measured: prepares just enough that
            `sample` can be called, and returns the seconds that all of `prepare` takes. Where None, `prepare` is
            called; its time is then taken to be in proportion to the good images.
        alternating: names of submodules that take turns in every step, each with an optimiser of its own over its own
            parameters; ``forward(batch, name)`` then returns what this one minimises, against the others' latest
            weights. Where empty, one optimiser trains the whole module.
        rate: name of the setting that is the optimiser's step size, for the error where training diverges.
        in_halves: the loss treats the halves of a batch differently: no process may get an odd share.
    """

    name: str
    module: nn.Module
    sample: Callable[[np.random.Generator], Arrays] = lambda rng: {}
    steps: int
    batch_size: int
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = torch.optim.SGD
    schedule: Callable[[int], float] = lambda step: 1.0
    prepare: Callable[[torch.device, Track], None] = lambda device, track: None
    rehearse: Callable[[], float] | None = None
    alternating: tuple[str, ...] = ()
    rate: str = "learning_rate"
    in_halves: bool = False


class Trainable(Protocol):
    """What has a network that stages train."""

    @property
    def network(self) -> nn.Module: ...


@dataclass(frozen=True, eq=False)
class Donor:
    """Another product whose real defects a method may learn from.

    Attributes:
        name: of the product.
        normals: ``[N, H, W, 3] uint8 BGR``, fitted good images.
        anomalies: ``[A, H, W, 3] uint8 BGR``, fitted defective images.
    """

    name: str
    normals: NDArray[np.uint8]
    anomalies: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a method is trained on.

    Attributes:
        normals: ``[N, H, W, C] uint8``, fitted training images: BGR, and depth where the configuration takes it.
        textures: ``[T, H, W, 3] uint8 BGR``, pictures to make synthetic anomalies from; T may be 0.
        donors: the defects transferred from each other product (`Pretraining.transferred`); most methods take none.
        foreground_masks: ``[N, H, W] bool``, the part on each image, where the user has masks
            (`edgead.train.foreground`).
        epoch: optimiser steps in an epoch, from `RunConfig.steps_in_epoch`; counted from `normals` where None.
        cache: folder for what frozen networks make of the images (`edgead.train.feature_cache`); a temporary one where
            None.
    """

    normals: NDArray[np.uint8]
    textures: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 0, 0, 3), np.uint8))
    donors: tuple[Arrays, ...] = ()
    foreground_masks: NDArray[np.bool_] | None = None
    epoch: Fraction | None = None
    cache: Path | None = None

    def steps_in_epoch(self, config: MethodConfig) -> Fraction:
        """Optimiser steps in an epoch."""
        return steps_in_epoch(len(self.normals), config.batch_size) if self.epoch is None else self.epoch


@dataclass(frozen=True, eq=False)
class Pretraining:
    """What a method learns from a donor before its own training, in files that other runs can use.

    Attributes:
        network, stages: trained as a method's own are.
        transferred: after the training, what `Method.stages` and `Method.example` need of it.
        picture: what was learned, to look at: rows of ``[N, H, W, 3] uint8 BGR``.
    """

    network: nn.Module
    stages: list[Stage]
    transferred: Callable[[], Arrays]
    picture: Callable[[], list[NDArray[np.uint8]]]


@dataclass(frozen=True)
class Card:
    """What `edgead methods` tells about a method. Figures are the papers', at the paper's preset."""

    title: str
    paper: str
    parameters: float
    """Weights used at inference, millions."""
    macs: float
    """Multiply-accumulates per image, billions."""
    published: str
    """Published image AUROC with its source."""
    localises: str
    """Where the pixel map comes from."""
    needs: str
    """What training needs beside good images."""
    reporting_note: str = ""
    """What to report beside every figure of a run with donors; empty where a method takes none."""
    without_donors: str = ""
    """What it does without any."""
    visibility_hint: str = ""
    """What to do where its synthetic anomalies cannot be seen on the good images; empty where they always can."""


@dataclass(frozen=True)
class Official:
    """How a method's published code keeps what it trained, and how it reads images.

    Attributes:
        marks: names of weights that only this method's checkpoints hold.
        settings: weights ↦ ``NAME=VALUE`` of the configuration that they were made with, as far as their shapes say.
        rename: name of a weight there ↦ its name in `Method.network`; None for one that is saved and never used.
        computed: names in `Method.network` that the checkpoint lacks, because `Method.calibrate` computes them.
        partners: pattern and replacement in a file's path that give the path of the other file of a pair.
        resize: how images are brought to the network's size: ``"opencv linear"``, ``"pillow bilinear"`` or
            ``"pillow bicubic"``.
        inference: in words, for the manifest: colour order, scaling, scoring.
        depth_scale: of a method that takes depth: distances, in metres, that are −1 and 0 to the published network.
    """

    marks: tuple[str, ...]
    settings: Callable[[Mapping[str, Tensor]], list[str]]
    rename: Callable[[str], str | None]
    resize: str
    inference: str
    computed: tuple[str, ...] = ()
    partners: tuple[tuple[str, str], ...] = ()
    depth_scale: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Reconstruction:
    """Where `Method.export_model` holds the good image that the network sees in a frame.

    Attributes:
        module: dotted name of the submodule with the output ``[N, 3 or more, H, W]``, of which three channels are BGR.
        black, white: its values of the darkest and of the brightest pixel.
    """

    module: str
    black: float
    white: float


class Method(ABC):
    """One published method, configured. The constructor makes the network with fresh weights."""

    name: ClassVar[str]
    card: ClassVar[Card]
    Config: ClassVar[type[MethodConfig]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Preset name ↦ configuration values. Each method has ``paper``, ``edge`` and ``nano``."""
    export_settings: ClassVar[tuple[str, ...]] = ()
    """Configuration values that the weights do not depend on: they may be changed when a run is exported."""
    resume_settings: ClassVar[tuple[str, ...]] = ("learning_rate",)
    """The optimisers' step sizes: they may be changed when a stopped run is resumed."""
    takes_donors: ClassVar[bool] = False
    """Whether real defects of other products can be transferred (--donor); then `pretraining` is implemented."""
    takes_textures: ClassVar[bool] = True
    """Whether synthetic anomalies are filled with pictures (--textures)."""
    learns_anomalies: ClassVar[bool] = True
    """Whether it is trained on synthetic anomalies; where not, they only serve comparisons at export."""
    sensitive: ClassVar[tuple[str, ...]] = ()
    """Dotted names of submodules of `export_model` that stay in float32 in a bundle of lower precision, in every graph:
    flows, sums over many channels, exponentials, cosines, distances, the score. A list's name stands for its members.
    A name must be of a module that `export_model` calls; `edgead.export.graph.to_onnx` refuses another."""
    float32_only: ClassVar[str] = ""
    """Why ``--mixed-precision auto`` never takes bfloat16 for this method; empty where it may."""
    official: ClassVar[Official | None] = None
    """How the published code's checkpoints are read; None where that is not known."""

    config: MethodConfig
    network: nn.Module

    @abstractmethod
    def __init__(self, config: Any) -> None: ...

    def pretraining(self, donor: Donor) -> Pretraining:
        """Return what is to be learned from another product's real defects, if the method takes donors at all."""
        raise NotImplementedError

    def load_pretrained(self, weights: Path | None) -> None:
        """Read the parts of the network that come trained already; a method without any has nothing to do.

        Args:
            weights: their file; their publisher's download where None.

        Raises:
            CheckpointError: they cannot be had, or are another network's.
            ConfigError: a file is named, and the method has no such part.
        """
        if weights is not None:
            raise ConfigError(f"{self.name} has no pretrained backbone; leave out --weights.")

    def calibrate(self, normals: NDArray[np.uint8]) -> None:  # noqa: B027  (most methods have nothing to do)
        """Compute what a published checkpoint lacks from good images ``[N, H, W, 3] uint8 BGR``; mostly nothing."""

    def reconstruction(self) -> Reconstruction | None:
        """Return where the reconstructed good image is; None for a method that makes none."""
        return None

    def published(self) -> MethodConfig:
        """Return the published training's configuration, which this one departs from or not."""
        return self.Config()

    def departures(self) -> list[str]:
        """Describe in a few words each how training always differs from the published one."""
        return []

    def resume_command(self) -> str:
        """Return the command that resumes a stopped run, without ``--out``."""
        return "edgead train --resume"

    @abstractmethod
    def stages(self, data: TrainingData) -> list[Stage]:
        """Return what has to be optimised, in order."""

    @abstractmethod
    def example(self, data: TrainingData, rng: np.random.Generator) -> Arrays:
        """Return one synthetic anomaly: ``frame [H, W, C] uint8`` and ``mask [H, W] bool``, which has pixels.

        Raises:
            DataError: what training draws cannot be seen on these images.
        """

    def render(self, frame: NDArray[np.uint8], learned: Arrays, number: int) -> Arrays:
        """Put one defect that was learned from a donor on a good image ``[H, W, 3] uint8 BGR``, as it was learned.

        Args:
            frame: the good image, fitted.
            learned: from one donor (`Pretraining.transferred`).
            number: of the defect, from 0.

        Returns:
            ``frame`` and ``mask`` as from `example`; the mask is empty where the defect cannot be seen.

        Raises:
            ConfigError: there is no such defect, or the method learns none.
        """
        raise ConfigError(f"{self.name} learns no defects from donors; leave out --defect.")

    def visible(self, data: TrainingData, rng: np.random.Generator) -> float:
        """Return the share of what training draws as anomalies that can be seen; the rest are good images to it."""
        return 1.0

    @abstractmethod
    def reference_model(self) -> nn.Module:
        """Return the reference graph, in evaluation mode, sharing the network's weights.

        ``frames [N, H, W, C] uint8 -> scores [N] float32, maps [N, H, W] float32``
        """

    @abstractmethod
    def export_model(self) -> nn.Module:
        """Return a new module, equal to `reference_model` up to rounding, rewritten to be fast where it is deployed."""
