"""A folder that something else writes images into."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgead.errors import SourceError
from edgead.images import COLOUR, PixelFormat, list_images
from edgead.runtime.sources.files import capture_file
from edgead.runtime.sources.source import Captured, FrameSource, Source
from edgead.runtime.sources.uri import number, split_options

POLL_SECONDS = 0.2

_Stamp = tuple[int, int]


def open_watched(uri: str, pixels: PixelFormat = COLOUR) -> Source:
    """``watch:DIR?existing=1&poll=0.2``.

    Raises:
        SourceError: no such folder.
    """
    name, options = split_options(uri, {"existing": "0", "poll": str(POLL_SECONDS)})
    if uri.startswith("watch:///"):
        name = "/" + name.lstrip("/")
    folder = Path(name)
    if not folder.is_dir():
        raise SourceError(f"{uri}: there is no folder {folder}.")
    return WatchedFolder(folder, number(uri, options, "existing") > 0, number(uri, options, "poll"), pixels)


class WatchedFolder(FrameSource):
    """Every image that appears in a folder or changes there, each once, until it is stopped.

    An image counts as written when its size and time have not changed between two looks.

    Args:
        folder: the folder; its subfolders are not watched.
        existing: also give the images that are there at the beginning.
        poll: seconds between two looks.
        pixels: of the images. A depth picture must be there before its colour image.
    """

    def __init__(
        self, folder: Path, existing: bool = False, poll: float = POLL_SECONDS, pixels: PixelFormat = COLOUR
    ) -> None:
        super().__init__(f"watch:{folder}")
        self.folder, self.poll, self.pixels = folder, poll, pixels
        self._given: dict[Path, _Stamp] = {} if existing else self._look()

    def _look(self) -> dict[Path, _Stamp]:
        stamps = {}
        try:
            for path in list_images(self.folder):
                status = path.stat()
                stamps[path] = (status.st_mtime_ns, status.st_size)
        except OSError:  # the folder, or a file between listing and looking, is gone: it may come back
            pass
        return stamps

    def read(self) -> Iterator[Captured]:
        frame_id, before = 0, self._look()
        while not self.stopped.wait(self.poll):
            now = self._look()
            written = [path for path, stamp in now.items() if before.get(path) == stamp != self._given.get(path)]
            # What is gone is forgotten, so that months of files cost no memory.
            self._given = {path: stamp for path, stamp in self._given.items() if path in now}
            for path in sorted(written, key=lambda path: now[path]):
                self._given[path] = now[path]
                yield capture_file(path, self.name, frame_id, self.pixels)
                frame_id += 1
            before = now
