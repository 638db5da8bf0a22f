"""Sources deliver frames. `open_source` opens a source by its URI; docs/sources.md lists the URIs.

A source is a context manager and an iterator of `Captured`. One thread reads it; other threads only call `stop`.
An unreadable frame is delivered as an error, never skipped. `edgead.runtime.frame_queue` decides which frames are
dropped if they arrive faster than they can be inspected.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from pathlib import Path

from edgead.errors import SourceError
from edgead.home import at_home
from edgead.images import COLOUR, PixelFormat
from edgead.runtime.sources.files import ImageSource, open_path
from edgead.runtime.sources.live import CameraSource, LiveSource
from edgead.runtime.sources.source import Captured, FrameSource, Source
from edgead.runtime.sources.uri import complete, redact, refuse_bare_address, scheme_of
from edgead.runtime.sources.v4l2 import open_number
from edgead.runtime.sources.video import VideoSource

FORMS = (
    "an image, a folder, a glob, a video file, the number of a camera, v4l2://, csi://, rtsp://, av+rtsp://, http://, "
    "genicam:, watch:DIR, replay:DIR or synthetic:"
)
PLUGINS = "edgead.sources"
"""Group of entry points for further schemes: ``name = module:function``. The function takes the URI and a
`PixelFormat`, like those of the built-in schemes."""

_SCHEMES = {
    "v4l2": "edgead.runtime.sources.v4l2:open_v4l2",
    "csi": "edgead.runtime.sources.csi:open_csi",
    "rtsp": "edgead.runtime.sources.network:open_rtsp",
    "rtsps": "edgead.runtime.sources.network:open_rtsp",
    "http": "edgead.runtime.sources.network:open_http",
    "https": "edgead.runtime.sources.network:open_http",
    "av+rtsp": "edgead.runtime.sources.network:open_pyav",
    "av+rtsps": "edgead.runtime.sources.network:open_pyav",
    "av+http": "edgead.runtime.sources.network:open_pyav",
    "av+https": "edgead.runtime.sources.network:open_pyav",
    "watch": "edgead.runtime.sources.watch:open_watched",
    "replay": "edgead.runtime.record:open_replay",
    "synthetic": "edgead.runtime.sources.python:open_synthetic",
}

__all__ = [
    "CameraSource",
    "Captured",
    "FrameSource",
    "ImageSource",
    "LiveSource",
    "Source",
    "VideoSource",
    "open_source",
    "redact",
    "refuse_without_depth",
]


def open_source(uri: str, pixels: PixelFormat = COLOUR) -> Source:
    """Open a source by its URI.

    Args:
        uri: see docs/sources.md; plug-ins may add schemes.
        pixels: of image files, and whether frames need depth.

    Raises:
        SourceError: it does not exist, its scheme is unknown, or it lacks the required depth.
    """
    return refuse_without_depth(_open(uri, pixels), pixels)


def refuse_without_depth(source: Source, pixels: PixelFormat) -> Source:
    """Return a source, unless depth is required and the source delivers only colour.

    Raises:
        SourceError: the depth is missing.
    """
    if pixels.depth_range is not None and getattr(source, "colour_only", False):
        raise SourceError(
            f"The model needs depth, but the source {source.name} delivers only colour.\n"
            "Use a folder rgb/ with xyz/ beside it, or pass your depth camera's frames from Python: docs/depth.md"
        )
    return source


def _open(uri: str, pixels: PixelFormat) -> Source:
    uri = at_home(uri)
    if uri.isdecimal() and not Path(uri).exists():
        return open_number(int(uri))
    if Path(uri).exists():
        return open_path(uri, FORMS, pixels)
    uri = complete(uri)
    scheme = scheme_of(uri)
    if scheme in _SCHEMES:
        module, _, function = _SCHEMES[scheme].partition(":")
        source: Source = getattr(importlib.import_module(module), function)(uri, pixels)
        return source
    for plugin in metadata.entry_points(group=PLUGINS):
        if plugin.name == scheme:
            brought: Source = plugin.load()(uri, pixels)
            return brought
    if "://" in uri:
        raise SourceError(f"Unknown source '{scheme}://…'. Available: {FORMS}.")
    refuse_bare_address(uri)
    return open_path(uri, FORMS, pixels)  # a file name may contain a colon
