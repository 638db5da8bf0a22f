"""What runs a bundle's graph: what every engine is, and what several share.

An engine is a file here and a line in `edgead.runtime.engine_table`; `edgead.runtime.engines.opening` opens it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import MODEL, Bundle
from edgead.console import Console
from edgead.errors import first_line

__all__ = ["CPU_MODEL", "Engine", "EngineSpec", "NoSettings", "Opening", "cpu_model", "first_line", "split_batch"]

CPU_MODEL = "model.cpu.onnx"
"""What an INT8 bundle may hold beside its graph: the form that ONNX Runtime's CPU engine likes."""


class Engine(Protocol):
    """Runs one graph on one device, for one thread at a time. `CheckedEngine` lets any number of threads call it."""

    name: str
    """The engine's name with its device, for instance ``"onnxruntime-cpu"``."""

    def infer(self, frames: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run the graph.

        Args:
            frames: ``[N, H, W, C] uint8``, C-contiguous, of the graph's size and channels.

        Returns:
            scores ``[N]`` and maps ``[N, H, W]``, both float32, new arrays owned by the caller.

        Raises:
            DeviceError: the device failed.
        """

    def close(self) -> None:
        """Release the device; the engine cannot be used afterwards."""


@dataclass(frozen=True)
class NoSettings:
    """Of an engine that has nothing to set."""


@dataclass(frozen=True)
class Opening:
    """How an engine is to be opened.

    Attributes:
        batch: most frames in one call of `Engine.infer`, for engines that fix their shapes when they are built.
        settings: the engine's own, of the type `EngineSpec.settings`.
        console: shows what takes long.
    """

    batch: int = 1
    settings: Any = NoSettings()
    console: Console = field(default_factory=Console)


def _any_machine() -> None:
    """Most engines run everywhere."""


@dataclass(frozen=True)
class EngineSpec:
    """What an engine says of itself.

    Attributes:
        open: opens a bundle's graph. What it raises beside an `EdgeadError` becomes a `DeviceError`.
        purpose: in a few words, for a person.
        module: the Python package that it needs; empty for none.
        extra: the extra of this distribution that brings the package.
        settings: a dataclass with what can be set, see `edgead.settings`.
        on_gpu: it needs an NVIDIA GPU.
        exact: it computes what the graph says, so that `auto` may choose it: docs/adr/0015.
        chooses: it opens one of the others, and only one that gives the golden outputs.
        require_device: raises an `EdgeadError` where it cannot run any bundle on this machine.
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
    """Cut a batch into parts for an engine that knows a few fixed sizes.

    Yields:
        (start, stop, size): frames ``start:stop`` go into the smallest size that holds them; a part may be shorter
        than its size.
    """
    start = 0
    while start < count:
        size = min((size for size in sizes if size >= count - start), default=max(sizes))
        stop = min(count, start + size)
        yield start, stop, size
        start = stop


def cpu_model(bundle: Bundle) -> str:
    """Return the name of the graph for engines of CPUs."""
    return CPU_MODEL if CPU_MODEL in bundle.manifest.files else MODEL
