"""Export a PyTorch module to an ONNX graph with the signature of every bundle."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from edgead.bundle.manifest import ReconstructionRecord
from edgead.console import Console
from edgead.errors import ConfigError
from edgead.export.graph.opset import OPSET
from edgead.export.graph.sensitive import MARK
from edgead.export.graph.simplify import simplify
from edgead.train.method import Method

RECONSTRUCTIONS = "reconstructions"
"""The tensor inside a graph with the reconstructed good image. It is not an output, so engines need not copy it;
`edgead.runtime.reconstruction` makes it one when a user wants to see it. Reasons: docs/adr/0030."""


def write_onnx(
    module: nn.Module,
    size: tuple[int, int],
    path: Path,
    sensitive: Sequence[str] = (),
    channels: int = 3,
    shown: str = "",
) -> None:
    """Trace a module to ONNX, simplify the graph, and check the result.

    ``frames [N, H, W, C] uint8 -> scores [N] float32, maps [N, H, W] float32``; N is free, H and W are not.
    Batch norms are folded into the convolutions before them. Why torch's tracing exporter: docs/adr/0003.

    Args:
        module: in evaluation mode; ``forward(frames) -> (scores, maps)``.
        size: (height, width) in pixels.
        path: the file to write.
        sensitive: dotted names of submodules; their nodes get the mark `MARK`.
        channels: of a frame.
        shown: dotted name of a submodule; its output is called `RECONSTRUCTIONS` in the graph.

    Raises:
        ConfigError: a sensitive submodule does not exist or is never called.
    """
    trace(module, size, path, sensitive, channels, shown)
    simplify(path)
    if shown:
        _keep_inside(path)
    onnx.checker.check_model(str(path), full_check=True)


def write_network(method: Method, path: Path, console: Console) -> None:
    """Write a method's network to a file, see `write_onnx`."""
    console.say("tracing the network to ONNX")
    shown, config = method.reconstruction(), method.config
    module = shown.module if shown else ""
    write_onnx(method.export_model(), config.size, path, method.sensitive, config.channels, module)


def reconstruction_record(method: Method) -> ReconstructionRecord | None:
    """Return the manifest's record of the reconstruction in a method's graph; None if it has none."""
    shown = method.reconstruction()
    return ReconstructionRecord(RECONSTRUCTIONS, shown.black, shown.white) if shown else None


def _keep_inside(path: Path) -> None:
    """Remove the reconstruction from the outputs, in place; it stays in the graph."""
    model = onnx.load(path)
    kept = [value for value in model.graph.output if value.name != RECONSTRUCTIONS]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    onnx.save(model, path)


def trace(
    module: nn.Module,
    size: tuple[int, int],
    path: Path,
    sensitive: Sequence[str] = (),
    channels: int = 3,
    shown: str = "",
) -> None:
    """Write the traced graph without simplification; see `write_onnx`."""
    example = torch.zeros((1, *size, channels), dtype=torch.uint8)
    outputs = ["scores", "maps", *([RECONSTRUCTIONS] if shown else [])]
    with warnings.catch_warnings(), _marked(module, sensitive):
        warnings.simplefilter("ignore")  # the exporter announces its successor, which cannot write this operator set
        torch.onnx.export(
            _Showing(module, shown).eval() if shown else module,
            (example,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["frames"],
            output_names=outputs,
            dynamic_axes={name: {0: "N"} for name in ("frames", *outputs)},
        )


class _Showing(nn.Module):
    """A module that also returns the output of one of its submodules."""

    def __init__(self, module: nn.Module, shown: str) -> None:
        super().__init__()
        self.module, self.found = module, torch.empty(0)
        module.get_submodule(shown).register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _arguments: Any, output: torch.Tensor) -> None:
        self.found = output

    def forward(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        scores, maps = self.module(frames)
        return scores, maps, self.found


@contextlib.contextmanager
def _marked(module: nn.Module, sensitive: Sequence[str]) -> Iterator[None]:
    """Add `MARK` to the scope of nodes that are traced in sensitive submodules.

    The scope of a node survives the exporter's passes and becomes its name, which later passes keep.
    """
    called: set[str] = set()
    hooks = []
    modules = dict(module.named_modules())
    for name in sensitive:
        if name not in modules or not name:
            raise ConfigError(f"'{name}' is declared sensitive, but {type(module).__name__} has no such submodule.")

        def enter(_module: nn.Module, _arguments: Any, name: str = name) -> None:
            called.add(name)
            if state := torch._C._get_tracing_state():
                state.push_scope(f"edgead::{MARK}")

        def leave(_module: nn.Module, _arguments: Any, _outputs: Any) -> None:
            if state := torch._C._get_tracing_state():
                state.pop_scope()

        # A ModuleList itself is never called; its members are.
        found = modules[name]
        for part in found if isinstance(found, nn.ModuleList) else [found]:
            hooks += [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    if idle := [name for name in sensitive if name not in called]:
        raise ConfigError(f"'{idle[0]}' is declared sensitive, but the graph never calls it.")
