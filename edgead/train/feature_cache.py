"""What a frozen network makes of each training image: computed once, kept on disk while a run lasts.

A stopped run takes up the rows that are there. Each row is computed from its image alone, so one that is computed
again is the same to the last bit.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from edgead.console import Track
from edgead.files import reserve, write_json
from edgead.schema import SchemaError, load_json

FOLDER = "features"
"""In the folder of a run, followed by the number of the process."""
LARGEST = 8 << 30
"""Bytes of a cache; what would be larger is computed in every step."""
FLUSH_SECONDS = 10.0
"""Time between two notes of how many rows are done: what a kill can cost."""


class FeatureCache:
    """Rows of arrays, one for each training image, in memory-mapped files.

    Args:
        folder: that is made for them; a temporary one where None.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._arrays: dict[str, np.memmap[Any, Any]] = {}

    def fill(self, count: int, key: str, compute: Callable[[int], Mapping[str, NDArray[Any]]], track: Track) -> None:
        """Compute the rows that are not there yet.

        Args:
            count: of the images.
            key: from `fingerprint`, of all that the rows depend on; rows of another key are computed again.
            compute: number of an image ↦ its row.
            track: shows progress.
        """
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="edgead-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        note, noted = self._folder / "rows.json", time.monotonic()
        done = self._open(note, key, count)
        for number in track(range(done, count)):
            row = compute(number)
            if not self._arrays:
                self._arrays = {name: self._create(name, count, value) for name, value in row.items()}
            for name, value in row.items():
                self._arrays[name][number] = value
            if number == count - 1 or time.monotonic() - noted > FLUSH_SECONDS:
                for array in self._arrays.values():
                    array.flush()
                write_json(note, {"key": key, "rows": number + 1, "names": list(row)})
                noted = time.monotonic()

    @property
    def is_filled(self) -> bool:
        """Whether `fill` has been called, or has taken up what an earlier process computed."""
        return bool(self._arrays)

    def row(self, number: int) -> dict[str, NDArray[Any]]:
        """Return what was computed for an image."""
        return {name: array[number] for name, array in self._arrays.items()}

    def _open(self, note: Path, key: str, count: int) -> int:
        """Take up the rows that another process has computed; return their number."""
        try:
            found = load_json(note)
            if found["key"] != key:
                return 0
            paths = {name: note.with_name(f"{name}.npy") for name in found["names"]}
            whole = [np.load(path, mmap_mode="r") for path in paths.values()]  # "r+" would fill up a file that was cut
            done = int(found["rows"])
        except (OSError, SchemaError, KeyError, TypeError, ValueError):
            return 0
        if any(len(array) != count for array in whole):
            return 0
        self._arrays = {name: _open_whole(path) for name, path in paths.items()}
        return done

    def _create(self, name: str, count: int, value: NDArray[Any]) -> np.memmap[Any, Any]:
        assert self._folder is not None
        path, shape = self._folder / f"{name}.npy", (count, *value.shape)
        np.lib.format.open_memmap(path, mode="w+", dtype=value.dtype, shape=shape)
        try:
            return _open_whole(path)
        except OSError:
            path.unlink()  # what it has got of a full disk
            raise


def _open_whole(path: Path) -> np.memmap[Any, Any]:
    """Open an array for writing when all of it has its place on the disk.

    Raises:
        OSError: there is no room.
    """
    with path.open("r+b") as stream:
        reserve(stream, path.stat().st_size, str(path))
    return np.load(path, mmap_mode="r+")  # type: ignore[no-any-return]


def pays(count: int, row_bytes: int, draws: int) -> bool:
    """Tell whether rows are drawn more often than they are computed, and are not too large. It must not depend on the
    machine: a resumed run has to decide alike."""
    return draws > count and count * row_bytes <= LARGEST


def fingerprint(frames: NDArray[np.uint8], network: nn.Module, settings: Mapping[str, Any]) -> str:
    """Return the SHA-256 over images, a network's weights, and settings that matter."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    digest.update(str(frames.shape).encode())
    digest.update(np.ascontiguousarray(frames).data)
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def float32_bytes(*shapes: tuple[int, ...]) -> int:
    """Return the bytes of arrays of these shapes."""
    return 4 * sum(math.prod(shape) for shape in shapes)


def remove_caches(folder: Path) -> None:
    """Remove the caches of all processes from the folder of a run."""
    for path in folder.glob(f"{FOLDER}-*"):
        shutil.rmtree(path, ignore_errors=True)
