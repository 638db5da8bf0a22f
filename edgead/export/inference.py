"""Run frames through a graph or a network, one by one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgead.bundle import Golden, Outputs
from edgead.console import Track
from edgead.datasets.frames import allocate
from edgead.runtime.engines import Engine
from edgead.runtime.engines.checked import check_outputs

if TYPE_CHECKING:  # ONNX files are imported without torch
    from torch import nn


def run_singly(engine: Engine, frames: NDArray[np.uint8], track: Track = iter) -> Outputs:
    """Run frames one by one: scores ``[N]`` and maps ``[N, H, W]``.

    Args:
        engine: of the graph.
        frames: ``[N, H, W, C] uint8``.
        track: shows progress.

    Raises:
        DeviceError: outputs of another shape or type.
    """
    scores, maps = np.empty(len(frames), np.float32), allocate(frames.shape[:3], np.float32)
    for index, (score, found) in enumerate(infer_singly(engine, frames, track)):
        scores[index], maps[index] = score, found
    return scores, maps


def infer_singly(
    engine: Engine, frames: NDArray[np.uint8], track: Track = iter, times: list[float] | None = None
) -> Iterator[tuple[float, NDArray[np.float32]]]:
    """Run frames one by one and yield score and map ``[H, W]`` of each; `times` gets the milliseconds of each."""
    for index in track(range(len(frames))):
        frame, start = frames[index : index + 1], time.perf_counter()
        found = engine.infer(frame)
        if times is not None:
            times.append((time.perf_counter() - start) * 1e3)
        scores, maps = check_outputs(engine.name, found, frame)
        yield float(scores[0]), maps[0]


def run_reference(network: nn.Module, frames: NDArray[np.uint8]) -> Golden:
    """Run a network on frames ``[N, H, W, C] uint8``, one by one, on the CPU."""
    import torch

    network = network.cpu()
    with torch.inference_mode():
        outputs = [network(torch.from_numpy(frame[None])) for frame in frames]
    scores = np.concatenate([scores.numpy() for scores, _ in outputs])
    maps = np.concatenate([maps.numpy() for _, maps in outputs])
    return Golden(frames, scores, maps)
