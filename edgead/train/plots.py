"""Pictures of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgead.files import atomic_file
from edgead.images import Frame, Mask, encode_png


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
