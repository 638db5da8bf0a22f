"""The contract between a published method and everything else.

A method is one file in `edgead.train.methods`: a frozen configuration, a network, how it is trained (`stages`) and
the graph it becomes (`detector`). The loop, the export and the runtime know nothing else about it.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgead.errors import ConfigError

Arrays = dict[str, NDArray[Any]]
Batch = dict[str, Tensor]
T = TypeVar("T")


class Track(Protocol):
    """Shows progress while a sequence is gone through."""

    def __call__(self, items: Sequence[T], /) -> Iterable[T]: ...


@dataclass(frozen=True)
class MethodConfig:
    """What every method is configured with; a method adds its own fields. Checked in `__post_init__`."""

    size: tuple[int, int] = (256, 256)
    """Input height and width, pixels."""
    batch_size: int = 8
    """Images in one optimiser step, over all processes."""
    epochs: int = 700
    """Passes over the training images; an epoch draws as many images as there are, with replacement."""
    steps: int = 0
    """Optimiser steps; 0 means that `epochs` decides."""
    learning_rate: float = 1e-4
    """The optimiser's step size before any decay."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be positive, not {getattr(self, name)}.")
        if self.steps < 0 or min(self.size) <= 0:
            raise ConfigError(f"steps and size cannot be negative: {self.steps}, {self.size}.")

    def total_steps(self, images: int) -> int:
        """Optimiser steps for a training set of that many images."""
        return self.steps or math.ceil(self.epochs * images / self.batch_size)


@dataclass(frozen=True)
class Stage:
    """One optimisation that the training loop runs from start to end.

    Attributes:
        name: shown in the progress bar and in metrics.jsonl.
        module: ``forward(batch) -> dict`` of scalar losses; their sum is minimised.
        sample: makes one training example from a random generator. It must depend on nothing else, so that a
            run can be resumed, or spread over workers, without changing its result.
        steps: optimiser steps.
        batch_size: examples in a step, over all processes.
        optimizer: makes the optimiser from the module's trainable parameters.
        schedule: step ↦ factor on the learning rate.
        prepare: called once with the network in its place, on its device, before the optimiser is made and the first
            example is drawn: freezes what this stage leaves alone, computes what does not change while it lasts. It
            must depend on the network's weights alone, because it is called again when a run is resumed.
    """

    name: str
    module: nn.Module
    sample: Callable[[np.random.Generator], Arrays]
    steps: int
    batch_size: int
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    schedule: Callable[[int], float]
    prepare: Callable[[torch.device, Track], None] = lambda device, track: None


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


class Method(ABC):
    """One published method, configured. The constructor makes the network with fresh weights."""

    name: ClassVar[str]
    card: ClassVar[Card]
    Config: ClassVar[type[MethodConfig]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Preset name ↦ configuration values. Each method has ``paper``, ``edge`` and ``nano``."""
    sensitive: ClassVar[tuple[str, ...]] = ()
    """Dotted names of submodules of `deployable` that stay in float32 in a bundle of lower precision, in every graph:
    flows, sums over many channels, exponentials, cosines, distances, the score. A list's name stands for its members.
    A name must be of a module that `deployable` calls; `edgead.export.to_onnx` refuses another."""

    config: MethodConfig
    network: nn.Module

    @abstractmethod
    def __init__(self, config: Any) -> None: ...

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

    @abstractmethod
    def stages(self, normals: NDArray[np.uint8], textures: NDArray[np.uint8]) -> list[Stage]:
        """Return what has to be optimised, in order.

        Args:
            normals: ``[N, H, W, 3] uint8 BGR``, fitted training images.
            textures: ``[T, H, W, 3] uint8 BGR``, pictures to make synthetic anomalies from; T may be 0.
        """

    @abstractmethod
    def example(self, normals: NDArray[np.uint8], textures: NDArray[np.uint8], rng: np.random.Generator) -> Arrays:
        """Return one synthetic anomaly: ``frame [H, W, 3] uint8 BGR`` and ``mask [H, W] bool``."""

    @abstractmethod
    def detector(self) -> nn.Module:
        """Return the reference graph, in evaluation mode, sharing the network's weights.

        ``frames [N, H, W, 3] uint8 BGR -> scores [N] float32, maps [N, H, W] float32``
        """

    @abstractmethod
    def deployable(self) -> nn.Module:
        """Return a new module, equal to `detector` up to rounding, rewritten to be fast where it is deployed."""


def configure(method: type[Method], preset: str, settings: Iterable[str] = ()) -> MethodConfig:
    """Make a method's configuration from a preset and ``name=value`` settings.

    Raises:
        ConfigError: unknown preset or name (with the nearest known one), or a value of the wrong type or range.
    """
    if preset not in method.presets:
        raise ConfigError(f"{method.name} has no preset '{preset}'. It has: {', '.join(method.presets)}.")
    fields = {field.name: field for field in dataclasses.fields(method.Config)}
    values: dict[str, Any] = dict(method.presets[preset])
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator:
            raise ConfigError(f"--set takes NAME=VALUE, not '{setting}'.")
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else f" It has: {', '.join(fields)}."
            raise ConfigError(f"{method.name} has no setting '{name}'.{hint}")
        values[name] = _parse(name, text, fields[name].default)
    return method.Config(**values)


def config_from_dict(method: type[Method], values: Mapping[str, Any]) -> MethodConfig:
    """Rebuild a configuration that was stored as JSON (lists become tuples again)."""
    kept: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return method.Config(**kept)


def _parse(name: str, text: str, default: Any) -> Any:
    try:
        if name == "size":  # 256 or 256x192 (height x width)
            sides = [int(part) for part in text.lower().split("x")]
            height, width = sides * 2 if len(sides) == 1 else sides
            return height, width
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(default, tuple):
            return tuple(type(default[0])(part) for part in text.split(","))
        return type(default)(text)
    except (ValueError, KeyError) as error:
        raise ConfigError(f"{name} takes a value like {default}, not '{text}'.") from error
