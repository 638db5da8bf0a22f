"""Where a bundle goes: a bundle that is there is replaced by the same one made again, and by no other."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

from edgead.bundle import is_bundle, read_manifest
from edgead.errors import DataError
from edgead.manifest import Manifest
from edgead.text import file_name, valid


def choose_target(
    out: str | Path | None, verb: str, name: str, precision: str, same: Callable[[Manifest], bool], force: bool
) -> Path:
    """Return the folder for a bundle.

    Args:
        out: what the user names; what is there is kept, unless it is the same bundle or `force` is given.
        verb, name: ``runs/VERB/NAME.edgead`` where the user names nothing; with the precision in its name below
            float32, and with a number behind it where another bundle is there.
        precision: that was asked for.
        same: tells whether a bundle was made of the same, in the same way.
        force: replace any bundle.

    Raises:
        DataError: something else is there.
    """
    if out is None:
        name = file_name(name)
        stem = name if precision == "fp32" else f"{name}-{precision}"
        numbered = (stem if number == 1 else f"{stem}-{number}" for number in itertools.count(1))
        paths = (Path("runs", verb, f"{each}.edgead") for each in numbered)
        return next(path for path in paths if not path.exists() or (is_bundle(path) and same(read_manifest(path))))
    path = Path(out)
    if valid(str(path)) != str(path):
        raise DataError(f"The name {valid(str(path))} is not UTF-8, which the libraries need; choose another --out.")
    if not path.exists():
        return path
    if not is_bundle(path):
        raise DataError(f"{path} exists and is not a bundle, or holds other files too; choose another --out.")
    there = read_manifest(path)
    if not force and not same(there):
        what = f"{there.precision}, {there.method} on '{there.category}', made {there.created}"
        raise DataError(
            f"{path} holds another bundle ({what}), which is kept.\nChoose another --out, or replace it with --force."
        )
    return path
