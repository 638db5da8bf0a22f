"""From a folder on a server to the bundle that decides, and back where it fails."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

from edgead.bundle import MANIFEST, Bundle, parse_manifest, read_bundle, read_manifest
from edgead.bundle.manifest import Manifest
from edgead.console import Console
from edgead.errors import BundleError, ConfigError, PullError, RolledBackError, first_line
from edgead.files import file_lock, sha256
from edgead.pull.download import Folder
from edgead.pull.on_the_line import hand_over
from edgead.pull.place import VERSIONS, Pulled, check_link, find_failure, point, remove_older, to_disk, write_log
from edgead.pull.watch import RunningLine
from edgead.runtime.engines.opening import open_engine
from edgead.runtime.golden import check_golden, require_agreement
from edgead.schema import LARGEST_JSON
from edgead.signatures.trust import SIGNATURE, SIGNATURE_BYTES, Trust, read_trust
from edgead.text import typed

MAX_SIZE = 4096
"""Default of the most MB of all files."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


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
        force: also take an older bundle, one of another category, and one that has failed on the line before.
        pid: process of the line, or a file with its number; empty if none runs.
        metrics, metrics_token: see `edgead.runtime.run.run`; of the line.
        watch_minutes: how long the line is watched.
        max_change: largest growth of its shares of FAIL and UNKNOWN.
        console: shows the steps.

    Raises:
        PullError: it cannot be fetched or put in place; or it failed on the line and the link cannot be set back, which
            the text says.
        BundleError: not signed by a trusted key, or damaged.
        ConfigError: no trusted key, a line that cannot be watched, or a number outside its limits.
        DeviceError: the golden frames fail here. The link is unchanged after this and the other errors above.
        RolledBackError: it failed on the line, now or in an earlier pull. The link points to the one before.
    """
    console, link = console or Console(), Path(to)
    trusted = read_trust(trust)
    if trusted is None:
        raise ConfigError("Only signed bundles are pulled. Name the key of their maker:  --trust FILE.pub")
    if not (0 < watch_minutes < math.inf and 0 <= max_change <= 1):  # NaN would take any bundle
        raise ConfigError(
            f"watch_minutes must be above 0, not {watch_minutes:g}, and max_change from 0 to 1, not {max_change:g}."
        )
    if bool(pid) != bool(metrics):
        raise ConfigError("--pid and --metrics go together: pull watches the line that it signals.")
    line = RunningLine(pid, metrics, metrics_token) if pid else None
    if line and line.look() is None:
        raise PullError(f"No line answers on {metrics}. Start it with --metrics {metrics}, or leave out --pid.")
    check_link(link)
    versions = link.absolute().with_name(link.name + VERSIONS)
    source = Folder(url, token=token, ca=None if ca is None else Path(ca), limit=max_size << 20, say=console.say)
    try:
        versions.mkdir(parents=True, exist_ok=True)
        with file_lock(versions / ".lock", lambda: console.say("Another pull is running. Waiting for it.")):
            done = _bring(source, link, versions, trusted, trust, engine, force, console)
            if line and not done.switched:
                done = _begin_again(done, line, versions, console)
            if done.switched and line:
                done = hand_over(done, line, link, watch_minutes * 60, max_change, console)
            elif not line and done.switched:
                console.say("No line was told: reload or restart the one that uses it.")
            write_log(versions, done, console)
    except OSError as error:
        raise PullError(f"{error.filename or versions} cannot be written: {error.strerror or error}.") from error
    if done.line and done.line.failed:
        if done.switched:
            by_hand = f"ln -sfn {typed(done.before)} {typed(link)}" if done.before else f"rm {typed(link)}"
            raise PullError(
                f"{done.bundle} failed on the line: {done.line.failed}.\n"
                f"{link} still points to it. Set it back by hand, and reload the line:  {by_hand}"
            )
        raise RolledBackError(
            f"{done.bundle} failed on the line: {done.line.failed}.\n"
            + (f"{done.before} is in its place again." if done.before else "There was none before it.")
        )
    return done


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
    there = target.exists() and _is_whole(target, trust, console)
    if there and before == target.resolve():
        console.say(f"{manifest.name} is in place already.")
        return done
    if not force:
        if failure := find_failure(versions, manifest.digest):
            raise RolledBackError(
                f"{manifest.name} failed on the line, {failure}.\n"
                "It is not taken again before the server has another one. To take it all the same, add --force."
            )
        if before:
            _refuse_unlike(manifest, before)
    if not there:
        part = versions / f".{manifest.digest[:16]}.part"
        _fetch(source, manifest, part, console)
        (part / MANIFEST).write_bytes(content)
        (part / SIGNATURE).write_bytes(signature)
        _keep_verified(part, target, trust)
    name, agreement = _run_golden_frames(read_bundle(target, trust), engine, console)
    console.say(f"{manifest.name}: golden frames on {name}: {agreement}")
    point(link, target)
    remove_older(versions, {target, before})
    return dataclasses.replace(
        done,
        received=source.received,
        resumed=source.resumed,
        engine=name,
        agreement=agreement,
        switched=True,
    )


def _keep_verified(part: Path, target: Path, trust: Sequence[str | Path] | None) -> None:
    """Move a fetched bundle to its place, or delete it if it is damaged."""
    try:
        read_bundle(part, trust)
    except BundleError:
        shutil.rmtree(part)
        raise
    to_disk(part)
    if target.exists():  # damaged; only an empty folder can be replaced in one step
        os.replace(target, target.with_name(f".{target.stem}.damaged.part"))  # `remove_older` removes it
    os.replace(part, target)


def _run_golden_frames(bundle: Bundle, engine: str, console: Console) -> tuple[str, str]:
    """Return the engine, and in words how the golden frames agree on it.

    Raises:
        DeviceError: they do not agree.
    """
    with closing(open_engine(engine, bundle, console=console)) as runner:
        agreement = check_golden(bundle, runner)
        require_agreement(agreement, runner.name)
        return runner.name, agreement.describe()


def _is_whole(bundle: Path, trust: Sequence[str | Path] | None, console: Console) -> bool:
    """Tell whether a stored bundle still is what was signed; if not, say why."""
    try:
        read_bundle(bundle, trust)
    except BundleError as error:
        console.say(f"{bundle} is fetched again: {first_line(error)}")
        return False
    return True


def _begin_again(done: Pulled, line: RunningLine, versions: Path, console: Console) -> Pulled:
    """Hand a bundle over that is in place and that the line has not taken: an earlier pull was killed before it did."""
    seen = line.look()
    if seen is None or seen.digest == done.digest:
        return done
    console.say(f"The line does not decide by {done.bundle} yet.")
    before = next((path for path in versions.glob("*.edgead") if _digest_of(path) == seen.digest), Path(done.path))
    return dataclasses.replace(done, before=str(before), switched=True)


def _digest_of(bundle: Path) -> str:
    try:
        return read_manifest(bundle).digest
    except BundleError:
        return ""


def _refuse_unlike(manifest: Manifest, before: Path) -> None:
    """Refuse a signed bundle that an attacker may send again: an older one, or one of another product."""
    try:
        old = read_manifest(before)
    except BundleError:
        return  # there is nothing to be worse than
    if manifest.category != old.category:
        raise PullError(
            f"{manifest.name} is for '{manifest.category}', but the bundle in its place is for '{old.category}'.\n"
            "Pull it to another link, or replace it with --force."
        )
    made, made_before = _made(manifest), _made(old)
    if made < made_before:
        raise PullError(
            f"{manifest.name} was made {made.isoformat()}, before the one in its place ({made_before.isoformat()}).\n"
            "Go back to it with --force."
        )


def _made(manifest: Manifest) -> datetime:
    """Return when a bundle was made: when it was exported, or its threshold was changed for the last time."""
    texts = [manifest.created, *(change.at for change in manifest.changes or ())]
    try:
        moments = [datetime.fromisoformat(text.replace("Z", "+00:00")) for text in texts]
    except ValueError as error:
        raise PullError(f"The manifest of {manifest.name} has an invalid time: {', '.join(texts)}.") from error
    return max(moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc) for moment in moments)


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
