"""Watches a folder for new images."""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from edgead.errors import ConfigError, SourceError
from edgead.folders import is_beside_colours, is_drawn, is_litter, is_searched, list_folder, list_subfolders
from edgead.images import COLOUR, PixelFormat, is_image
from edgead.runtime.clock import elapsed
from edgead.runtime.sources.files import cannot_read, capture_file
from edgead.runtime.sources.notify import LOCAL, file_system, open_notifier
from edgead.runtime.sources.paired import PairedDepth
from edgead.runtime.sources.rewritten import COARSE, LatestFiles
from edgead.runtime.sources.source import Captured, FrameSource, Source
from edgead.runtime.sources.uri import split_options

POLL_SECONDS = 0.2
CHECK_SECONDS, CHECK_SHARE = 10.0, 0.005
"""With notifications: seconds between two listings of the whole folder, which find missed changes; longer if a listing
would take more than that share of the time."""
LOOK_SHARE = 0.05
"""Without notifications: share of the time that listings may take."""
REMEMBERED = 50_000
"""Deleted images that are remembered, at least twice as many as ever were there at once: about 15 MB."""

FILE_TICK = 0.01
"""Seconds by which the time of a file may be behind the clock: a tick of the kernel."""

REPLACED = "it was replaced or changed before it could be inspected; give each image a name of its own"

_Stamp = tuple[int, ...]
"""Time of the last change in nanoseconds, and size in bytes; of a rewritten file also the checksum."""
_Coming = tuple[float, bool]
"""When a file came, `time.monotonic` seconds, and whether it may also have come later."""


@dataclass(frozen=True)
class WatchOptions:
    """Options of ``watch:``, see `WatchedFolder`."""

    existing: bool = False
    poll: float = POLL_SECONDS
    subfolders: bool = False


def open_watched(uri: str, pixels: PixelFormat = COLOUR) -> Source:
    """``watch:DIR?existing=1&poll=0.2&subfolders=1``.

    Raises:
        SourceError: no such folder, or one that cannot be read.
    """
    name, options = split_options(uri, WatchOptions)
    if uri.startswith("watch:///"):
        name = "/" + name.lstrip("/")
    if not name:
        raise SourceError("watch: needs a folder, as in watch:/mnt/camera.")
    folder = Path(name)
    if not folder.is_dir():
        raise SourceError(f"{uri}: the folder {folder} does not exist.")
    return WatchedFolder(folder, options.existing, options.poll, pixels, options.subfolders)


