"""What runs a bundle's graph. An engine is a file here and a line in `ENGINES`."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import MODEL, Bundle
from edgead.console import Console
from edgead.errors import ConfigError, DeviceError, EdgeadError
from edgead.settings import parse_settings, split_settings

if TYPE_CHECKING:
    from edgead.runtime.engines.checked import CheckedEngine

ENGINES = {
    "onnxruntime": "edgead.runtime.engines.onnxruntime_engine:open_cpu",
    "onnxruntime-cuda": "edgead.runtime.engines.onnxruntime_cuda:open_cuda",
    "openvino": "edgead.runtime.engines.openvino_engine:open_exact",
    "openvino-bf16": "edgead.runtime.engines.openvino_engine:open_bf16",
    "tensorrt": "edgead.runtime.engines.tensorrt_engine:open_tensorrt",
}
CPU_MODEL = "model.cpu.onnx"
"""What an INT8 bundle may hold beside its graph: the form that ONNX Runtime's CPU engine likes."""

T = TypeVar("T")


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
class Opening:
    """How an engine is to be opened.

    Attributes:
        batch: most frames in one call of `Engine.infer`, for engines that fix their shapes when they are built.
        settings: the engine's own, from its name: ``tensorrt:opt_level=5,dla=0``.
        console: shows what takes long.
    """

    batch: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)
    console: Console = field(default_factory=Console)


def open_engine(name: str, bundle: Bundle, *, batch: int = 1, console: Console | None = None) -> CheckedEngine:
    """Open a bundle's graph on the engine `name`; for ``"auto"`` on the fastest one that gives the golden outputs.

    `edgead.runtime.golden.open_validated` also checks that an engine that you name gives them.

    Args:
        name: of `ENGINES`, with settings after a colon where the engine has any.
        bundle: what it runs.
        batch, console: see `Opening`.

    Raises:
        ConfigError: no such engine or setting.
        MissingDependencyError: its package is not installed.
        BundleError: it cannot read the graph.
        DeviceError: this machine cannot run it.
    """
    from edgead.runtime.engines.checked import check  # it needs this module

    console = console or Console()
    if name == "auto":
        from edgead.runtime.engines.auto import open_fastest  # it opens engines itself

        return open_fastest(bundle, batch=batch, console=console)
    kind, _, text = name.partition(":")
    if kind not in ENGINES:
        raise ConfigError(f"There is no engine '{kind}'. There is: auto, {', '.join(ENGINES)}.")
    module, _, attribute = ENGINES[kind].partition(":")
    opening = Opening(batch, _split(kind, text), console)
    try:
        engine: Engine = getattr(importlib.import_module(module), attribute)(bundle, opening)
    except EdgeadError:
        raise
    except Exception as error:  # bindings raise whatever they like
        raise DeviceError(f"The engine {kind} cannot be opened here: {first_line(error)}") from error
    return check(engine, bundle)


def _split(kind: str, text: str) -> dict[str, str]:
    usage = f"{kind}:NAME=VALUE,NAME=VALUE"
    found = split_settings((part for part in text.split(",") if part), usage)
    if "" in found.values():
        raise ConfigError(f"Settings are written {usage}, not '{text}'.")
    return found


def read_settings(kind: type[T], engine: str, given: Mapping[str, str]) -> T:
    """Make an engine's settings, a dataclass, from text.

    Raises:
        ConfigError: there is no such setting, or its value is of another type or refused by the dataclass.
    """
    return kind(**parse_settings(kind, given, f"the engine {engine}"))


@dataclass(frozen=True)
class NoSettings:
    """Of an engine that has nothing to set."""


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


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or its kind where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
