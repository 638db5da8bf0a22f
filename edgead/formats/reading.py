"""Read a file's bytes, and make sure that it is complete and did not change meanwhile."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from edgead.errors import DataError
from edgead.formats.limits import MAX_FILE_BYTES


def read_file(path: Path) -> bytes:
    """Read a file as a whole.

    Raises:
        DataError: it cannot be read, is too large, has a hole, or was changed in the meantime.
    """
    try:
        with open(path, "rb", buffering=0, opener=_open_at_once) as stream:
            before = os.fstat(stream.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise DataError("it is not a file")
            if before.st_size > MAX_FILE_BYTES:
                raise DataError(f"it is larger than the {MAX_FILE_BYTES >> 30} GiB that an image file may have")
            hole = _find_hole(stream.fileno(), before.st_size)
            data = stream.read()
            after = os.fstat(stream.fileno())
    except OSError as error:
        raise DataError(error.strerror or str(error)) from error
    except ValueError as error:  # its name holds a null character
        raise DataError(str(error)) from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(data) != after.st_size:
        raise DataError("it changed while it was read")
    if hole < len(data):
        raise DataError(f"it has a hole at byte {hole}: it was not written completely, or it is a sparse file")
    return data


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting: a pipe would wait for its writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _find_hole(file: int, size: int) -> int:
    """Return the position of the first part of a file that was never written; `size` if there is none or it is unknown.

    A copy that reserves the whole size first has its full length from the beginning.
    """
    if not hasattr(os, "SEEK_HOLE") or size == 0:
        return size
    try:
        hole = os.lseek(file, 0, os.SEEK_HOLE)
        os.lseek(file, 0, os.SEEK_SET)
    except OSError:  # the file system does not know
        return size
    return hole
