"""Where pulled bundles lie: beside a link that points to one of them, in ``LINK.versions``."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgead.audit import append_line
from edgead.console import Console
from edgead.errors import PullError
from edgead.pull.watch import Report
from edgead.text import typed, utc_now

VERSIONS = ".versions"
"""Suffix of the folder beside the link, with the bundles that it has pointed to."""
LOG = "pulls.jsonl"
"""In that folder: one report a line."""
INTERRUPTED = "interrupted"
"""What a report says of a bundle that was taken back because its pull was interrupted."""


@dataclass(frozen=True)
class Pulled:
    """What a pull did.

    Attributes:
        bundle, digest: name and digest of the bundle.
        signer: fingerprint of the key that signed it.
        link: that points to it now.
        path: of the bundle.
        before: path of the one before; empty for none.
        received: bytes that came over the network.
        resumed: how often a file was continued.
        engine, agreement: what the golden frames ran on, and how well they agree.
        switched: the link was changed.
        line: what became of it on the line; None if no line was named.
    """

    bundle: str
    digest: str
    signer: str
    link: str
    path: str
    before: str
    received: int = 0
    resumed: int = 0
    engine: str = ""
    agreement: str = ""
    switched: bool = False
    line: Report | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return dataclasses.asdict(self)


def check_link(link: Path) -> None:
    """Refuse a folder in the place of a link, and a path without a name.

    Raises:
        PullError: it is one.
    """
    if not link.name:
        raise PullError(f"--to {link} has no name. Name the link that the line opens, as in  --to current.edgead")
    if link.exists() and not link.is_symlink():
        versions = link.with_name(link.name + VERSIONS)
        folder, moved, to = typed(versions), typed(versions / "first.edgead"), typed(f"{versions.name}/first.edgead")
        raise PullError(
            f"{link} is not a link, and only a link can be changed in one step.\n"
            f"Make it one:  mkdir {folder} && mv {typed(link)} {moved} && ln -s {to} {typed(link)}"
        )


def to_disk(folder: Path) -> None:
    """Wait until every file is on the disk, so that a power failure leaves all or nothing under the link."""
    for file in [*folder.iterdir(), folder]:
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def point(link: Path, target: Path) -> None:
    """Let a link point to a folder beside it, in one step."""
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(os.path.relpath(target, link.absolute().parent))
    os.replace(new, link)


def take_back(done: Pulled, link: Path) -> None:
    """Let a link point to what it pointed to before a pull."""
    if done.before:
        point(link, Path(done.before))
    else:
        link.unlink(missing_ok=True)


def remove_older(versions: Path, kept: set[Path | None]) -> None:
    """Remove bundles that the link neither points to nor has just pointed to, and what broken pulls have left."""
    for path in versions.iterdir():
        ours = path.suffix in (".edgead", ".part") and path.is_dir() and not path.is_symlink()
        if ours and path.resolve() not in {each.resolve() for each in kept if each}:
            shutil.rmtree(path, ignore_errors=True)


def write_log(versions: Path, done: Pulled, console: Console) -> None:
    """Add a report to the log. What was done is done, so that a full disk is a warning."""
    try:
        append_line(versions / LOG, {"at": utc_now(), **done.to_dict()})
    except OSError as error:
        console.say(f"Warning: {versions / LOG} lacks this pull: {error.strerror or error}.")


def find_failure(versions: Path, digest: str) -> str:
    """Return when and why a bundle failed on the line the last time it was watched; empty if it did not."""
    try:
        log = versions / LOG
        lines = log.read_text("utf-8", "replace").splitlines() if log.is_file() else []  # a device would never end
    except OSError:
        return ""
    for line in reversed([line for line in lines if digest in line]):
        try:
            report = json.loads(line)
            if report["digest"] == digest and report["line"] and (why := report["line"]["failed"]) != INTERRUPTED:
                return f"{report['at']}: {why}" if why else ""
        except (ValueError, LookupError, TypeError):  # a line that a power failure has cut
            continue
    return ""
