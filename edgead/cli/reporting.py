"""`edgead report`."""

from __future__ import annotations

from pathlib import Path

import click

from edgead.cli.options import PATH, json_option, trust_option
from edgead.cli.output import emit


@click.command()
@click.argument("paths", nargs=-1, required=True, type=PATH)
@click.option("--out", type=PATH, help="File of a comparison's page. [default: report.html]")
@click.option("--open", "open_page", is_flag=True, help="Show the page in the browser.")
@trust_option
@json_option
def report(paths: tuple[Path, ...], out: Path | None, open_page: bool, as_json: bool) -> None:
    """Build an HTML page of results, or compare several.

    PATHS is a run, a bundle, a benchmark or a sweep, or several results.json files.

    \b
    edgead report runs/train/bottle               losses, threshold, pictures
    edgead report bottle.edgead                   parity, precision gate, timings
    edgead report a/results.json b/results.json   latency against AUROC, with filters
    """
    from edgead.reports.build import report as build

    page = build(paths, out=out, open_page=open_page)
    emit({"page": str(page)}, as_json, str(page))
