"""A new version of a bundle: another threshold, the same graphs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from edgead.audit import Audit
from edgead.bundle import Bundle, is_bundle, write_manifest
from edgead.bundle.manifest import Manifest, ThresholdChange
from edgead.errors import ConfigError, describe
from edgead.files import atomic_folder, refuse_existing
from edgead.review.proposal import moved
from edgead.review.saved import COMMAND_LINE
from edgead.text import utc_now


def write_version(
    bundle: Bundle,
    out: Path,
    threshold: float,
    *,
    marks: Path,
    marked: Mapping[str, int],
    by: str = "",
    why: str = "",
    force: bool = False,
) -> Manifest:
    """Write a bundle that differs from another one by its threshold, its name and its history.

    Graphs and golden frames are the same bytes. Scores do not depend on the threshold, so that golden frames, parity
    and the measurements of the gate stay as they are; the gate's verdicts are those of the first threshold.

    Args:
        bundle: as it was read and checked.
        out: folder of the new one.
        threshold: of its scores.
        marks: folder of the marks; its audit log gets a line first.
        marked: counts by mark, for the history.
        by, why: for history and log.
        force: replace another bundle.

    Returns:
        The manifest of the new bundle.

    Raises:
        ConfigError: `out` is the bundle itself, or exists and may not be replaced.
        OSError: it cannot be written; nothing is left of it.
    """
    if out.resolve() == bundle.path.resolve():
        raise ConfigError(f"{out} is the bundle under review. Write the new version into another folder.")
    refuse_existing([out], force)
    if out.exists() and not is_bundle(out):
        raise ConfigError(f"{out} exists and is not a bundle, or holds other files. Choose another folder.")
    old = bundle.manifest
    change = ThresholdChange(old.threshold.value, threshold, old.digest, by, utc_now("milliseconds"), why, dict(marked))
    made = dataclasses.replace(
        old,
        name=out.name.removesuffix(".edgead"),
        threshold=moved(old.threshold, threshold),
        changes=(*(old.changes or ()), change),
    )
    audit = Audit(marks)
    noted = {"bundle": str(bundle.path), "digest": old.digest, "from": change.before, "to": threshold, "out": str(out)}
    audit.write(by, COMMAND_LINE, "version", **noted, why=why, marked=dict(marked))
    try:
        with atomic_folder(out) as folder:
            for name in old.files:
                (folder / name).write_bytes(bundle.content(name))
            return write_manifest(folder, made)
    except Exception as error:
        audit.write(by, COMMAND_LINE, "version", out=str(out), failed=describe(error))
        raise
