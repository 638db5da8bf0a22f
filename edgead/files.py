"""Write files and folders so that an incomplete one never looks complete."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import sys
import tempfile
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from edgead.errors import ConfigError

if sys.platform != "win32":
    import fcntl

LONGEST_NAME, LONGEST_PATH = 255, 3000
"""Bytes of a name, and of a path that a file names; Linux takes 4095 with the folder before it."""
_UNFINISHED = re.compile(r"\.(.+)\.[0-9a-f]{12}\.part", re.DOTALL)
"""Names of `_neighbour`."""
_thread_locks: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)


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


def reserve(stream: BinaryIO, size: int, name: str) -> None:
    """Give a file its bytes on the disk now, where the system can. Those it has stay.

    A file in memory needs this: a write to a page that finds no room on the disk ends the process with a signal.

    Args:
        stream: of the file.
        size: of it.
        name: for the error.

    Raises:
        OSError: there is no room.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(stream.fileno(), 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system that cannot
            raise OSError(error.errno, error.strerror, name) from error


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
            for file in (each for each in temporary.rglob("*") if each.is_file()):
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


def intended_name(name: str) -> str:
    """Return the name that a file or folder was to get which a killed process was writing; the same for any other."""
    found = _UNFINISHED.fullmatch(name)
    return found[1] if found else name


def remove_unfinished(folder: Path) -> None:
    """Delete the files and folders that a killed process was writing in a folder. No other process may write there."""
    for left in [path for path in folder.iterdir() if intended_name(path.name) != path.name]:
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def new_folder(path: Path) -> Path:
    """Create a new folder ``NAME``, ``NAME-2``, …; no two processes ever get the same one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        candidate = path if number == 1 else path.with_name(f"{path.name}-{number}")
        try:
            candidate.mkdir()
        except FileExistsError:
            continue
        return candidate
    raise AssertionError


@contextmanager
def file_lock(path: Path, on_busy: Callable[[], object]) -> Iterator[None]:
    """Hold a lock that one thread of one process has at a time. The system frees it when the process ends.

    On Windows, and on a file system without locks (some network drives), it only keeps out threads of this process.

    Args:
        path: of the lock's file, which stays.
        on_busy: called where another one has the lock. If it returns, the lock is waited for.

    Raises:
        OSError: the file cannot be opened.
    """
    thread_lock = _thread_locks[path.absolute()]
    if not thread_lock.acquire(blocking=False):
        on_busy()
        thread_lock.acquire()
    try:
        with path.open("ab") as stream:
            _lock(stream, on_busy)
            yield  # closing the file frees the lock
    finally:
        thread_lock.release()


def _lock(stream: BinaryIO, on_busy: Callable[[], object]) -> None:
    if sys.platform == "win32":
        return
    try:  # lockf, because child processes do not inherit its locks; flock's they do
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        on_busy()
        fcntl.lockf(stream, fcntl.LOCK_EX)
    except OSError:  # a file system without locks
        return


def refuse_existing(paths: Iterable[Path], force: bool) -> None:
    """Refuse to overwrite existing results.

    Args:
        paths: the paths to be written.
        force: the user allows replacing them.

    Raises:
        ConfigError: one of them exists; with its path.
    """
    found = None if force else next((path for path in paths if path.exists()), None)
    if found is not None:
        raise ConfigError(f"{found} exists already and was kept.\nChoose another folder, or replace it with --force.")


def names_apart(named: Sequence[tuple[str, Path]]) -> list[str]:
    """Return a name for each bundle: its own, or its path if another one of them has this name.

    Args:
        named: name and folder of each. The same folder may be there several times.
    """
    folders: defaultdict[str, set[Path]] = defaultdict(set)
    for name, path in named:
        folders[name].add(path.resolve())
    return [str(path).removesuffix(".edgead") if len(folders[name]) > 1 else name for name, path in named]


def refuse_unwritable(folder: Path) -> None:
    """Fail before a long computation, and not after it, if its results could not be written to a folder.

    Args:
        folder: it need not exist; nothing is left of the try.

    Raises:
        OSError: nothing can be written there.
    """
    place = next((each for each in (folder, *folder.absolute().parents) if os.path.lexists(each)), folder)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        error.filename = str(folder)
        raise


def _neighbour(path: Path, suffix: str) -> Path:
    ending = f".{uuid.uuid4().hex[:12]}.{suffix}"
    return path.with_name(f".{cut_name(path.name, 1 + len(ending))}{ending}")


def cut_name(name: str, added: int) -> str:
    """Return the beginning of a name that is still one with so many bytes added: the whole of it, if it has room."""
    room = LONGEST_NAME - added
    data = os.fsencode(name)
    return name if len(data) <= room else data[:room].decode(errors="ignore")


def is_path(text: str) -> bool:
    """Tell whether the system can take a text for a path: it holds no null character, and no name is too long."""
    try:
        parts = os.fsencode(text).split(os.fsencode(os.sep))
    except UnicodeEncodeError:
        return False
    return "\0" not in text and max(map(len, parts)) <= LONGEST_NAME and sum(map(len, parts)) <= LONGEST_PATH


def stays_below(path: str) -> bool:
    """Tell whether a path that a file names can be one, is relative and does not leave the folder by ``..``."""
    pure = PurePath(path)
    return is_path(path) and not pure.is_absolute() and ".." not in pure.parts


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
