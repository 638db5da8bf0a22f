"""What the network sees while it learns: maps of three fixed pictures, a few times during a training.

They cost at most a hundredth of the training's time, and change nothing in it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgead.console import Console
from edgead.errors import describe
from edgead.files import atomic_file
from edgead.images import cv2
from edgead.train.method import Method, Stage

FOLDER = "snapshots"
"""In the run's folder while it is trained."""
MOMENTS = 8
"""Snapshots over a training."""
SHARE = 0.01
"""Most of the training's time that snapshots may take; the first one is always taken."""
SIDE = 128
"""Longest side of a kept map, pixels."""

Maps = NDArray[np.float16]


class Watch:
    """Takes snapshots. An error in one is reported once, and ends them.

    Args:
        method: is trained.
        frames: ``[K, H, W, C] uint8``, the pictures.
        stages: of the training.
        folder: of the run.
        console: shows a warning.
    """

    def __init__(
        self, method: Method, frames: NDArray[np.uint8], stages: Sequence[Stage], folder: Path, console: Console
    ) -> None:
        self.method, self.frames, self.folder, self.console = method, frames, folder / FOLDER, console
        self.names = [stage.name for stage in stages]
        steps = [stage.steps for stage in stages]
        self.before = [sum(steps[:index]) for index in range(len(steps))]
        self.wanted = {max(1, round(sum(steps) * number / MOMENTS)) for number in range(MOMENTS)}
        self.started, self.spent = time.monotonic(), 0.0

    def __call__(self, stage: int, step: int) -> None:
        """Take a snapshot if one is due after this step of a stage."""
        done = self.before[stage] + step
        if done not in self.wanted or self.spent > SHARE * (time.monotonic() - self.started):
            return
        begin = time.monotonic()
        try:
            _, maps = infer(self.method, self.frames)
            self.folder.mkdir(exist_ok=True)
            with atomic_file(self.folder / f"{done:09}.npz") as stream:
                np.savez_compressed(stream, maps=shrink(maps), text=f"{self.names[stage]}, step {step}")
        except Exception as error:
            self.wanted = set()
            self.console.say(f"Warning: the report will have no more images of this training: {describe(error)}")
        self.spent += time.monotonic() - begin

    def moments(self) -> list[tuple[str, Maps]]:
        """Return the text and the maps ``[K, h, w]`` of each snapshot."""
        found = []
        for path in sorted(self.folder.glob("*.npz")):
            with np.load(path) as stored:
                found.append((str(stored["text"]), stored["maps"]))
        return found


def infer(method: Method, frames: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return scores ``[K]`` and maps ``[K, H, W]`` of frames ``[K, H, W, C] uint8``, whatever state training is in."""
    training = {module: module.training for module in method.network.modules()}
    device = next(method.network.parameters()).device
    try:
        model = method.reference_model().to(device)
        with torch.inference_mode():
            outputs = [model(torch.from_numpy(frame[None]).to(device)) for frame in frames]
    finally:
        for module, flag in training.items():
            module.training = flag
    scores, maps = (np.concatenate([each[index].float().cpu().numpy() for each in outputs]) for index in (0, 1))
    return scores, maps


def shrink(maps: NDArray[np.float32]) -> Maps:
    """Return maps as small as a page shows them."""
    scale = min(1.0, SIDE / max(maps.shape[1:]))
    small = [cv2().resize(each, None, fx=scale, fy=scale, interpolation=cv2().INTER_AREA) for each in maps]
    return np.stack(small).clip(-6e4, 6e4).astype(np.float16)
