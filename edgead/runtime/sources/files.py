"""Images, folders and globs. They give every frame, however slow the reader is."""

from __future__ import annotations

import glob
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgead.errors import DataError, SourceError
from edgead.images import COLOUR, PixelFormat, is_image_file, list_images, read_frame
from edgead.runtime.sources.source import Captured, FrameSource, Source
from edgead.runtime.sources.video import VideoSource


def open_path(uri: str, forms: str, pixels: PixelFormat) -> Source:
    """Make a source from a path or a glob pattern.

    Args:
        uri: path of an image, a folder (searched with its subfolders), a video file; or a glob pattern.
        forms: what else could have been given, for the text of the error.
        pixels: of image files.

    Raises:
        SourceError: nothing there, or not one of these.
    """
    path = Path(uri)
    if path.is_dir():
        paths = list_images(path, recursive=True)
    elif path.is_file():
        if not is_image_file(path):
            return VideoSource(path)
        paths = [path]
    else:
        paths = [found for name in sorted(glob.glob(uri, recursive=True)) if (found := Path(name)).is_file()]
        if not paths and not glob.has_magic(uri):
            raise SourceError(f"The source {uri} does not exist; give {forms}.")
    if not paths:
        raise SourceError(f"The source {uri} holds no images.")
    return ImageSource(uri, paths, pixels)


def capture_file(path: Path, name: str, frame_id: int, pixels: PixelFormat) -> Captured:
    """Read one image file; an error where it cannot be read."""
    try:
        image = read_frame(path, pixels)
    except DataError as failure:
        return Captured(None, str(failure), name, frame_id, time.monotonic(), str(path), "unreadable")
    return Captured(image, "", name, frame_id, time.monotonic(), str(path))


class ImageSource(FrameSource):
    """Image files in the given order."""

    def __init__(self, name: str, paths: Sequence[Path], pixels: PixelFormat = COLOUR) -> None:
        super().__init__(name)
        self.paths, self.pixels = paths, pixels

    def read(self) -> Iterator[Captured]:
        for frame_id, path in enumerate(self.paths):
            if self.stopped.is_set():
                return
            yield capture_file(path, self.name, frame_id, self.pixels)
