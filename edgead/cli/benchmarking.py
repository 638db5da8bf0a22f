"""`edgead benchmark`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edgead.cli.options import PATH, engine_option, force_option, json_option
from edgead.cli.output import emit, terminal
from edgead.redaction import redact


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=PATH)
@click.option("--data", required=True, type=PATH, help="Labelled test images: a category, or a folder of categories.")
@click.option(
    "--rounds", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Timed calls per bundle."
)
@click.option(
    "--pixel-size",
    type=click.IntRange(32, 4096),
    default=256,
    show_default=True,
    help="Side of maps and masks in pixel metrics, in pixels.",
)
@click.option("--out", type=PATH, help="Folder of the report. [default: runs/benchmark/TIME]")
@force_option
@engine_option
@json_option
def benchmark(
    bundles: tuple[Path, ...],
    data: Path,
    rounds: int,
    pixel_size: int,
    out: Path | None,
    force: bool,
    engine: str,
    as_json: bool,
) -> None:
    """Measure latency and accuracy of bundles on labelled images.

    Prints a table and writes results.json, results.csv and report.html.
    """
    from edgead.benchmark import benchmark as measure
    from edgead.benchmark import to_table

    report = measure(
        bundles,
        data,
        engine=engine,
        rounds=rounds,
        pixel_size=pixel_size,
        out=out,
        force=force,
        command=["edgead", *map(redact, sys.argv[1:])],
        console=terminal(),
    )
    emit(report.to_dict(), as_json, f"{to_table(report.table)}\n\nReport: {report.page}")
