"""The user's folders: a cache of facts about this machine, data that waits for delivery, and a key.

A process may have no home: containers and service managers start some without ``HOME`` and without a line in
``/etc/passwd``. Then nothing is stored, and nothing else changes.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path


def at_home(path: str) -> str:
    """Replace a leading ``~/`` by the home folder: shells do so only at the beginning of a word."""
    return os.path.expanduser(path) if path.startswith("~/") else path


def cache_folder() -> Path:
    """Return the cache folder: ``$XDG_CACHE_HOME/edgead`` or ``~/.cache/edgead``.

    Without a home it is a temporary one, which is removed when the process ends.
    """
    return _user_folder("XDG_CACHE_HOME", ".cache") or _of_this_process()


def state_folder() -> Path | None:
    """Return the folder of data that must outlast the process: ``$XDG_STATE_HOME/edgead`` or ``~/.local/state/edgead``.

    None without a home.
    """
    return _user_folder("XDG_STATE_HOME", ".local/state")


def config_folder() -> Path | None:
    """Return the folder of what the user's processes share: ``$XDG_CONFIG_HOME/edgead`` or ``~/.config/edgead``.

    None without a home.
    """
    return _user_folder("XDG_CONFIG_HOME", ".config")


def _user_folder(variable: str, below_home: str) -> Path | None:
    if given := os.environ.get(variable):
        return Path(given, "edgead")
    try:
        return Path.home() / below_home / "edgead"
    except RuntimeError:
        return None


@functools.cache
def _of_this_process() -> Path:
    folder = tempfile.mkdtemp(prefix="edgead-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
