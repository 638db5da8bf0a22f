"""`edgead review`: people's marks of rejects, and the thresholds that follow from them."""

from __future__ import annotations

import dataclasses
import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgead.cli.options import PATH, engine_option, force_option, json_option, refuse_given
from edgead.cli.output import emit, terminal
from edgead.table import Table
from edgead.text import typed

if TYPE_CHECKING:
    from edgead.review.proposal import Review
    from edgead.review.saved import SavedReject

SHOWN = 20
"""Unmarked rejects that are listed; --json lists all."""


@click.command()
@click.argument("paths", nargs=-1, required=True, type=PATH)
@click.option(
    "--as",
    "mark",
    type=click.Choice(["false-reject", "real-defect", "unsure"]),
    help="Mark the rejects that PATHS belong to.",
)
@click.option("--bundle", type=PATH, help="Review the threshold of this bundle with the marked rejects of PATHS.")
@click.option("--threshold", help="With --bundle: judge this threshold, a score or fpr:SHARE. [default: propose one]")
@click.option("--write", "out", type=PATH, help="With --bundle: write a version with that threshold to this folder.")
@click.option("--marks", type=PATH, help="Folder of the marks. [default: marks in the folder of the rejects]")
@click.option("--by", help="Who marks or writes, for the audit log. [default: the user of this machine]")
@click.option("--why", default="", help="Reason, for the audit log.")
@engine_option
@force_option
@json_option
def review(
    paths: tuple[Path, ...],
    mark: str | None,
    bundle: Path | None,
    threshold: str | None,
    out: Path | None,
    marks: Path | None,
    by: str | None,
    why: str,
    engine: str,
    force: bool,
    as_json: bool,
) -> None:
    """Mark rejects and propose a threshold from the marks.

    PATHS is the folder of a sink rejects:DIR, or with --as files in it. See docs/thresholds.md.

    \b
    edgead review rejects/                                     list marks and unmarked rejects
    edgead review rejects/2026….png --as false-reject          mark: false-reject, real-defect or unsure
    edgead review rejects/ --bundle B                          what other thresholds would have done
    edgead review rejects/ --bundle B --write B2.edgead        write the proposed one as a new version
    """
    who = _user() if by is None else by
    if mark is not None:
        from edgead.review.saved import mark_files

        refuse_given("with --as", "bundle", "threshold", "out", "engine", "force")
        done = mark_files(paths, mark.replace("-", " "), by=who, why=why, marks=marks)
        names = [str(one.picture) for one in done]
        emit({"marked": names, "mark": mark, "by": who}, as_json, f"{len(names)} marked as {mark.replace('-', ' ')}")
        return
    if len(paths) > 1:
        raise click.UsageError("Name one folder; several PATHS are for --as.")
    if bundle is None:
        refuse_given("without --bundle", "threshold", "out", "engine", "force")
        refuse_given("without --as or --write", "by", "why")
        _list(paths[0], marks, as_json)
        return
    if out is None:
        refuse_given("without --write", "by", "why", "force")
    _review(paths[0], bundle, threshold, out, marks, who, why, engine, force, as_json)


def _list(folder: Path, marks: Path | None, as_json: bool) -> None:
    from edgead.marks import FOLDERS, Marks, marks_folder
    from edgead.review.saved import saved_rejects

    kept = Marks(marks_folder(folder, marks))
    rejects, known = saved_rejects(folder, kept), list(kept.all().values())
    counts = {mark: sum(one.mark == mark for one in known) for mark in FOLDERS}
    open_ones = [one for one in rejects if one.mark is None]
    value = {
        "marks_folder": str(kept.folder),
        "counts": counts,
        "marks": [dataclasses.asdict(one) for one in known],
        "unmarked": [{"picture": str(one.picture), "result": one.result} for one in open_ones],
    }
    shown = open_ones[-SHOWN:]
    older = len(open_ones) - len(shown)
    head = f"{_counted(counts)}; {len(open_ones)} rejects are not marked" + (f", the newest {SHOWN}:" * (older > 0))
    table = Table(("not marked", "score", "threshold", "bundle"), [_row(one) for one in shown])
    emit(value, as_json, head, *([table] if shown else []))


def _row(one: SavedReject) -> tuple[str, ...]:
    result = one.result
    figures = (result.get(name) for name in ("score", "threshold"))
    texts = (f"{each:.6g}" if isinstance(each, int | float) else "-" for each in figures)
    return (one.picture.name, *texts, str(result.get("bundle", "")))


def _review(
    folder: Path,
    bundle: Path,
    threshold: str | None,
    out: Path | None,
    marks: Path | None,
    who: str,
    why: str,
    engine: str,
    force: bool,
    as_json: bool,
) -> None:
    from edgead.marks import marks_folder
    from edgead.review.proposal import review as judge
    from edgead.review.version import write_version

    found = judge(folder, bundle, threshold=threshold, marks=marks, engine=engine, console=terminal())
    written = None
    if out is not None:
        if found.proposed is None:
            raise click.UsageError(
                f"There is no proposal to write. {_sentence(found.reason)} Set one with --threshold."
            )
        written = write_version(
            found.bundle,
            out,
            found.proposed,
            marks=marks_folder(folder, marks),
            marked=found.marked,
            by=who,
            why=why,
            force=force,
        )
    value = {name: given for name, given in vars(found).items() if name not in ("bundle", "effects")}
    value |= {"bundle": str(found.bundle.path), "effects": [vars(effect) for effect in found.effects]}
    value |= {"written": None if out is None else str(out), "digest": written.digest if written else None}
    emit(value, as_json, *_texts(found, out))


def _texts(found: Review, out: Path | None) -> list[Any]:
    rows = [
        (
            f"{one.threshold:.6g}",
            one.name,
            *(f"{count} of {total}" for count, total in zip(_failing(one), found.marked.values())),
            "unknown" if one.held_out is None else f"{one.held_out} of {found.bundle.manifest.threshold.normals}",
        )
        for one in found.effects
    ]
    head = ("threshold", "", "false rejects fail", "real defects fail", "unsure fail", "held-out good fail")
    lines = [f"{found.unmarked} saved rejects are not marked; they are not counted."] * bool(found.unmarked)
    lines += [f"Not scored: {text}" for text in found.unread]
    if found.proposed is None:
        lines.append(f"No threshold is proposed. {_sentence(found.reason)}")
    else:
        lines += [f"Proposed: {found.proposed:.6g}, {found.reason}.", f"Promise: {found.promise}.", found.missed]
    lines.append(found.bias)
    if out is not None:
        lines.append(
            f"Written: {out}\n"
            f"Next:  edgead run {typed(found.bundle.path)} --shadow {typed(out)} …   (signal USR1 swaps them)"
        )
    return [Table(head, rows), "\n".join(lines)]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _failing(one: Any) -> tuple[int, int, int]:
    return one.false_rejects, one.real_defects, one.unsure


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} marked {mark}" for mark, count in counts.items())


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container without a name for the user's number
        return ""
