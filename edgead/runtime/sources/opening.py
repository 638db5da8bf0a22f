"""Opens several sources: each has a unique name, and a missing camera does not stop the others."""

from __future__ import annotations

import glob
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgead.errors import ConfigError
from edgead.images import COLOUR, PixelFormat
from edgead.runtime.sources import open_source, redact, refuse_without_depth
from edgead.runtime.sources.live import FIRST_DELAY, LONGEST_DELAY, CameraError
from edgead.runtime.sources.overlap import refuse_watched_twice
from edgead.runtime.sources.python import CallableSource, IterableSource
from edgead.runtime.sources.source import Captured, FrameSource, Source
from edgead.runtime.sources.uri import UNSET

_NAMED = re.compile(r"(\w[\w.-]*)=(.+)", re.DOTALL)


def split_name(text: str) -> tuple[str, str]:
    """Split ``NAME=URI``; without a name the first part is empty. An existing path is never split."""
    found = _NAMED.fullmatch(text)
    if not found or Path(text).exists() or glob.glob(text):
        return "", text
    return found[1], found[2]


def as_source(source: Any, pixels: PixelFormat = COLOUR) -> Source:
    """Return the source for a URI, ``NAME=URI``, a path, an iterable of frames, a function or an open source.

    Raises:
        ConfigError: none of these, or several sources.
        SourceError: it cannot be opened, or lacks the required depth.
    """
    if isinstance(source, str):
        name, uri = split_name(source)
        if not uri.strip():  # as a path, it would be the current folder
            raise ConfigError(f"A source is empty. {UNSET}")
        return _call(open_source(uri, pixels), name)
    if isinstance(source, Path):
        return open_source(str(source), pixels)
    if isinstance(source, np.ndarray) and (source.ndim < 3 or (source.ndim == 3 and source.shape[2] in (1, 3, 4))):
        raise ConfigError(
            "This source is a single frame, and its rows are not frames. Pass [frame], or inspect(frame)."
        )
    if hasattr(source, "__enter__") and hasattr(source, "live"):
        return refuse_without_depth(source, pixels)
    if isinstance(source, Mapping) or (isinstance(source, list | tuple) and any(_is_uri(one) for one in source)):
        raise ConfigError(
            "These are several sources, and one is needed. Take  edgead.runtime.stream.Stream(inspector, sources)"
        )
    if isinstance(source, Iterable) and not isinstance(source, bytes):
        return IterableSource(source)
    if callable(source):
        return CallableSource(source)
    raise ConfigError(f"A source must be a URI, an iterable or a function, not {type(source).__name__}.")


def open_all(
    sources: str | Path | Sequence[Any] | Mapping[str, Any], pixels: PixelFormat = COLOUR, need_all: bool = False
) -> list[Source]:
    """Open all sources. Opening a camera is retried while another one runs.

    Args:
        sources: each is what `as_source` takes; in a mapping by name. A single URI or path is one source.
        pixels: of image files, and whether frames need depth.
        need_all: every camera must open now.

    Raises:
        ConfigError: there is no source, two have the same name, watch the same folder or, unnamed, read the same
            file, or a name is no text.
        SourceError: a source that is no camera cannot be opened; or no camera can be opened, or not all that must.
    """
    if _is_uri(sources):
        sources = [sources]
    if not isinstance(sources, Iterable):
        raise ConfigError(f"Sources must be a list, or a dict from name to source, not {type(sources).__name__}.")
    named = sources.items() if isinstance(sources, Mapping) else [("", source) for source in sources]
    if not named:
        raise ConfigError("There is no source. Name one or more.")
    opened: list[Source] = []
    ours: list[Source] = []
    dead: list[CameraError] = []
    try:
        for name, source in named:
            if not isinstance(name, str):
                raise ConfigError(f"The name of a source must be text, not {name!r}.")
            try:
                opened.append(_call(as_source(source, pixels), name))
            except CameraError as error:
                dead.append(error)
                opened.append(_call(AwaitedCamera(str(source), pixels, error), name))
            if _is_uri(source):
                ours.append(opened[-1])
        if dead and (need_all or len(dead) == len(opened)):
            raise dead[0]
        refuse_alike(list(zip(map(_is_unnamed, named), opened)))
    except BaseException:
        for each in ours:
            each.__exit__(None, None, None)
        raise
    return opened


