"""The images that a bundle of an imported model is built with. Frames with added noise serve as anomalies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgead.bundle.manifest import DataRecord, sizes_of
from edgead.datasets import open_category
from edgead.export.builder import GATE_ANOMALIES, SourceImages
from edgead.export.imports.threshold_data import ThresholdData
from edgead.files import sha256

PROBES = 6
"""Images, and as many with noise, on which graph and model are compared."""


def source_images(normals: ThresholdData | None, size: tuple[int, int], labelled: Path | None) -> SourceImages:
    """Return the images that a bundle is built with.

    Args:
        normals: good images; None for a model with a threshold of its own.
        size: (height, width) of the model's input, pixels.
        labelled: data set with labelled test images for the gate.
    """
    probes = probe_frames(normals, size)
    if normals is None:
        return SourceImages(probes=probes, golden=_golden(len(probes)), calibration_source="threshold")
    rng, frames = np.random.default_rng(0x1A8), normals.frames.frames
    return SourceImages(
        category=normals.category,
        data=DataRecord("", normals.frames.fingerprint, normals.part),
        sizes=sizes_of(normals.frames.size_ranges()),
        normals=normals.frames,
        probes=probes,
        golden=_golden(len(probes)),
        anomalies=disturb(frames[rng.integers(0, len(frames), GATE_ANOMALIES)], rng),
        calibration=normals.good,
        calibration_source="threshold",
        labelled=open_category(labelled) if labelled else None,
    )


def _golden(count: int) -> tuple[int, ...]:
    return 0, 1, count // 2, count // 2 + 1


def probe_frames(normals: ThresholdData | None, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the frames on which graph and model are compared: real frames, then as many with noise."""
    rng = np.random.default_rng(0x1A9)
    if normals is None:
        coarse = rng.integers(0, 256, (PROBES, 8, 8, 3), dtype=np.uint8)
        rows, columns = (np.arange(side) * 8 // side for side in size)
        real = coarse[:, rows][:, :, columns]
    else:
        real = normals.frames.frames[:PROBES]
        real = np.concatenate([real] * (2 // len(real) + 1)) if len(real) < 2 else real
    return np.concatenate([real, disturb(real, rng)])


def disturb(frames: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return copies of frames ``[N, H, W, C] uint8`` with noise in a ninth of each."""
    noisy = frames.copy()
    height, width = frames.shape[1:3]
    for frame in noisy:
        top, left = rng.integers(0, (height // 2, width // 2))
        part = frame[top : top + height // 3, left : left + width // 3]
        part[:] = rng.integers(0, 256, part.shape, dtype=np.uint8)
    return noisy


def files_of(paths: Sequence[Path]) -> dict[str, str]:
    """Return file name ↦ SHA-256, in the given order. Files with the same name get their folder's name as prefix."""
    names = [path.name for path in paths]
    keys = [
        name if names.count(name) == 1 else f"{path.resolve().parent.name}/{name}" for path, name in zip(paths, names)
    ]
    return {key: sha256(path) for key, path in zip(keys, paths)}
