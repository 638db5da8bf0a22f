"""Seals of cached files that are code: engines that a library loads and runs. Only this user's own are read again.

A file is read if it and its folder belong to this user, no other may write them, and its HMAC-SHA256 holds. The key,
cache.key, lies in the configuration folder (or, where that cannot be written, in the state folder), readable by its
owner alone. It is made when it is first needed; whoever deletes it has everything built again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from edgead.errors import ConfigError
from edgead.files import atomic_file
from edgead.home import config_folder, state_folder

KEY, KEY_BYTES = "cache.key", 32
LARGEST = 4 << 30
"""Bytes of a sealed file."""
_POSIX = os.name == "posix"


class NotOursError(ValueError):
    """A file that must not be used, and why, as the end of a sentence."""


def mac(*parts: str | bytes) -> str:
    """Return the MAC of some texts and bytes as 64 digits. Their number and lengths count too.

    Raises:
        ConfigError: there is no folder for the key.
    """
    code = hmac.new(_key(), digestmod=hashlib.sha256)
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        code.update(len(content).to_bytes(8, "big") + content)
    return code.hexdigest()


def holds(found: object, *parts: str | bytes) -> bool:
    """Tell whether a MAC is that of some texts and bytes."""
    with contextlib.suppress(ConfigError):
        return isinstance(found, str) and found.isascii() and hmac.compare_digest(found, mac(*parts))
    return False


def read_own(path: Path) -> bytes:
    """Return the content of a file that only this user can have written.

    Raises:
        OSError: it cannot be read.
        NotOursError: others may change it or its folder, or it is a link.
    """
    _refuse_foreign(os.stat(path.parent), "its folder")
    if path.is_symlink():
        raise NotOursError("is a link")
    with path.open("rb") as stream:
        _refuse_foreign(os.fstat(stream.fileno()), "it")
        if os.fstat(stream.fileno()).st_size > LARGEST:
            raise NotOursError(f"is larger than {LARGEST >> 30} GB")
        return stream.read()


def _refuse_foreign(found: os.stat_result, what: str) -> None:
    if not _POSIX:
        return
    if found.st_uid != os.geteuid():
        raise NotOursError(f"is not this user's: {what} belongs to another one")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NotOursError(f"can be changed by others: {what} has the mode {stat.S_IMODE(found.st_mode):o}")


def private_folder(path: Path) -> None:
    """Make a folder that only this user can write to; close one of this user's that others can.

    Raises:
        OSError: it cannot be made.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.stat()
    if _POSIX and found.st_uid == os.geteuid() and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        path.chmod(0o700)


def write_sealed(path: Path, content: bytes) -> None:
    """Write a file that `read_sealed` returns, atomically.

    Raises:
        OSError: it cannot be written.
        ConfigError: there is no folder for the key.
    """
    seal = mac(path.name, content)
    with atomic_file(path) as stream:
        if _POSIX:
            os.fchmod(stream.fileno(), 0o600)
        stream.write(f"{seal}\n".encode() + content)


def read_sealed(path: Path) -> bytes:
    """Return what `write_sealed` was given; nothing if the file is missing, damaged, or not this user's own."""
    try:
        content = read_own(path)
    except (OSError, NotOursError):
        return b""
    seal, _, content = content.partition(b"\n")
    return content if holds(seal.decode("ascii", "replace"), path.name, content) else b""


def _key() -> bytes:
    tried: list[str] = []
    for folder in (config_folder(), state_folder()):
        if folder is None:
            continue
        try:
            return _read_or_make(folder)
        except OSError as error:
            tried.append(f"{folder}: {error.strerror or error}")
    raise ConfigError(
        f"The key of the cache cannot be kept ({'; '.join(tried) or 'there is no home'}).\n"
        "Name a folder with the environment variable XDG_CONFIG_HOME."
    )


def _read_or_make(folder: Path) -> bytes:
    path = folder / KEY
    try:
        return _read_key(path)
    except FileNotFoundError:
        private_folder(folder)
    except NotOursError:
        path.unlink()  # what it has sealed is built again
    new = folder / f".{KEY}.{secrets.token_hex(6)}"
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(secrets.token_bytes(KEY_BYTES))
        with contextlib.suppress(FileExistsError):  # another process was faster, and its key is the one
            os.link(new, path)
        return _read_key(path)
    except NotOursError as error:
        raise OSError(errno.EACCES, f"{KEY} {error}") from error
    finally:
        new.unlink(missing_ok=True)


def _read_key(path: Path) -> bytes:
    if path.is_symlink():
        raise NotOursError("is a link")
    with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as stream:
        found = os.fstat(stream.fileno())
        _refuse_foreign(found, "it")
        if _POSIX and found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise NotOursError("can be read by others")
        content = stream.read(KEY_BYTES + 1)
    if len(content) != KEY_BYTES:
        raise NotOursError("is damaged")
    return content
