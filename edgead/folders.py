"""The content of a folder: images, unreadable entries, skipped entries. An error never looks like an empty folder.

Hidden files and folders, and files that file systems, camera storage and notebooks leave behind (`LITTER`), are not
data. Nor are the pictures that edgead itself draws of images.
"""

from __future__ import annotations

import fnmatch
import functools
import glob
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgead.depth import FOLDER
from edgead.errors import DataError
from edgead.images import is_image

LITTER = frozenset(
    {
        "__macosx",
        "__pycache__",
        "@eadir",
        "@recycle",
        "@recently-snapshot",
        "@__thumb",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "lost+found",
        "system volume information",
    }
)
"""Folders of copies, thumbnails and deleted files, in lower case; those that begin with a dot need no entry."""
OVERLAY, RECONSTRUCTION = ".overlay.png", ".reconstruction.png"
"""Endings of pictures that edgead draws of images (`predict --save`, a sink `rejects:`): nothing to decide on."""
DRAWN = "picture that edgead has drawn"
_DEPTH_OF_REJECT = re.compile(r"\d{8}T\d{6,}-.*\.depth\.png")
COLOURS = "rgb"
"""Folder of the colour images of a data set with depth."""
NOT_REGULAR = "not a regular file"
BROKEN_LINK = "the link is broken"


def is_litter(name: str) -> bool:
    """Tell by its name whether a file or folder is hidden or left behind by a system."""
    return name.startswith(".") or name.lower() in LITTER


def is_searched(folder: Path, root: Path) -> bool:
    """Tell whether images in a folder are found where `root` is searched with its subfolders; hidden ones are not."""
    inside, root = folder.resolve(), root.resolve()
    return inside.is_relative_to(root) and not any(map(is_litter, inside.relative_to(root).parts))


def is_drawn(name: str) -> bool:
    """Tell by its name whether a file is an overlay, a reconstruction, or the depth codes of a reject."""
    return name.endswith((OVERLAY, RECONSTRUCTION)) or _DEPTH_OF_REJECT.fullmatch(name) is not None


def is_beside_colours(folder: str | Path) -> bool:
    """Tell whether a folder holds the depth images or masks of the colour images in ``rgb`` beside it (MVTec 3D-AD).

    They are not data to decide on.
    """
    above, name = os.path.split(folder)
    return name in (FOLDER, "gt") and all(os.path.isdir(os.path.join(above, each)) for each in (COLOURS, FOLDER))


@dataclass
class Listing:
    """The content of a folder.

    Attributes:
        images: image files, sorted by path; also broken links and what may not be opened: reading them says why.
        unreadable: folders that cannot be listed and what must not be opened, with the reason.
        left_out: what is not data ↦ how many, see `describe`.
    """

    images: list[Path] = field(default_factory=list)
    unreadable: dict[Path, str] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    def entries(self) -> list[Path]:
        """Return images and what is unreadable, sorted: each must get a result."""
        return sorted([*self.images, *self.unreadable])

    def demand(self) -> list[Path]:
        """Return the images.

        Raises:
            DataError: part of the folder cannot be read; with its path.
        """
        refuse_unreadable(self.unreadable)
        return self.images

    def describe(self) -> str:
        """Return one line on what was left out; empty if nothing was."""
        return describe_left_out(self.left_out)


def refuse_unreadable(unreadable: dict[Path, str]) -> None:
    """Refuse to continue without part of the data.

    Raises:
        DataError: with the first entry that cannot be read.
    """
    for path, why in sorted(unreadable.items()):
        more = f" ({len(unreadable)} of them)" if len(unreadable) > 1 else ""
        raise DataError(
            f"Cannot read {path}: {why}{more}.\nIts images would be missing. Make it readable, or move it elsewhere."
        )


def describe_left_out(left_out: Counter[str]) -> str:
    """Return one line on what was left out, the most frequent first; empty if nothing was."""
    if not left_out:
        return ""
    return "left out: " + ", ".join(f"{count} × {what}" for what, count in left_out.most_common())


def list_images(folder: Path, recursive: bool = False) -> list[Path]:
    """Return the image files in a folder, sorted by path; with subfolders, linked ones too, if `recursive`.

    Raises:
        DataError: the folder or a subfolder cannot be read.
    """
    return list_folder(folder, recursive).demand()


def list_folder(folder: Path, recursive: bool = False) -> Listing:
    """List a folder, with its subfolders if `recursive`, but not those of depth images (`is_beside_colours`)."""
    listing, visited = Listing(), set[tuple[int, int]]()
    pending = [str(folder)]
    while pending:
        path = pending.pop()
        subfolders = _list_one(path, listing, visited)
        if recursive:
            pending += subfolders
    listing.images.sort()
    return listing


