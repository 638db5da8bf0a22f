"""File system notifications of changes in a folder through watchdog, so that it is not listed all the time."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from edgead.errors import is_installed

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent

LOCAL = frozenset({"btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "fuseblk", "jfs", "ntfs3", "overlay", "ramfs"}) | {
    "tmpfs",
    "vfat",
    "xfs",
    "zfs",
}
"""File systems with notifications for every change. On nfs, cifs, … changes by other machines go unnoticed."""
MOUNTS = Path("/proc/self/mountinfo")
MOST_WAITING = 1000
"""Maximum number of waiting changes; with more, or if the system's queue overflows, the whole folder is listed."""


class Notifier:
    """Collects the paths of files that are created or written in a folder.

    Args:
        folder: the folder.
        recursive: with its subfolders (links are not followed).

    Raises:
        OSError: the system refuses, for instance because its limit of watches is reached.
    """

    def __init__(self, folder: Path, recursive: bool) -> None:
        from watchdog import events
        from watchdog.observers import Observer

        # It meets a new folder in a new folder twice, and warns of it.
        warnings.filterwarnings("ignore", "Callback with id .* already exists", RuntimeWarning)
        self._lock = threading.Lock()
        # A link is watched where it leads to: watchdog would watch the link itself, in which nothing ever changes.
        self._shown, self._real = str(folder), os.path.realpath(folder)
        self._changed: set[str] = set()
        self._all = False
        handler = events.FileSystemEventHandler()
        handler.dispatch = self._take_in  # type: ignore[method-assign]
        # Without events of opening and reading, which edgead itself causes.
        wanted = [events.FileCreatedEvent, events.FileMovedEvent, events.FileModifiedEvent, events.FileClosedEvent]
        folders = [events.DirCreatedEvent, events.DirMovedEvent, events.DirDeletedEvent]
        self._observer = Observer()
        self._observer.schedule(handler, self._real, recursive=recursive, event_filter=[*wanted, *folders])
        self._observer.daemon = True
        self._observer.start()

    def _take_in(self, event: FileSystemEvent) -> None:
        with self._lock:
            self._all = self._all or event.is_directory or len(self._changed) >= MOST_WAITING
            if not self._all:
                self._changed |= {self._show(str(path)) for path in (event.src_path, event.dest_path) if path}

    def _show(self, path: str) -> str:
        """Return a path as it is below the folder that was given."""
        return os.path.join(self._shown, os.path.relpath(path, self._real))

    @property
    def alive(self) -> bool:
        """Whether the folder still exists. A new folder in its place needs a new notifier."""
        return all(emitter.is_alive() for emitter in self._observer.emitters)

    def take(self) -> set[str] | None:
        """Return the files that changed since the last call; None if the whole folder must be listed."""
        with self._lock:
            changed = None if self._all else self._changed
            self._changed, self._all = set(), False
            return changed

    def close(self) -> None:
        """Stop. May be called more than once."""
        with contextlib.suppress(RuntimeError):
            self._observer.stop()
            self._observer.join(timeout=1.0)


def open_notifier(folder: Path, recursive: bool) -> tuple[Notifier | None, str]:
    """Return a notifier, or None and the reason."""
    if not is_installed("watchdog"):
        return None, "the package watchdog is not installed (pip install 'edgead[watch]')"
    kind = file_system(folder)
    if kind not in LOCAL:
        return None, f"its file system ({kind or 'unknown'}) does not report changes"
    if recursive and (link := _find_link(folder)):
        return None, f"{link} is a link, and changes behind it are not reported"
    try:
        return Notifier(folder, recursive), ""
    except OSError as error:
        return None, f"the system does not report changes: {error.strerror or error}"


def _find_link(folder: Path) -> str:
    """Return a folder inside that is a link; empty if there is none."""
    for inside, folders, _ in os.walk(folder):
        for name in folders:
            if os.path.islink(path := os.path.join(inside, name)):
                return path
    return ""


def file_system(path: Path) -> str:
    """Return the type of the file system that a folder is on, for instance ``"ext4"``; empty if unknown."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        wanted = path.resolve()
    except OSError:
        return ""
    found, depth = "", -1
    for line in lines:
        mount, separator, rest = line.partition(" - ")
        fields = mount.split()
        if not separator or len(fields) < 5:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4]))
        if wanted.is_relative_to(point) and len(point.parts) >= depth:  # the later of two mounts on one point counts
            found, depth = rest.split()[0], len(point.parts)
    return found
