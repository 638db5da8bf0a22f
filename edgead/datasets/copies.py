"""Find duplicate images: the same file bytes, the same pixels, and near copies."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Container, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgead.errors import DataError
from edgead.files import sha256
from edgead.images import COLOUR, PixelFormat, cv2, read_frame

SIDE = 32
"""Side of the small grey image for the search of near copies, pixels."""
NEAR = 1.0
"""Near copies differ by less: grey levels of 255, root mean square over the small image, ignoring brightness."""
ALIKE = 0.99
"""Near copies correlate by this or more. On a part with little contrast, all images differ by little."""


@dataclass(frozen=True)
class Pictures:
    """Hashes and small versions of images for comparison, in the order of their paths.

    Attributes:
        hashes: of the decoded pixels and the size; None where the image cannot be read.
        small: ``[N, SIDE²] float32``: grey values less their mean; NaN where the image cannot be read.
    """

    hashes: tuple[str | None, ...]
    small: NDArray[np.float32]

    def groups(self) -> tuple[int, ...]:
        """Return for each image the number of the first one with the same pixels, which may be its own."""
        first: dict[str, int] = {}
        return tuple(
            number if digest is None else first.setdefault(digest, number) for number, digest in enumerate(self.hashes)
        )

    def copied(self, count: int) -> int:
        """Return how many of the first `count` images show, pixel for pixel, what one behind them shows."""
        groups = self.groups()
        behind = set(groups[count:])
        return sum(group in behind for group in groups[:count])

    def near(self, some: Sequence[int], others: Sequence[int]) -> list[tuple[int, int]]:
        """Return the pairs of one of `some` and one of `others` that are almost, but not quite, the same picture."""
        if not some or not others:
            return []
        a, b = self.small[list(some)], self.small[list(others)]
        energy_a, energy_b = ((each * each).mean(axis=1) for each in (a, b))
        product = a @ b.T / SIDE**2
        squared = energy_a[:, None] + energy_b - 2 * product
        with np.errstate(invalid="ignore"):
            alike = (squared < NEAR**2) & (product >= ALIKE * np.sqrt(energy_a[:, None] * energy_b))
        pairs = ((some[row], others[column]) for row, column in np.argwhere(alike))
        return [(one, other) for one, other in pairs if self.hashes[one] != self.hashes[other]]


def look_at(
    paths: Sequence[Path],
    pixels: PixelFormat = COLOUR,
    track: Callable[[Sequence[Path]], Iterable[Path]] = iter,
) -> Pictures:
    """Read images in parallel, and keep what they are compared by: about 4 KB each.

    Args:
        paths: of the images.
        pixels: theirs. With a depth range, pictures with other depth are different, but may be near copies.
        track: shows progress.
    """
    hashes: list[str | None] = []
    small = np.full((len(paths), SIDE**2), np.nan, np.float32)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = pool.map(lambda path: _look_at_one(path, pixels), paths)
        for number, (_, (digest, picture)) in enumerate(zip(track(paths), found)):
            hashes.append(digest)
            if picture is not None:
                small[number] = picture
    return Pictures(tuple(hashes), small)


def _look_at_one(path: Path, pixels: PixelFormat) -> tuple[str | None, NDArray[np.float32] | None]:
    try:
        frame = read_frame(path, pixels)
    except DataError:
        return None, None
    digest = hashlib.blake2b(np.ascontiguousarray(frame).data, digest_size=16)
    digest.update(repr(frame.shape).encode())
    small = cv2().resize(frame[..., :3], (SIDE, SIDE), interpolation=cv2().INTER_AREA)
    picture = cv2().cvtColor(small, cv2().COLOR_BGR2GRAY).astype(np.float32).reshape(-1)
    return digest.hexdigest(), picture - picture.mean()


def find_contents(images: Iterable[Path], sizes: Container[int] | None = None) -> dict[str, Path]:
    """Return ``BYTES-HASH`` of image files ↦ the file; where `sizes` are given, others are left out unread.

    What cannot be read is left out.
    """
    found = {}
    for image in images:
        with suppress(OSError):
            facts = image.stat()
            if sizes is None or facts.st_size in sizes:
                found[f"{facts.st_size}-{_hash(image.resolve(), facts.st_size, facts.st_mtime_ns)}"] = image
    return found


def find_copies(images: Sequence[Path], others: Iterable[Path]) -> list[Path]:
    """Return those images whose file is, byte for byte, among others. Only files of equal sizes are read."""
    sizes = {image.stat().st_size for image in images if image.is_file()}
    contents = find_contents(others, sizes)
    wanted = {int(content.partition("-")[0]) for content in contents}
    own = {image: next(iter(find_contents([image], wanted)), None) for image in images}
    return [image for image, content in own.items() if content in contents]


@functools.cache
def _hash(path: Path, size: int, changed: int) -> str:
    """Hash a file once per command, as long as it does not change."""
    return sha256(path)[:16]


def keep_distinct(frames: NDArray[np.uint8]) -> list[int]:
    """Return the numbers of frames ``[N, H, W, C] uint8`` without those that are equal to an earlier one."""
    first: dict[bytes, int] = {}
    for number, frame in enumerate(frames):
        first.setdefault(hashlib.blake2b(np.ascontiguousarray(frame).data, digest_size=16).digest(), number)
    return list(first.values())
