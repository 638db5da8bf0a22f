"""Tells what happened to a delivered file: another picture with the same time and size, or only another time."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from pathlib import Path

from edgead.errors import DataError
from edgead.formats.reading import read_file

LATEST = 16
"""Files that are watched for this: a camera that overwrites uses one name, or a few in turn."""
COARSE, CLEAR_AFTER = 1_000_000_000, 3.0
"""A clock of whole seconds, in nanoseconds, and the seconds after which a change shows in it: some count every two."""


@dataclass
class _Delivered:
    """A file as it was delivered: checksum, time, what the system changes with every write, and when."""

    checksum: int
    modified: int
    facts: tuple[int, int]
    at: float


class LatestFiles:
    """The files that were delivered last.

    A file system may count time in seconds, and a copy may keep the time of its original. Then content decides. It is
    read again only if the system says that something about the file has changed, or if its time cannot tell.
    """

    def __init__(self) -> None:
        self._files: dict[str, _Delivered] = {}

    def note(self, path: str) -> None:
        """Remember a file that is delivered now."""
        self._files.pop(path, None)
        try:
            modified, facts = _facts(path)
            self._remember(path, _Delivered(_checksum(path), modified, facts, time.monotonic()))
        except (OSError, DataError):  # what is delivered is an error
            return

    def _remember(self, path: str, delivered: _Delivered) -> None:
        self._files.pop(path, None)
        self._files[path] = delivered
        if len(self._files) > LATEST:
            del self._files[next(iter(self._files))]

    def has_other_name(self, path: str) -> bool:
        """Return whether a file was delivered under another name, and remember it: it was renamed since, or linked."""
        try:
            modified, facts = _facts(path)
            others = (each for name, each in self._files.items() if name != path and each.facts[1] == facts[1])
            found = next((each for each in others if each.modified == modified), None)
            if found is None or found.checksum != _checksum(path):
                return False
        except (OSError, DataError):  # deleted or written at this moment
            return False
        self._remember(path, replace(found, facts=facts))
        return True

    def holds_same(self, path: str) -> bool:
        """Return whether only the time of a delivered file was set since.

        Whoever writes it again, even with the same content, leaves the time of that write. Then it is another picture:
        a frozen camera is noticed by it.
        """
        delivered = self._files.get(path)
        if delivered is None:
            return False
        try:
            modified, facts = _facts(path)
            is_set = modified != facts[0] and facts[1] == delivered.facts[1]
            same = is_set and _checksum(path) == delivered.checksum
        except (OSError, DataError):  # deleted or written at this moment
            return False
        delivered.facts = facts if same else delivered.facts
        return same

    def rewritten(self, unchanged: Callable[[str], bool], unsettled: Container[str]) -> dict[str, int]:
        """Return the files that hold other pictures than were delivered, with the checksums of these.

        Args:
            unchanged: tells whether a file was looked at, and has the time and size with which it was delivered.
            unsettled: files that looked rewritten at the last look.
        """
        found = {}
        for path, delivered in self._files.items():
            if not unchanged(path):
                continue
            try:
                modified, facts = _facts(path)
                blurred = modified % COARSE == 0 and time.monotonic() - delivered.at < CLEAR_AFTER
                if facts == delivered.facts and not blurred and path not in unsettled:
                    continue
                checksum = _checksum(path)
            except (OSError, DataError):  # deleted or written at this moment
                continue
            if checksum == delivered.checksum:
                delivered.facts = facts
            else:
                found[path] = checksum
        return found


def _facts(path: str) -> tuple[int, tuple[int, int]]:
    status = os.stat(path)
    return status.st_mtime_ns, (status.st_ctime_ns, status.st_ino)


def _checksum(path: str) -> int:
    return zlib.crc32(read_file(Path(path)))
