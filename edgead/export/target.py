"""The folder of a bundle. An existing bundle is replaced only by one of the same source and options."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

from edgead.bundle import is_bundle, read_manifest
from edgead.bundle.manifest import Manifest
from edgead.errors import DataError
from edgead.text import file_name, valid


def choose_target(
    out: str | Path | None, verb: str, name: str, precision: str, same: Callable[[Manifest], bool], force: bool
) -> Path:
    """Return the folder for a bundle.

    Args:
        out: the user's choice. An existing bundle is kept unless it is the same or `force` is set.
        verb, name: without `out`, ``runs/VERB/NAME.edgead``. Below float32 the precision is appended to the
            name, and a number if that name is taken.
        precision: of the bundle.
        same: tells whether a bundle has the same source and options.
        force: replace any bundle.

    Raises:
        DataError: `out` exists and must be kept.
    """
    if out is None:
        name = file_name(name)
        stem = name if precision == "fp32" else f"{name}-{precision}"
        numbered = (stem if number == 1 else f"{stem}-{number}" for number in itertools.count(1))
        paths = (Path("runs", verb, f"{each}.edgead") for each in numbered)
        return next(path for path in paths if not path.exists() or (is_bundle(path) and same(read_manifest(path))))
    path = Path(out)
    if valid(str(path)) != str(path):
        raise DataError(f"The name {valid(str(path))} is not UTF-8, which the libraries need. Choose another --out.")
    if not path.exists():
        return path
    if not is_bundle(path):
        raise DataError(f"{path} exists and is not a bundle, or holds other files. Choose another --out.")
    there = read_manifest(path)
    if not force and not same(there):
        what = f"{there.precision}, {there.method} on '{there.category}', made {there.created}"
        raise DataError(f"{path} holds another bundle ({what}).\nChoose another --out, or replace it with --force.")
    return path
