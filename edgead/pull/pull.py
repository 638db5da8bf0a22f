"""From a folder on a server to the bundle that decides, and back where it fails."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgead.bundle import MANIFEST, parse_manifest, read_bundle, read_manifest
from edgead.console import Console
from edgead.errors import BundleError, ConfigError, EdgeadError, PullError, RolledBackError, describe, first_line
from edgead.files import file_lock, sha256
from edgead.manifest import Manifest
from edgead.pull.download import Folder
from edgead.pull.watch import Report, RunningLine, wait_for, watch
from edgead.runtime.engines.opening import open_engine
from edgead.runtime.golden import check_golden, require_agreement
from edgead.schema import LARGEST_JSON
from edgead.trust import SIGNATURE, SIGNATURE_BYTES, Trust, read_trust

VERSIONS = ".versions"
"""Suffix of the folder beside the link, with the bundles that it has pointed to."""
LOG = "pulls.jsonl"
"""In that folder: one report a line."""
BACK_WITHIN = 60.0
"""Seconds without an answer that a line may need to start again with the bundle before."""
MAX_SIZE = 4096
"""Default of the most MB of all files."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


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


def pull(
    url: str,
    *,
    to: str | Path,
    trust: Sequence[str | Path] | None = None,
    token: str = "",
    ca: str | Path | None = None,
    max_size: int = MAX_SIZE,
    engine: str = "auto",
    force: bool = False,
    pid: str = "",
    metrics: str = "",
    metrics_token: str = "",
    watch_minutes: float = 5.0,
    max_change: float = 0.1,
    console: Console | None = None,
) -> Pulled:
    """Fetch a signed bundle, check it here, let a link point to it, and watch the line that takes it.

    Args:
        url: ``https://HOST/FOLDER`` with the bundle's files.
        to: the link that a line opens. It is changed in one step; the bundles lie beside it in ``LINK.versions``.
        trust: see `edgead.load`; without any key nothing is pulled.
        token: for ``Authorization: Bearer TOKEN``.
        ca: file of the certificates to trust in place of the system's.
        max_size: most MB of all files.
        engine: see `edgead.load`; runs the golden frames.
        force: also take an older bundle, and one of another category.
        pid: process of the line, or a file with its number; empty if none runs.
        metrics, metrics_token: see `edgead.runtime.run.run`; of the line.
        watch_minutes: how long the line is watched.
        max_change: largest growth of its shares of FAIL and UNKNOWN.
        console: shows the steps.

    Raises:
        PullError: it cannot be fetched or put in place.
        BundleError: not signed by a trusted key, or damaged.
        ConfigError: no trusted key, or a line that cannot be watched.
        DeviceError: the golden frames fail here. The link is unchanged after this and the errors above.
        RolledBackError: it failed on the line. The link points to the one before again.
    """
    console, link = console or Console(), Path(to)
    trusted = read_trust(trust)
    if trusted is None:
        raise ConfigError("Only signed bundles are pulled. Name the key of their maker:  --trust FILE.pub")
    if bool(pid) != bool(metrics):
        raise ConfigError("--pid and --metrics go together: a line that is told is watched.")
    line = RunningLine(pid, metrics, metrics_token) if pid else None
    if line and line.look() is None:
        raise PullError(f"No line answers on {metrics}. Start it with --metrics {metrics}, or leave out --pid.")
    _check_link(link)
    versions = link.absolute().with_name(link.name + VERSIONS)
    source = Folder(url, token=token, ca=None if ca is None else Path(ca), limit=max_size << 20, say=console.say)
    try:
        versions.mkdir(parents=True, exist_ok=True)
        with file_lock(versions / ".lock", lambda: console.say("Another pull is running. Waiting for it.")):
            done = _bring(source, link, versions, trusted, trust, engine, force, console)
            if done.switched and line:
                done = _hand_over(done, line, link, watch_minutes * 60, max_change, console)
            elif not line and done.switched:
                console.say("No line was told: reload or restart the one that uses it.")
            _log(versions, done)
    except OSError as error:
        raise PullError(f"{error.filename or versions} cannot be written: {error.strerror or error}.") from error
    if done.line and done.line.failed:
        raise RolledBackError(
            f"{done.bundle} failed on the line: {done.line.failed}.\n"
            + (f"{done.before} is in its place again." if done.before else "There was none before it.")
        )
    return done


def _check_link(link: Path) -> None:
    if link.exists() and not link.is_symlink():
        moved = link.with_name(link.name + VERSIONS) / "first.edgead"
        raise PullError(
            f"{link} is not a link, and only a link can be changed in one step.\n"
            f"Make it one:  mkdir {moved.parent} && mv {link} {moved} && ln -s {moved.parent.name}/{moved.name} {link}"
        )


