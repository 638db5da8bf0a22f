"""NumPy's archives of arrays, read with limits: the sizes in a file are checked before memory is allocated."""

from __future__ import annotations

import io
import itertools
import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from mmap import mmap
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 1 << 30
"""Most bytes of all arrays in a file."""
MOST = 32
"""Most arrays in a file."""
MOST_MENTIONED = 1000
"""Members before the archive is opened; beyond `MOST`, because the mark of one may occur in the arrays too."""
LONGEST_HEADER = 10_000
"""Bytes of an array's header."""
_HEADER = re.compile(
    rb"\{'descr': '(?P<kind>[<>|=]?[A-Za-z]\d{0,9})', 'fortran_order': (?:True|False), "
    rb"'shape': \((?P<shape>(?:\d{1,19}(?:, \d{1,19})*,?)?)\), \} *\n"
)
"""What NumPy writes. Its own reader takes any Python literal, and old versions of it of any length."""
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
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # LZMA takes what memory it claims
                raise ValueError(f"{info.filename} is compressed in a way that NumPy does not write")
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
    if has_many_members(data, MOST_MENTIONED):
        raise ValueError(f"it holds more than {MOST} arrays")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise ValueError(f"it is not an archive of arrays: {error}") from error


def has_many_members(data: bytes | mmap, most: int) -> bool:
    """Tell whether a ZIP archive may have more than so many members. Its reader keeps an object for each, at once."""
    return next(itertools.islice(re.finditer(b"PK\x01\x02", data), most, None), None) is not None


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    length = int.from_bytes(stream.read(2 if version == (1, 0) else 4), "little")
    found = _HEADER.fullmatch(stream.read(length)) if length <= LONGEST_HEADER else None
    if found is None:
        raise ValueError("it holds an array without a header of NumPy's")
    try:
        kind = np.dtype(found["kind"].decode())
    except TypeError as error:
        raise ValueError(str(error)) from error
    shape = tuple(int(side) for side in re.findall(rb"\d+", found["shape"]))
    if kind.hasobject:
        raise ValueError("Python objects (pickle) are never loaded")
    return shape, kind
