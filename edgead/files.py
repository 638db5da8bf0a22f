"""Writing files and folders so that a half-written one never looks whole."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from edgead.errors import ConfigError


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that appears under `path` only when the block ends without an error.

    The bytes go to a neighbour in the same folder, reach the disk (fsync), and take the name in one step. After
    an error, a full disk or a kill, `path` is what it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _neighbour(path, "part")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk names no file
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield a new hidden folder beside `path`, for work on what will become `path`. It is removed in the end."""
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _neighbour(path, "part")
    try:
        temporary.mkdir()
        yield temporary
    except OSError as error:
        if error.filename is None:  # a full disk names no file
            error.filename = f"{path}, or a temporary file in {tempfile.gettempdir()}"
        elif str(error.filename) == str(temporary):
            error.filename = str(path)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new empty folder that takes the name `path` only when the block ends without an error.

    A folder that stood under `path` is replaced as a whole; where `path` is a link, what it points to. One that came
    there meanwhile is kept, and an error is raised.
    """
    path = path.resolve()
    known = path.exists()
    displaced = _neighbour(path, "old")
    with scratch_folder(path) as temporary:
        try:
            yield temporary
            for file in temporary.iterdir():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
            if known and path.exists():
                os.replace(path, displaced)
            os.replace(temporary, path)
        except BaseException:
            if displaced.exists() and not path.exists():
                os.replace(displaced, path)
            raise
        finally:
            shutil.rmtree(displaced, ignore_errors=True)


def new_folder(path: Path) -> Path:
    """Make a folder that did not exist, ``NAME``, ``NAME-2``, …, so that no two processes ever get the same one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        candidate = path if number == 1 else path.with_name(f"{path.name}-{number}")
        try:
            candidate.mkdir()
        except FileExistsError:
            continue
        return candidate
    raise AssertionError


def refuse_existing(paths: Iterable[Path], force: bool) -> None:
    """Refuse to write over results that are there.

    Args:
        paths: that will be written.
        force: the user says that they may be replaced.

    Raises:
        ConfigError: with the first one that is there.
    """
    found = None if force else next((path for path in paths if path.exists()), None)
    if found is not None:
        raise ConfigError(f"{found} is there already, and is kept.\nChoose another folder, or replace it with --force.")


def _neighbour(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.{suffix}")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity are refused: they are not JSON."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    with atomic_file(path) as stream:
        stream.write(text.encode())


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically. Bytes of a file's name that are not UTF-8 are written as escapes."""
    with atomic_file(path) as stream:
        stream.write(text.encode(errors="backslashreplace"))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
