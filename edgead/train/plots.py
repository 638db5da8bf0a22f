"""Pictures of a training run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from edgead.files import atomic_file
from edgead.images import Frame, Mask, encode_png
from edgead.train.step_metrics import StepMetrics


def draw_curves(metrics: Sequence[StepMetrics], path: Path) -> None:
    """Draw every loss over the steps, one panel per stage, smoothed over a fiftieth of the stage."""
    stages = list(dict.fromkeys(entry.stage for entry in metrics))
    figure = Figure(figsize=(7, 3.2 * len(stages)), layout="constrained")
    for index, stage in enumerate(stages):
        axes = figure.add_subplot(len(stages), 1, index + 1)
        entries = [entry for entry in metrics if entry.stage == stage]
        window = max(1, len(entries) // 50)
        for name in [name for name in entries[0].values if name != "learning_rate"]:
            values = np.array([entry.values[name] for entry in entries], np.float64)
            smooth = np.convolve(values, np.ones(window) / window, mode="valid")
            steps = [entry.step for entry in entries][window - 1 :]
            axes.plot(steps, np.maximum(smooth, 1e-9), label=name, linewidth=2 if name == "total" else 1)
        axes.set(title=f"stage '{stage}'", xlabel="step", ylabel="loss", yscale="log")
        axes.grid(alpha=0.3)
        axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    with atomic_file(path) as stream:
        stream.write(buffer.getvalue())


def draw_rows(rows: Sequence[NDArray[np.uint8]], path: Path) -> None:
    """Draw rows of frames ``[N, H, W, 3] uint8 BGR`` as a grid."""
    grid = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    with atomic_file(path) as stream:
        stream.write(encode_png(grid))


def draw_examples(examples: Sequence[tuple[Frame, Mask]], path: Path) -> None:
    """Draw training examples as a grid: frames above, their depth where they have any, their masks below."""
    frames = np.concatenate([frame for frame, _ in examples], axis=1)
    masks = np.concatenate([mask for _, mask in examples], axis=1).astype(np.uint8) * 255
    grey = [frames[:, :, channel] for channel in range(3, frames.shape[2])] + [masks]
    rows = [frames[:, :, :3], *(np.repeat(picture[:, :, None], 3, axis=2) for picture in grey)]
    with atomic_file(path) as stream:
        stream.write(encode_png(np.concatenate(rows)))
