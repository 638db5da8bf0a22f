"""The parts of a cell's key: hashes of data, program and configuration."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import edgead
from edgead.datasets import Category
from edgead.errors import ConfigError
from edgead.files import sha256

NOT_IN_TRAINING = ("archive", "benchmark", "cli", "export", "line", "reports", "runtime", "sweep", "view")
NOT_IN_MEASURING = ("archive", "cli", "line", "reports", "sweep", "view")
"""Sub-packages that cannot change the result of a training, or of a bundle and its figures."""
KEY_DIGITS = 16


def make_key(parts: Mapping[str, object]) -> str:
    """Return a short hash of JSON values; the order of the names does not matter."""
    text = json.dumps(dict(parts), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


def category_fingerprint(category: Category) -> str:
    """Return a hash of a category: of every file in its folder, and of the role of each image."""
    digest = hashlib.sha256(files_fingerprint(category.root).encode())
    for name, paths in {"normals": category.normals, "validation": category.validation}.items():
        _add(digest, name, (_relative(path, category) for path in paths))
    for sample in category.test:
        _add(digest, sample.kind, (_relative(path, category) for path in (sample.path, *sample.masks)))
    return digest.hexdigest()


def _add(digest: Any, label: str, names: Iterable[str]) -> None:
    digest.update(json.dumps([label, *names]).encode())


def _relative(path: Path, category: Category) -> str:
    return os.path.relpath(path, category.root)


@functools.cache
def files_fingerprint(path: Path) -> str:
    """Return a hash of a file, or of names and contents of all files in a folder except hidden ones.

    Raises:
        ConfigError: the path does not exist.
    """
    if path.is_file():
        return sha256(path)
    if not path.is_dir():
        raise ConfigError(f"{path} does not exist.")
    digest, visited = hashlib.sha256(), {_identity(path)}
    for folder, inside, names in os.walk(path, followlinks=True):
        found = {name: _identity(Path(folder, name)) for name in sorted(inside) if not name.startswith(".")}
        inside[:] = [name for name, identity in found.items() if identity not in visited]  # a link may lead back
        visited.update(found.values())
        for name in sorted(name for name in names if not name.startswith(".")):
            file = Path(folder, name)
            if file.is_file():
                digest.update(os.fsencode(file.relative_to(path)) + b"\0" + sha256(file).encode())
    return digest.hexdigest()


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


@functools.cache
def code_fingerprint(left_out: tuple[str, ...]) -> str:
    """Return a hash of the package's sources without some sub-packages."""
    root = Path(edgead.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if name.parts[0].removesuffix(".py") not in left_out:
            digest.update(name.as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
