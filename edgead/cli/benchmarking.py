"""`edgead benchmark`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from edgead.cli.options import PATH, NumberRange, complete_engine, force_option, json_option, trust_option
from edgead.cli.output import emit, terminal
from edgead.redaction import redact
from edgead.runtime.engine_table import ENGINES


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=PATH)
@click.option("--data", required=True, type=PATH, help="Labelled test images: a category, or a folder of categories.")
@click.option(
    "--rounds",
    type=click.IntRange(1, 100_000),
    default=100,
    show_default=True,
    help="Largest number of timed calls per bundle.",
)
@click.option(
    "--seconds", type=NumberRange(0, min_open=True), help="Time limit in seconds for the timing of all bundles."
)
@click.option(
    "--throughput",
    is_flag=True,
    help="Also measure frames per second with several sources and with several frames per inference.",
)
@click.option("--mlperf", is_flag=True, help="Time each bundle for a minute by MLPerf's single-stream rule.")
@click.option("--quick", is_flag=True, help="Leave out floor, memory and the time to the first result.")
@click.option(
    "--pixel-size",
    type=click.IntRange(32, 4096),
    default=256,
    show_default=True,
    help="Side of maps and masks in pixel metrics, in pixels.",
)
@click.option("--out", type=PATH, help="Folder of the report. [default: runs/benchmark/TIME]")
@force_option
@click.option(
    "--engine",
    multiple=True,
    default=("auto",),
    show_default=True,
    shell_complete=complete_engine,
    help=f"Inference engine: {', '.join(ENGINES)}. Repeatable: one row per bundle and engine.",
)
@trust_option
@json_option
def benchmark(bundles: tuple[Path, ...], data: Path, as_json: bool, **options: Any) -> None:
    """Measure latency and accuracy of bundles on labelled images.

    Prints tables and writes results.json, results.csv and report.html. If a bundle or engine fails, its row
    shows the reason, the others are still measured, and the exit code is not 0.
    """
    from edgead.benchmark import benchmark as measure
    from edgead.benchmark import to_table

    report = measure(bundles, data, command=["edgead", *map(redact, sys.argv[1:])], console=terminal(), **options)
    table = to_table(report.table, report.failed or ())
    emit(report.to_dict(), as_json, f"{table}\n\nReport: {report.page}")
    click.get_current_context().exit(report.exit_code)