def _bring(
    source: Folder,
    link: Path,
    versions: Path,
    trusted: Trust,
    trust: Sequence[str | Path] | None,
    engine: str,
    force: bool,
    console: Console,
) -> Pulled:
    """Fetch, verify, run the golden frames, and change the link."""
    content = source.read(MANIFEST, LARGEST_JSON)
    signature = source.read(SIGNATURE, SIGNATURE_BYTES)
    signer = trusted.find_signer(Path(MANIFEST), content, signature)  # before anything of it is read
    manifest = parse_manifest(Path("the bundle"), content)
    trusted.refuse_revoked(Path("the bundle"), manifest.digest)
    target = versions / f"{manifest.digest[:16]}.edgead"
    before = link.resolve() if link.exists() else None
    done = Pulled(manifest.name, manifest.digest, signer, str(link), str(target), str(before or ""))
    if before == target.resolve() and target.exists():
        console.say(f"{manifest.name} is in place already.")
        return done
    if before and not force:
        _refuse_unlike(manifest, before)
    if not target.exists():
        part = versions / f".{manifest.digest[:16]}.part"
        _fetch(source, manifest, part, console)
        (part / MANIFEST).write_bytes(content)
        (part / SIGNATURE).write_bytes(signature)
        try:
            read_bundle(part, trust)
        except BundleError:
            shutil.rmtree(part)
            raise
        _to_disk(part)
        os.replace(part, target)
    opened = read_bundle(target, trust)
    runner = open_engine(engine, opened, console=console)
    try:
        agreement = check_golden(opened, runner)
        require_agreement(agreement, runner.name)
        name = runner.name
    finally:
        runner.close()
    console.say(f"{manifest.name}: golden frames on {name}: {agreement.describe()}")
    point(link, target)
    _remove_older(versions, {target, before})
    return dataclasses.replace(
        done,
        received=source.received,
        resumed=source.resumed,
        engine=name,
        agreement=agreement.describe(),
        switched=True,
    )


def _refuse_unlike(manifest: Manifest, before: Path) -> None:
    """Refuse a bundle that an attacker may have kept: an old one of ours, or one of another product."""
    try:
        old = read_manifest(before)
    except BundleError:
        return  # there is nothing to be worse than
    if manifest.category != old.category:
        raise PullError(
            f"{manifest.name} is for '{manifest.category}', and '{old.category}' is in its place.\n"
            "Pull it to another link, or replace it with --force."
        )
    if _made(manifest) < _made(old):
        raise PullError(
            f"{manifest.name} was made {manifest.created}, before the one in its place ({old.created}).\n"
            "Go back to it with --force."
        )


def _made(manifest: Manifest) -> datetime:
    try:
        made = datetime.fromisoformat(manifest.created.replace("Z", "+00:00"))
    except ValueError as error:
        raise PullError(f"The manifest of {manifest.name} has no time of creation: '{manifest.created}'.") from error
    return made if made.tzinfo else made.replace(tzinfo=timezone.utc)


def _fetch(source: Folder, manifest: Manifest, part: Path, console: Console) -> None:
    if wrong := next((name for name in manifest.files if not _NAME.fullmatch(name)), None):
        raise PullError(f"The manifest lists {wrong!a}, which is not the name of a file in a bundle.")
    if part.is_symlink() or (part.exists() and not part.is_dir()):
        part.unlink()
    part.mkdir(exist_ok=True)
    for stray in part.iterdir():
        if stray.name not in manifest.files or stray.is_symlink() or not stray.is_file():
            shutil.rmtree(stray) if stray.is_dir() and not stray.is_symlink() else stray.unlink()
    with console.bar("fetching", len(manifest.files)) as step:
        for name, wanted in manifest.files.items():
            _fetch_whole(source, name, wanted, part / name)
            step(name)


def _fetch_whole(source: Folder, name: str, wanted: str, path: Path) -> None:
    """Fetch a file, once more from its beginning if what was there already was not its beginning."""
    for _ in range(2):
        begun = path.exists()
        if begun and sha256(path) == wanted:
            return
        source.fetch(name, path)
        if sha256(path) == wanted:
            return
        path.unlink()
        if not begun:
            break
    raise PullError(f"{name} is damaged: its SHA-256 differs from the signed manifest.\nPull again, or sign it again.")


def _to_disk(folder: Path) -> None:
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


def _hand_over(done: Pulled, line: RunningLine, link: Path, seconds: float, most: float, console: Console) -> Pulled:
    """Let the line take the bundle, and take it back where it fails."""
    report, old = Report(), ""
    try:
        seen = line.look()
        if seen is None:
            raise PullError("the line does not answer any more")
        report, old = Report(seen.counts), seen.digest
        line.reload()
        report.failed = wait_for(line, done.digest, seen.refused)
        if not report.failed:
            console.say(f"{done.bundle} decides. Watching it for {seconds / 60:g} minutes.")
            report = watch(line, done.digest, seen.counts, seconds, most, console.say)
    except (EdgeadError, KeyboardInterrupt) as error:
        report.failed = "interrupted" if isinstance(error, KeyboardInterrupt) else first_line(error).rstrip(".")
    if not report.failed:
        return dataclasses.replace(done, line=report)
    console.say(f"{done.bundle} failed: {report.failed}. Going back.")
    _take_back(done, link)
    seen = line.look()
    try:
        line.reload()
    except EdgeadError as error:  # a service manager may be starting it again, with the old bundle
        console.say(f"Warning: the line was not told to go back: {describe(error)}")
    if old and (why := wait_for(line, old, seen.refused if seen else 0, gone=BACK_WITHIN)):
        console.say(f"Warning: the line may not have gone back: {why}. Restart it.")
    return dataclasses.replace(done, switched=False, line=report)


def _take_back(done: Pulled, link: Path) -> None:
    if done.before:
        point(link, Path(done.before))
    else:
        link.unlink(missing_ok=True)


def _remove_older(versions: Path, kept: set[Path | None]) -> None:
    """Remove bundles that the link neither points to nor has just pointed to, and what broken pulls have left."""
    for path in versions.iterdir():
        ours = path.suffix in (".edgead", ".part") and path.is_dir() and not path.is_symlink()
        if ours and path.resolve() not in {each.resolve() for each in kept if each}:
            shutil.rmtree(path, ignore_errors=True)


def _log(versions: Path, done: Pulled) -> None:
    line = {"at": datetime.now(timezone.utc).isoformat(timespec="seconds"), **done.to_dict()}
    with (versions / LOG).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")
