"""Engines run a bundle's graph. This module holds their interface and what several of them share.

An engine is a file here and a line in `edgead.runtime.engine_table`; `edgead.runtime.engines.opening` opens it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import CPU_MODEL, Bundle, cpu_model
from edgead.console import Console
from edgead.errors import first_line

__all__ = ["CPU_MODEL", "Engine", "EngineSpec", "NoSettings", "Opening", "cpu_model", "first_line", "split_batch"]


class Engine(Protocol):
    """Runs one graph on one device, for one thread at a time. `CheckedEngine` makes it thread-safe."""

    name: str
    """The engine's name with its device, for instance ``"onnxruntime-cpu"``."""

    def infer(self, frames: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run the graph.

        Args:
            frames: ``[N, H, W, C] uint8``, C-contiguous, of the graph's size and channels. An engine whose attribute
                `on_device` is true also takes `edgead.runtime.engines.device_frames.DeviceFrames`; if it has a method
                `fit`, as `edgead.runtime.engines.device_resize.DeviceResize`, they may have another size.

        Returns:
            scores ``[N]`` and maps ``[N, H, W]``, both float32, new arrays owned by the caller.

        Raises:
            DeviceError: the device failed.
        """

    def close(self) -> None:
        """Release the device; the engine cannot be used afterwards."""


@dataclass(frozen=True)
class NoSettings:
    """The settings of an engine without settings."""


@dataclass(frozen=True)
class Opening:
    """Arguments for opening an engine.

    Attributes:
        batch: maximum frames per call of `Engine.infer`, for engines with fixed shapes.
        settings: an instance of `EngineSpec.settings`.
        console: shows long steps.
    """

    batch: int = 1
    settings: Any = NoSettings()
    console: Console = field(default_factory=Console)


def _any_machine() -> None:
    """Default `require_device`: every machine can run the engine."""


@dataclass(frozen=True)
class EngineSpec:
    """The description of an engine.

    Attributes:
        open: opens a bundle's graph. Any error other than an `EdgeadError` becomes a `DeviceError`.
        purpose: a few words for help texts.
        module: the Python package that it needs; empty for none.
        extra: the extra of edgead that installs the package.
        settings: a dataclass of its settings, see `edgead.settings`.
        on_gpu: it needs an NVIDIA GPU.
        exact: it computes at the graph's precision, so `auto` may choose it: docs/adr/0015.
        chooses: it opens one of the other engines, after validating it on the golden frames.
        require_device: raises an `EdgeadError` if it cannot run any bundle on this machine.
    """

    open: Callable[[Bundle, Opening], Engine]
    purpose: str
    module: str = ""
    extra: str = ""
    settings: type[Any] = NoSettings
    on_gpu: bool = False
    exact: bool = True
    chooses: bool = False
    require_device: Callable[[], object] = _any_machine


def split_batch(count: int, sizes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Split a batch for an engine with a few fixed batch sizes.

    Yields:
        (start, stop, size): run frames ``start:stop`` at this size, the smallest that fits; a part may be shorter than
        its size.
    """
    start = 0
    while start < count:
        size = min((size for size in sizes if size >= count - start), default=max(sizes))
        stop = min(count, start + size)
        yield start, stop, size
        start = stop