class WatchedFolder(FrameSource):
    """Delivers every image that appears or changes in a folder, each once, until stopped.

    An image is complete when its size and time are unchanged between two checks. Delivered images are remembered by
    path, time and size, so neither a failed listing nor a temporarily missing folder delivers them again; the latest
    ones also by their content, see `edgead.runtime.sources.rewritten`, so that a new time or name alone does not. A
    picture counts as made when its file came; one that is there at the beginning, when it is read.

    Args:
        folder: the folder.
        existing: also deliver the images that are there at the beginning.
        poll: seconds between two checks for changes, above 0.
        pixels: of the images. A depth image must be written before its colour image. One that may be of another part is
            an error in place of the frame, see `edgead.runtime.sources.paired`.
        subfolders: watch them too.

    Raises:
        ConfigError: `poll` makes no sense.
        SourceError: the folder cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        existing: bool = False,
        poll: float = POLL_SECONDS,
        pixels: PixelFormat = COLOUR,
        subfolders: bool = False,
    ) -> None:
        super().__init__(f"watch:{folder}")
        if not 0 < poll < math.inf:
            raise ConfigError(f"{self.name}: poll must be a number of seconds above 0, not {poll}.")
        self.folder, self.poll, self.pixels, self.subfolders = folder, poll, pixels, subfolders
        self._given: dict[str, _Stamp] = {}
        self._unsettled: dict[str, _Stamp] = {}
        self._inodes: dict[str, int] = {}  # of the unsettled ones
        self._came: dict[str, _Coming] = {}  # when: of the unsettled ones that were not there at the beginning
        self._looked_at, self._offset = time.monotonic(), _clock_offset()
        self._is_away = False
        self._latest, self._depth = LatestFiles(), PairedDepth()
        self._again = set[str]()  # of the settled ones, those whose name was there before
        self._told: dict[Path, str] = {}
        self._most_at_once = 0
        self._notifier, self._polled_because = open_notifier(folder, subfolders)
        self._has_our_clock = file_system(folder) in LOCAL
        self._identity = self._identify()
        self._next_check, self._began = 0.0, elapsed()
        stamps, unreadable = self._look_at_everything()
        if folder in unreadable:
            raise SourceError(f"{self.name}: cannot read {folder}: {unreadable[folder]}.")
        # Folders that are unreadable at the beginning: their images count as existing ones later.
        self._hidden = set[Path]() if existing else set(unreadable)
        self._empty_on = None if existing or stamps else self._identity
        if existing:
            self._unsettled = stamps  # delivered at the next check, without another listing
        else:
            self._given = stamps
        self.remark = self._describe()

    def _describe(self) -> str:
        remarks = [list_folder(self.folder, self.subfolders).describe()]
        if not self.subfolders and (inside := list_subfolders(self.folder)):
            remarks.append(f"{len(inside)} subfolders are not watched (subfolders=1 does)")
        if self._polled_because:
            remarks.append(f"polled, because {self._polled_because}")
        return "; ".join(filter(None, remarks))

    def read(self) -> Iterator[Captured]:
        frame_id = 0
        while not self.stopped.wait(self.poll):
            for captured in self._captured(frame_id):
                yield captured
                frame_id += not captured.about_source
                if self.stopped.is_set():
                    return

    def sees(self, folder: Path) -> bool:
        """Return whether images in a folder are delivered."""
        if self.subfolders:
            return is_searched(folder, self.folder)
        return folder.resolve() == self.folder.resolve()

    def close(self) -> None:
        if self._notifier:
            self._notifier.close()

    def _captured(self, frame_id: int) -> Iterator[Captured]:
        began, was_away = time.monotonic(), self._is_away
        changed = None if self._was_exchanged() or time.monotonic() >= self._next_check else self._take_changes()
        if changed is None:
            stamps, unreadable = self._look_at_everything()
            self._is_away = self.folder in unreadable
            news = {path: why for path, why in unreadable.items() if self._told.get(path) != why}
            self._told = unreadable
            self._take_as_existing(stamps, unreadable)
            self._forget_the_oldest(stamps)
            for folder, why in sorted(news.items()):
                complaint = self._complain(folder, why, frame_id)
                yield complaint
                frame_id += not complaint.about_source
        else:
            stamps = {path: stamp for path in changed if (stamp := _stamp_or_none(path))}
        settled, lost = self._settled(stamps)
        came, self._came = self._came, self._when_they_came(lost, was_away)
        self._looked_at = self._looked_at if self._is_away else began
        for path in lost:
            yield _made_at(came.get(path), cannot_read(Path(path), REPLACED, self.name, frame_id))
            frame_id += 1
        for path in settled:
            if self._latest.has_other_name(path):
                continue
            if _stamp_or_none(path) not in (stamps[path], None):  # while it waited for its turn: it comes again
                captured = cannot_read(Path(path), REPLACED, self.name, frame_id)
            else:
                self._latest.note(path)
                captured = self._capture(path, frame_id)
            yield _made_at(came.get(path), captured)
            frame_id += 1

    def _when_they_came(self, lost: list[str], was_away: bool) -> dict[str, _Coming]:
        """Return when the unsettled images came: between the last two looks at the folder.

        There the time of the file's last change says when, if it is of this machine's clock; no copy keeps that time.
        If the clock was set between the looks, it is of the clock before or after. On a network drive, or with a clock
        of whole seconds, it is now; or, if the folder was away, at any time since the last look.

        Args:
            lost: those that another one has replaced meanwhile.
            was_away: the folder could not be read until now.
        """
        offsets, now = (_clock_offset(), self._offset), time.monotonic()
        self._offset = offsets[0]
        came = {path: coming for path, coming in self._came.items() if path in self._unsettled and path not in lost}
        for path in self._unsettled.keys() - came.keys():
            changed = _change_or_none(path) if self._has_our_clock else None
            unsure = was_away and not changed
            found = self._looked_at if unsure else now
            moments = [changed + FILE_TICK - offset for offset in offsets] if changed else [found]
            possible = [each for each in moments if self._looked_at <= each <= now + FILE_TICK] or moments
            came[path] = min(max(possible[0], self._looked_at), now), unsure
        return came

    def _capture(self, path: str, frame_id: int) -> Captured:
        if self.pixels.depth_range is None:
            return capture_file(Path(path), self.name, frame_id, self.pixels)
        depth = self._depth.look(path)
        captured = capture_file(Path(path), self.name, frame_id, self.pixels)
        why = self._depth.why_of_another(path, depth, path in self._again)
        return cannot_read(Path(path), why, self.name, frame_id) if why and not captured.error else captured

    def _complain(self, path: Path, why: str, frame_id: int) -> Captured:
        if path != self.folder:
            return cannot_read(path, why, self.name, frame_id)
        error = f"the watched folder {path} cannot be read: {why}; watching continues as soon as it is back"
        return Captured(None, error, self.name, None, time.monotonic(), cause="lost")

    def _settled(self, stamps: dict[str, _Stamp]) -> tuple[list[str], list[str]]:
        """Return the new images that have not changed since the last check, oldest first, and replaced ones."""
        new = {path: stamp for path, stamp in stamps.items() if self._given.get(path) != stamp}
        rewritten = self._latest.rewritten(lambda path: path in stamps and path not in new, self._unsettled)
        new |= {path: (*stamps[path], checksum) for path, checksum in rewritten.items()}
        settled = [path for path, stamp in new.items() if self._unsettled.get(path) == stamp]
        lost = self._replaced(new)
        self._unsettled = {path: stamp for path, stamp in new.items() if self._unsettled.get(path) != stamp}
        self._again = self._given.keys() & settled
        self._given |= {path: stamps[path] for path in settled}
        settled = [path for path in settled if path in rewritten or not self._latest.holds_same(path)]
        return sorted(settled, key=lambda path: new[path]), lost

    def _replaced(self, new: dict[str, _Stamp]) -> list[str]:
        """Return the images that another file has replaced since the last check, before they were inspected.

        A file that is still being written is the same file; so is any of a network drive, where the inode may change.
        """
        inodes = {path: inode for path in new if (inode := _inode_or_none(path))} if self._notifier else {}
        lost = [path for path, inode in inodes.items() if self._inodes.get(path, inode) != inode]
        self._inodes = {path: inode for path, inode in inodes.items() if self._unsettled.get(path) != new[path]}
        return lost

    def _take_changes(self) -> set[str] | None:
        """Return the changed images according to notifications; None if the whole folder must be listed."""
        changed = self._notifier.take() if self._notifier else set()
        return None if changed is None else self._unsettled.keys() | set(filter(self._is_wanted, changed))

    def _is_wanted(self, path: str) -> bool:
        inside = Path(path).relative_to(self.folder)
        if is_drawn(inside.name) or not is_image(inside):
            return False
        folders = [self.folder / each for each in inside.parents if each.name]
        return (not folders or self.subfolders) and not (
            any(map(is_litter, inside.parts)) or any(map(is_beside_colours, folders))
        )

    def _look_at_everything(self) -> tuple[dict[str, _Stamp], dict[Path, str]]:
        """Return the stamps of all images, and the folders that cannot be read, with the reason."""
        began = time.monotonic()
        listing = list_folder(self.folder, self.subfolders)
        stamps = {}
        for path in listing.images:
            try:
                stamps[str(path)] = _stamp(path)
            except FileNotFoundError:  # deleted since it was listed
                continue
            except OSError as error:
                listing.unreadable[path.parent] = error.strerror or str(error)
        now = time.monotonic()
        took = now - began
        pause = max(CHECK_SECONDS, took / CHECK_SHARE) if self._notifier else took / LOOK_SHARE
        self._next_check = now + (pause if not listing.unreadable else min(pause, 1.0))
        self._most_at_once = max(self._most_at_once, len(stamps))
        return stamps, listing.unreadable

    def _identify(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self.folder)
        except OSError:
            return None
        return status.st_dev, status.st_ino if self._notifier else 0  # some network drives change the inode

    def _was_exchanged(self) -> bool:
        """Return whether the folder was replaced (a mounted share, a new folder) or deleted; then watch the new one."""
        identity = self._identify()
        if identity == self._identity and (not self._notifier or self._notifier.alive):
            return False
        self.close()
        self._notifier = open_notifier(self.folder, self.subfolders)[0] if identity else None
        self._has_our_clock = file_system(self.folder) in LOCAL
        self._identity = self._identify()
        return True

    def _take_as_existing(self, stamps: dict[str, _Stamp], unreadable: dict[Path, str]) -> None:
        """Mark images as delivered that, by their time, existed at the beginning but could not be listed then."""
        began = (time.time() - (elapsed() - self._began)) * 1e9  # the clock may have been set since
        seen = self._hidden - unreadable.keys()
        if self._empty_on and self._identity and self._identity[0] != self._empty_on[0]:
            seen.add(self.folder)  # watched before its share was mounted
        for folder in seen:
            self._given |= {
                path: stamp for path, stamp in stamps.items() if stamp[0] < began and Path(path).is_relative_to(folder)
            }
        self._hidden -= seen
        if self._given or seen:
            self._empty_on = None

    def _forget_the_oldest(self, stamps: dict[str, _Stamp]) -> None:
        """Bound the memory: of the deleted images, forget the oldest."""
        excess = len(self._given) - max(REMEMBERED, 2 * self._most_at_once)
        if excess > 0:
            gone = [path for path in self._given if path not in stamps]
            for path in gone[:excess]:
                del self._given[path]


def _stamp(path: str | Path) -> _Stamp:
    try:
        status = os.stat(path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP):
            raise
        status = os.lstat(path)  # a broken link is delivered, and reading it explains the error
    return status.st_mtime_ns, status.st_size


def _made_at(coming: _Coming | None, captured: Captured) -> Captured:
    """Return what was captured with when its picture was made, if that is known."""
    return captured if coming is None else replace(captured, t_made=coming[0], unsure=coming[1])


def _clock_offset() -> float:
    """Return by how many seconds the wall clock is ahead of `time.monotonic`; it changes when the clock is set."""
    return time.time() - time.monotonic()


def _change_or_none(path: str) -> float | None:
    """Return the time of a file's last change, of its content, its name or its rights, in seconds.

    None where it is gone, or on a file system that counts seconds.
    """
    try:
        changed = os.stat(path).st_ctime_ns
    except OSError:
        return None
    return changed / 1e9 if changed % COARSE else None


def _inode_or_none(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def _stamp_or_none(path: str) -> _Stamp | None:
    try:
        return _stamp(path)
    except OSError:  # deleted again, or found by the next listing
        return None