def list_subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted, without litter.

    Raises:
        DataError: it cannot be read.
    """
    listing = Listing()
    found = _list_one(str(folder), listing, set())
    refuse_unreadable(listing.unreadable)
    return sorted(map(Path, found))


def _list_one(path: str, listing: Listing, visited: set[tuple[int, int]]) -> list[str]:
    """Add one folder to a listing; return its subfolders, none where it was visited (a link that leads back)."""
    try:
        status = os.stat(path)
        if (status.st_dev, status.st_ino) in visited:
            return []
        with os.scandir(path) as found:
            entries = sorted(found, key=lambda entry: entry.name)  # fast, and sorting paths afterwards is then, too
    except OSError as error:
        listing.unreadable[Path(path)] = error.strerror or str(error)
        return []
    visited.add((status.st_dev, status.st_ino))
    folders = []
    for entry in entries:
        if is_litter(entry.name):
            listing.left_out[f"{entry.name}/" if _is_folder(entry) else "hidden file"] += 1
        elif _is_folder(entry):
            folders.append(entry.path)
        elif why := _why_not_opened(entry):
            listing.unreadable[Path(entry.path)] = why
        elif is_drawn(entry.name):
            listing.left_out[DRAWN] += 1
        elif _is_image_name(entry.name):
            listing.images.append(Path(entry.path))
        else:
            listing.left_out[f"{os.path.splitext(entry.name)[1].lower() or 'other'} file"] += 1
    return [folder for folder in folders if not is_beside_colours(folder)]


def _is_image_name(name: str) -> bool:
    return _is_image_suffix(os.path.splitext(name)[1])


@functools.cache
def _is_image_suffix(suffix: str) -> bool:
    return is_image(Path(f"image{suffix}"))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, a stale handle
        return False


def _why_not_opened(entry: os.DirEntry[str]) -> str:
    """Return why something that may be data must not be opened as a file: a pipe would wait for ever.

    A broken link with the name of an image is an image: reading it says what is wrong.
    """
    try:
        regular, broken = entry.is_file(), entry.is_symlink()
    except OSError:
        regular, broken = False, True
    if regular:
        return ""
    if _is_image_name(entry.name):
        return "" if broken else NOT_REGULAR
    # What a link without a suffix led to may have been a folder of images.
    return BROKEN_LINK if broken and "." not in entry.name else ""


def expand(pattern: str) -> Listing:
    """List the files that a glob pattern names; ``**`` is any number of folders. Unlike `glob.glob`, errors are kept.

    A file that is matched counts as an image whatever its suffix: it was asked for.
    """
    listing = Listing()
    path = Path(pattern)
    parts = list(path.relative_to(path.anchor).parts)
    start = Path(path.anchor)
    while parts and not glob.has_magic(parts[0]):
        start /= parts.pop(0)
    listing.images = sorted(set(_expand(start, parts, listing)))
    return listing


def _expand(base: Path, parts: list[str], listing: Listing) -> Iterator[Path]:
    if not parts:
        if base.is_dir():
            listing.left_out["folder"] += 1
        elif os.path.lexists(base):
            yield base
    elif parts[0] == "**":
        for folder in _with_subfolders(base, listing):
            yield from _expand(folder, parts[1:], listing)
    elif not glob.has_magic(parts[0]):
        yield from _expand(base / parts[0], parts[1:], listing)
    else:
        for name in _matching(base, parts[0], listing, folders_only=len(parts) > 1):
            yield from _expand(base / name, parts[1:], listing)


def _with_subfolders(base: Path, listing: Listing) -> Iterator[Path]:
    """Yield a folder and all folders in it, each once."""
    found, visited, pending = Listing(), set[tuple[int, int]](), [str(base)] if base.is_dir() else []
    while pending:
        folder, before = pending.pop(), len(visited)
        pending += _list_one(folder, found, visited)
        if len(visited) > before:
            yield Path(folder)
    listing.unreadable |= found.unreadable
    listing.left_out.update({what: count for what, count in found.left_out.items() if what.endswith("/")})


def _matching(base: Path, pattern: str, listing: Listing, folders_only: bool) -> Iterator[str]:
    try:
        with os.scandir(base) as found:
            entries = list(found)
    except (FileNotFoundError, NotADirectoryError):
        return  # the pattern does not match here
    except OSError as error:
        listing.unreadable[base] = error.strerror or str(error)
        return
    for entry in entries:
        if not fnmatch.fnmatch(entry.name, pattern) or (folders_only and not _is_folder(entry)):
            continue
        if folders_only and is_beside_colours(entry.path):
            continue
        if pattern.startswith(".") or not is_litter(entry.name):
            yield entry.name
        elif not _is_folder(entry):
            listing.left_out["hidden file"] += 1