def refuse_alike(opened: Sequence[tuple[bool, Source]]) -> None:
    """Refuse sources that cannot be used together.

    Args:
        opened: whether the user has not named it, and the source.

    Raises:
        ConfigError: two have the same name, watch the same folder or, unnamed, read the same file.
    """
    sources = [source for _, source in opened]
    _refuse_equal_names(sources)
    refuse_watched_twice(sources)
    _refuse_equal_files([source for unnamed, source in opened if unnamed])


def is_unnamed(uri: str) -> bool:
    """Tell whether a URI has no ``NAME=`` in front of it."""
    return not split_name(uri)[0]


def _is_uri(source: object) -> bool:
    return isinstance(source, str | Path)


def _call(source: Source, name: str) -> Source:
    if name:
        source.name = name
    return source


def _refuse_equal_names(sources: Sequence[Source]) -> None:
    [(name, count)] = Counter(source.name for source in sources).most_common(1) or [("", 0)]
    if count > 1:
        raise ConfigError(
            f"{count} sources have the name {name}; their results could not be told apart.\n"
            "Name each:  --source left=URI --source right=URI  (in Python a dict from name to source)"
        )


def _is_unnamed(given: tuple[str, Any]) -> bool:
    name, source = given
    return not name and isinstance(source, str | Path) and is_unnamed(str(source))


def _refuse_equal_files(sources: Sequence[Source]) -> None:
    """Refuse a file that two sources read, for instance as ``in`` and ``./in``: it would have two results."""
    readers = [(source.name, paths) for source in sources if (paths := getattr(source, "paths", ()))]
    known: dict[str, str] = {}
    for name, paths in readers if len(readers) > 1 else []:
        own = {os.path.realpath(path): name for path in paths}
        if both := own.keys() & known.keys():
            file = min(both)
            raise ConfigError(
                f"{known[file]} and {name} both read {file}, which would have two results.\n"
                "Name both if you want that:  --source left=PATH --source right=PATH"
            )
        known |= own


class AwaitedCamera(FrameSource):
    """A camera that could not be opened at the start: reported as ``lost``, and opened as soon as it is available.

    Args:
        uri: of the camera, also as ``NAME=URI``.
        pixels: see `edgead.runtime.sources.open_source`.
        error: why it could not be opened.
        open_uri: opens it.
    """

    live = True

    def __init__(
        self,
        uri: str,
        pixels: PixelFormat,
        error: CameraError,
        open_uri: Callable[[str, PixelFormat], Source] = as_source,
    ) -> None:
        name, bare = split_name(uri)
        super().__init__(name or error.name or redact(bare))
        self._uri, self._pixels, self._error, self._open_uri = uri, pixels, error, open_uri
        self._camera: Source | None = None

    def read(self) -> Iterator[Captured]:
        text = f"{self._error}\nIt is opened as soon as it is available."
        yield Captured(None, text, self.name, None, time.monotonic(), cause="lost")
        delay = FIRST_DELAY
        while self._camera is None and not self.stopped.wait(delay):
            delay = min(2 * delay, LONGEST_DELAY)
            try:
                self._camera = _call(self._open_uri(self._uri, self._pixels), self.name)
            except CameraError:  # other errors end the source: waiting does not fix them
                continue
        if self._camera is not None and not self.stopped.is_set():
            yield from self._camera.__enter__()

    def stop(self) -> None:
        super().stop()
        if self._camera is not None:
            self._camera.stop()

    def close(self) -> None:
        if self._camera is not None:
            self._camera.__exit__(None, None, None)
