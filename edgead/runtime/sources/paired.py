"""Notices that a depth image is not of the colour image beside it, as when a camera writes one name again and again."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from edgead.depth import find_depth_file
from edgead.errors import DataError
from edgead.formats.reading import read_file

LATEST = 16
"""Depth images that are remembered, see `edgead.runtime.sources.rewritten`."""
CHANGED = "its depth image was replaced or changed before it could be inspected"
NEWER = "its depth image was written after it, so that it may be of the next part"
SAME = "its depth image was not written again: it is of the part before"
ADVICE = "; give each image a name of its own, and write its depth first"

Depth = tuple[int, ...]
"""Time of the last change (`st_ctime`, which no copy keeps), what tells one file from another, and a checksum."""


class PairedDepth:
    """The depth images that were inspected last, by the path of their colour image.

    A name that is used for the first time has one depth image at most, whenever it came. Once a name is used again, the
    depth image beside a colour image may be of the part before or of the next one. Then the order tells.
    """

    def __init__(self) -> None:
        self._read: dict[str, Depth] = {}

    def look(self, image: str) -> Depth | None:
        """Return what the depth image of a colour image is now; None where it cannot be read: reading it says why."""
        try:
            path = find_depth_file(Path(image))
            status = os.stat(path)
            checksum = zlib.crc32(read_file(path))
        except (OSError, DataError):
            return None
        return status.st_ctime_ns, status.st_mtime_ns, status.st_size, status.st_ino, checksum

    def why_of_another(self, image: str, depth: Depth | None, again: bool) -> str:
        """Return why the depth that was just read is not that of a colour image; empty if it is.

        Args:
            image: path of the colour image.
            depth: what `look` returned before both were read.
            again: there was an image of this name before.
        """
        if depth is None:
            return ""
        if self.look(image) != depth:
            why = CHANGED
        elif depth == self._read.get(image):
            why = SAME
        else:
            why = NEWER if again and depth[0] > _changed_at(image) else ""
        if why:
            return why + ADVICE
        self._read.pop(image, None)
        self._read[image] = depth
        if len(self._read) > LATEST:
            del self._read[next(iter(self._read))]
        return ""


def _changed_at(path: str) -> int:
    try:
        return os.stat(path).st_ctime_ns
    except OSError:  # deleted since it was read
        return 0
