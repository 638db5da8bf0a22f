"""NumPy's archives of arrays, read with limits: the sizes in a file are checked before memory is allocated."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 1 << 30
"""Most bytes of all arrays in a file."""
MOST = 32
"""Most arrays in a file."""
Headers = dict[str, "tuple[tuple[int, ...], np.dtype[Any]]"]  # as text: np.dtype takes no [] before NumPy 1.22


def read_headers(data: bytes) -> Headers:
    """Return shape and type of every array, without reading any.

    Raises:
        ValueError: not such an archive, Python objects in it, or more than `LARGEST` bytes.
    """
    found: Headers = {}
    with _opened(data) as archive:
        members = archive.infolist()
        if len(members) > MOST or not all(member.filename.endswith(".npy") for member in members):
            raise ValueError(f"it holds files that are not arrays, or more than {MOST}")
        for info in members:
            with archive.open(info) as stream:
                shape, kind = _read_header(stream)
                length = math.prod(shape) * kind.itemsize
                if info.file_size != stream.tell() + length:
                    raise ValueError(f"{info.filename} does not hold the number of bytes in its header")
            if info.filename in found:
                raise ValueError(f"{info.filename} occurs twice")
            found[info.filename] = shape, kind
    if sum(math.prod(shape) * kind.itemsize for shape, kind in found.values()) > LARGEST:
        raise ValueError(f"its arrays have more than {LARGEST >> 20} MB")
    return {name.removesuffix(".npy"): header for name, header in found.items()}


def read_arrays(data: bytes) -> Mapping[str, NDArray[Any]]:
    """Read all arrays; see `read_headers`."""
    names = read_headers(data)
    with _opened(data) as archive:
        arrays = {}
        for name in names:
            with archive.open(f"{name}.npy") as stream:
                arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
        return arrays


@contextmanager
def _opened(data: bytes) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise ValueError(f"it is not an archive of arrays: {error}") from error


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(stream)
    if kind.hasobject:
        raise ValueError("Python objects (pickle) are never loaded")
    return shape, kind
