"""What takes seconds to make is made once for all workers of a test run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgead.files import file_lock


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder of the whole test run. The first worker that asks for it makes it, others wait. Only read in it.

    Args:
        factory: of this worker.
        name: of the folder.
        make: is called with an empty folder's path, and fills it.
    """
    base = factory.getbasetemp()
    shelf = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"
    shelf.mkdir(exist_ok=True)
    folder, whole = shelf / name, shelf / f"{name}.whole"
    with file_lock(shelf / f"{name}.lock", lambda: None):
        if not whole.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            whole.touch()
    return folder


def copy_of(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return this worker's own copy of what `once` makes: tests may leave something in it, and look for that."""
    return Path(shutil.copytree(once(factory, name, make), factory.mktemp(name), dirs_exist_ok=True))
