"""Images, folders and globs. They deliver every frame, however slow the reader is."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from glob import has_magic
from pathlib import Path
from types import MappingProxyType

from edgead.errors import DataError, SourceError
from edgead.folders import expand, is_searched, list_folder
from edgead.images import COLOUR, PixelFormat, is_image_file, read_frame
from edgead.runtime.sources.source import Captured, FrameSource, Source
from edgead.runtime.sources.video import MJPEG, VideoSource


def open_path(uri: str, forms: str, pixels: PixelFormat) -> Source:
    """Open a source by a path or a glob pattern.

    Args:
        uri: path of an image, a folder (searched with its subfolders), a video file; or a glob pattern.
        forms: other kinds of URIs, for the error.
        pixels: of image files.

    Raises:
        SourceError: it does not exist, or is of another kind.
    """
    path = Path(uri)
    if path.is_file():
        is_image = path.suffix.lower() not in MJPEG and is_image_file(path)
        return ImageSource(uri, [path], pixels) if is_image else VideoSource(path)
    if path.exists() and not path.is_dir():
        raise SourceError(f"The source {uri} is a pipe or a device, not a file. Available: {forms}.")
    listing = list_folder(path, recursive=True) if path.is_dir() else expand(uri)
    entries, remark = listing.entries(), listing.describe()
    if not entries:
        if not path.is_dir() and not has_magic(uri):
            raise SourceError(f"The source {uri} does not exist. Available: {forms}.")
        raise SourceError(f"The source {uri} contains no images." + (f" ({remark})" if remark else ""))
    return ImageSource(uri, entries, pixels, listing.unreadable, remark, [path] if path.is_dir() else ())


def cannot_read(path: Path, why: str, name: str, frame_id: int) -> Captured:
    """Return the error in place of a folder or special file that cannot be read."""
    return Captured(None, f"cannot read {path}: {why}", name, frame_id, time.monotonic(), str(path), "unreadable")


def capture_file(path: Path, name: str, frame_id: int, pixels: PixelFormat) -> Captured:
    """Read one image file; return an error if it cannot be read."""
    try:
        image = read_frame(path, pixels)
    except DataError as failure:
        return Captured(None, str(failure), name, frame_id, time.monotonic(), str(path), "unreadable")
    return Captured(image, "", name, frame_id, time.monotonic(), str(path))


class ImageSource(FrameSource):
    """Image files in the given order.

    Args:
        name: of the source.
        paths: the files.
        pixels: of the images.
        unreadable: paths that are not opened, with the reason; each becomes an error in place of a frame.
        remark: see `FrameSource`.
        searched: folders in which, with their subfolders, the files were found.
    """

    def __init__(
        self,
        name: str,
        paths: Sequence[Path],
        pixels: PixelFormat = COLOUR,
        unreadable: Mapping[Path, str] = MappingProxyType({}),
        remark: str = "",
        searched: Sequence[Path] = (),
    ) -> None:
        super().__init__(name)
        self.paths, self.pixels, self.unreadable, self.remark = paths, pixels, unreadable, remark
        self._searched = searched

    def sees(self, folder: Path) -> bool:
        """Return whether the next run would also inspect images in a folder."""
        return any(is_searched(folder, root) for root in self._searched)

    def read(self) -> Iterator[Captured]:
        for frame_id, path in enumerate(self.paths):
            if self.stopped.is_set():
                return
            if why := self.unreadable.get(path):
                yield cannot_read(path, why, self.name, frame_id)
            else:
                yield capture_file(path, self.name, frame_id, self.pixels)
