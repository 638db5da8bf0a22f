"""`edgead predict`: verdicts on images and archives."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import click

from edgead.cli.options import PATH, decision_options, force_option, json_option
from edgead.cli.output import emit, show_result, takes_output, terminal
from edgead.cli.visible import check_visible_secrets
from edgead.console import Console
from edgead.errors import SinkError
from edgead.terminal import is_screen


@click.command()
@click.argument("bundle", type=PATH)
@click.argument("paths", nargs=-1, required=True, type=PATH)
@click.option(
    "--save",
    type=PATH,
    help="Folder for overlays (heat map and mask outline) and, if the model has them, reconstructions.",
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Score an archive with Ray on this machine (local) or on a cluster (HOST:PORT); needs --out.",
)
@click.option("--out", type=PATH, help="With --ray: Parquet file, one row per image.")
@force_option
@decision_options
@json_option
def predict(
    bundle: Path,
    paths: tuple[Path, ...],
    save: Path | None,
    ray: str | None,
    out: Path | None,
    force: bool,
    as_json: bool,
    sinks: tuple[str, ...],
    batch: int,
    **options: Any,
) -> None:
    """Inspect images, and folders with their subfolders.

    Results are printed unless --sink sends them elsewhere.
    """
    if ray is not None or out is not None:
        if ray is None or out is None or save is not None or sinks:
            raise click.UsageError("--ray and --out must be used together, and without --save and --sink.")
        _predict_archive(bundle, paths, out, ray, force, as_json, batch=batch, **options)
        return
    from edgead.files import refuse_existing
    from edgead.runtime.inspector import load
    from edgead.runtime.ledger import Ledger
    from edgead.runtime.predict import collect_images
    from edgead.runtime.predict import predict as decide
    from edgead.runtime.speed import describe_speed

    ledger, console = Ledger(), terminal()
    check_visible_secrets(console)
    images = collect_images(paths)
    if images.left_out:
        console.say(images.left_out)
    refuse_existing((save / name for _, name in images.images) if save else (), force)
    printed = not (as_json or sinks)
    drawn = Console() if printed and is_screen(sys.stdout) else console  # the results' lines show the progress
    with (
        load(bundle, batch=batch, console=console, **options) as inspector,
        drawn.bar("inspecting", len(images)) as step,
    ):
        results: list[Any] = []
        odd: defaultdict[str, list[str]] = defaultdict(list)
        lost: SinkError | None = None
        try:
            for result in decide(
                inspector,
                images,
                save,
                batch=batch,
                sinks=sinks,
                notice=lambda headline, line: odd[headline].append(line),
            ):
                ledger.enter(result.source_id)
                ledger.count(result)
                if as_json:
                    results.append(result.to_dict())
                step("")
                if printed:
                    show_result(result)
        except SinkError as error:  # comes behind the last result; what was decided is still told
            lost = error
    for headline, lines in odd.items():
        console.say(f"Warning: {headline} ({len(lines)} of {len(images)} images). The first is {lines[0]}")
    summary = {"bundle": str(bundle), **ledger.snapshot(), "speed_ms": ledger.speed_ms()}
    if as_json:
        value = {**summary, "left_out": images.left_out, "results": results}
        click.echo(json.dumps(value, indent=2), err=takes_output(sinks))
    else:
        counts = f"{ledger.passed} PASS, {ledger.failed} FAIL, {ledger.unknown} UNKNOWN"
        console.say(f"{counts}; threshold {inspector.threshold:.6g}")
    console.say(describe_speed(ledger.speed_ms()))
    if lost is not None:
        raise lost


def _predict_archive(
    bundle: Path,
    paths: tuple[Path, ...],
    out: Path,
    ray: str,
    force: bool,
    as_json: bool,
    *,
    shapes: tuple[str, ...],
    **options: Any,
) -> None:
    from edgead.archive import Scorer
    from edgead.archive.score_archive import score_archive
    from edgead.files import refuse_existing

    if "contours" in shapes:
        raise click.UsageError("--contours does not work with --ray; --boxes does.")
    if out.suffix.lower() not in ("", ".parquet", ".pq"):
        raise click.UsageError(f"--out writes a Parquet file. Name it {out.with_suffix('.parquet').name}.")
    refuse_existing([out], force)
    scorer = Scorer(bundle.resolve(), boxes="boxes" in shapes, **options)
    scored = score_archive(scorer, paths, out, ray=ray, console=terminal())
    if scored.left_out:
        terminal().say(scored.left_out)
    if scored.untrained:
        terminal().say(
            f"Warning: {scored.untrained} of {scored.images} images have another shape than the training images, or "
            "too few pixels: the column untrained says which."
        )
    counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(scored.verdicts.items()))
    value = {"out": str(out), "images": scored.images, **dataclasses.asdict(scored)}
    emit(value, as_json, f"{out}: {scored.images} rows, {counts}")
