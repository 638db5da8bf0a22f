"""Refuses sources and sinks that share a folder."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

from edgead.errors import ConfigError
from edgead.runtime.sources.files import ImageSource
from edgead.runtime.sources.watch import WatchedFolder


def refuse_watched_twice(sources: Iterable[object]) -> None:
    """Refuse two sources that watch one folder: each of its images would have two results.

    Raises:
        ConfigError: with both.
    """
    watched = [source for source in sources if isinstance(source, WatchedFolder)]
    for one, other in itertools.permutations(watched, 2):
        if one.sees(other.folder):
            raise ConfigError(
                f"{one.name} and {other.name} watch one folder: each of its images would have two results."
            )


def refuse_own_pictures(sources: Iterable[object], sinks: Iterable[object]) -> None:
    """Refuse a sink that saves frames where a source finds them: one part would be inspected again.

    Args:
        sources: of a run. Images are searched, or watched for, in folders.
        sinks: of it. Those with a `folder` save pictures there.

    Raises:
        ConfigError: with the folder.
    """
    folders = [folder for sink in sinks if isinstance(folder := getattr(sink, "folder", None), Path)]
    for source in sources:
        for folder in folders:
            if isinstance(source, WatchedFolder | ImageSource) and source.sees(folder):
                when = "again and again" if isinstance(source, WatchedFolder) else "again by the next run"
                raise ConfigError(
                    f"The frames saved in {folder} would be inspected {when}: images are taken from that "
                    "folder.\nSave them elsewhere."
                )
