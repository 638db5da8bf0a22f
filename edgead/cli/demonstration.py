"""`edgead demo`."""

from __future__ import annotations

from pathlib import Path

import click

from edgead.cli.options import PATH, json_option
from edgead.cli.output import emit, terminal


@click.command()
@click.option("--out", type=PATH, help="Folder for all results. [default: runs/demo/TIME]")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Random seed.")
@json_option
def demo(out: Path | None, seed: int, as_json: bool) -> None:
    """Try all steps on drawn sample parts.

    Trains, exports in float32 and INT8, inspects, and compares both on every engine. Takes a few minutes on two cores.
    """
    from edgead.demo import run_demo

    outcome = run_demo(out, seed, terminal())
    emit(outcome.to_dict(), as_json, outcome.comparison, outcome.summary)
