"""Good images in memory: decoded, resized, with their depth range."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgead.datasets.category import some
from edgead.depth import DepthRange, find_depth_file, find_ends, measure_range
from edgead.errors import DataError, MisplacedError
from edgead.files import reserve
from edgead.geometry import STRETCH, Geometry
from edgead.geometry.pose import SAME_ASPECT
from edgead.geometry.tiling import Tiling
from edgead.images import COLOUR, PixelFormat, fit_frame, read_depth, read_frame

T = TypeVar("T", bound=np.generic)
LARGEST_IN_MEMORY = 2 << 30
"""Bytes of an array that is kept in memory; a larger one lies in a temporary file, of which memory holds a part."""


@dataclass(frozen=True)
class Frames:
    """Good images, decoded and fitted.

    Attributes:
        frames: ``[N, H, W, C] uint8``, whole canvases: BGR, and depth where it was asked for.
        paths: the file of each frame, in order.
        skipped: one line for each image that could not be used.
        fingerprint: SHA-256 over the names and bytes of the files in `paths`, and of their depth images.
        sizes: (height, width) of each image before it was fitted.
    """

    frames: NDArray[np.uint8]
    paths: tuple[Path, ...]
    skipped: tuple[str, ...]
    fingerprint: str
    sizes: tuple[tuple[int, int], ...] = ()

    def size_ranges(self) -> dict[str, list[float]]:
        """Return lowest and highest ``heights``, ``widths`` and ``aspects`` (width / height); nothing of no images."""
        if not self.sizes:
            return {}
        heights, widths = zip(*self.sizes)
        aspects = [width / height for height, width in self.sizes]
        named = {"heights": heights, "widths": widths, "aspects": aspects}
        return {name: [min(values), max(values)] for name, values in named.items()}

    def describe_odd_shapes(self) -> str:
        """Return a warning of the few images, up to a tenth, whose aspect ratio the others do not have; else nothing.

        The range of the aspect ratios is what `edgead.runtime.health` compares frames with.
        """
        if not self.sizes:
            return ""
        aspects = np.array([width / height for height, width in self.sizes])
        odd = np.flatnonzero(np.abs(aspects / np.median(aspects) - 1) > SAME_ASPECT)
        if not 0 < len(odd) <= max(1, len(aspects) // 10) or len(aspects) < 3:
            return ""
        return (
            f"Warning: {len(odd)} of {len(aspects)} images differ from the others in their aspect ratio: "
            f"{some([self.paths[number] for number in odd])}. They are stretched, and frames of any aspect ratio from "
            f"{aspects.min():.3g} to {aspects.max():.3g} count as trained. Remove them if they show another view."
        )

    def describe_untrained_shapes(self, trained: Frames) -> str:
        """Return a warning of the held-out images whose aspect ratio no training image has; else nothing."""
        if not self.sizes or not trained.sizes:
            return ""
        low, high = trained.size_ranges()["aspects"]
        odd = [
            path
            for path, (height, width) in zip(self.paths, self.sizes)
            if not low * (1 - SAME_ASPECT) <= width / height <= high * (1 + SAME_ASPECT)
        ]
        if not odd:
            return ""
        return (
            f"Warning: {len(odd)} of {len(self.sizes)} held-out images have an aspect ratio that no training image "
            f"has: {some(odd)}. The threshold counts their scores. Remove them if they show another view."
        )

    def only(self, numbers: Sequence[int]) -> Frames:
        """Return some of them; the fingerprint stays that of all."""
        paths = tuple(self.paths[number] for number in numbers)
        sizes = tuple(self.sizes[number] for number in numbers)
        kept = allocate((len(numbers), *self.frames.shape[1:]), np.uint8)
        for place, number in enumerate(numbers):
            kept[place] = self.frames[number]
        return Frames(kept, paths, self.skipped, self.fingerprint, sizes)


def allocate(shape: tuple[int, ...], kind: type[T]) -> NDArray[T]:
    """Return an array of any content, in memory or, if it is larger than `LARGEST_IN_MEMORY`, in a temporary file.

    The file lies where Python's `tempfile` puts it (``TMPDIR``) and is gone when the array is.

    Raises:
        OSError: there is no room for the file.
    """
    size = math.prod(shape) * np.dtype(kind).itemsize
    if size <= LARGEST_IN_MEMORY:
        return np.empty(shape, kind)
    with tempfile.TemporaryFile(prefix="edgead-") as stream:
        reserve(stream, size, f"{size / 1e9:.1f} GB for images in {tempfile.gettempdir()}")
        return np.asarray(np.memmap(stream, kind, "w+", shape=shape))


def cut_tiles(canvases: NDArray[T], tiling: Tiling) -> NDArray[T]:
    """Return the tiles ``[N · count, h, w, …]`` of canvases ``[N, H, W, …]``, allocated as by `allocate`."""
    if tiling.count == 1:
        return canvases
    shape = (len(canvases) * tiling.count, *tiling.size, *canvases.shape[3:])
    return tiling.cut(canvases, allocate(shape, canvases.dtype.type))


def load_frames(
    paths: Sequence[Path],
    size: tuple[int, int],
    pixels: PixelFormat = COLOUR,
    progress: Callable[[Sequence[Path]], Iterable[Path]] = iter,
    geometry: Geometry = STRETCH,
) -> Frames:
    """Read images, fit them to a canvas of (height, width), and keep them.

    `skipped` lists those that are unreadable, or on which the part is not found.
    """
    frames = allocate((len(paths), *size, pixels.channels), np.uint8)
    kept: list[Path] = []
    skipped: list[str] = []
    sizes: list[tuple[int, int]] = []
    digest = hashlib.sha256()
    for path in progress(paths):
        try:
            frame = read_frame(path, pixels)
            frames[len(kept)] = fit_frame(frame, size, geometry=geometry)
        except DataError as error:
            skipped.append(f"{path}: {error}" if isinstance(error, MisplacedError) else str(error))
            continue
        for file in [path] if pixels.depth_range is None else [path, find_depth_file(path)]:
            digest.update(_name_and_bytes(file))
        kept.append(path)
        sizes.append((frame.shape[0], frame.shape[1]))
    return Frames(frames[: len(kept)], tuple(kept), tuple(skipped), digest.hexdigest(), tuple(sizes))


def fingerprint_of(paths: Iterable[Path]) -> str:
    """Return `Frames.fingerprint` of colour images that can all be read."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(_name_and_bytes(path))
    return digest.hexdigest()


def _name_and_bytes(file: Path) -> bytes:
    return os.fsencode(file.name) + b"\0" + file.read_bytes()


def find_depth_range(
    paths: Sequence[Path], progress: Callable[[Sequence[Path]], Iterable[Path]] = iter
) -> tuple[DepthRange, dict[Path, DepthRange]]:
    """Return the depth range of good images, and the images with a range that does not overlap the usual one.

    Those whose depth cannot be read are left out.

    Raises:
        DataError: not one can be read; with the first reason.
    """
    reasons: list[DataError] = []
    ends: dict[Path, DepthRange] = {}
    for path in progress(paths):
        try:
            ends[path] = find_ends(read_depth(find_depth_file(path)))
        except DataError as error:
            reasons.append(error)
    if not ends:
        raise DataError(
            f"None of the {len(paths)} good images has readable depth. First error:\n{reasons[0]}\n"
            "Put depth into xyz/ beside rgb/, or leave out --set depth=true."
        )
    usual_near, usual_far = np.median([*ends.values()], axis=0)
    odd = {path: (near, far) for path, (near, far) in ends.items() if far < usual_near or near > usual_far}
    return measure_range(ends.values()), odd
