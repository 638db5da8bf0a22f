"""`edgead sweep`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgead import schema
from edgead.cli.options import PATH, json_option
from edgead.cli.output import emit, terminal

if TYPE_CHECKING:
    from edgead.sweep.run_sweep import Planned


@click.command()
@click.argument("file", type=PATH)
@click.option("--out", type=PATH, help="Folder of all cells and results. [default: runs/sweep/NAME of the file]")
@click.option(
    "--ray",
    default="local",
    show_default=True,
    metavar="ADDRESS",
    help="HOST:PORT of a Ray cluster; all its machines must share the folder --out.",
)
@click.option("--list", "only_list", is_flag=True, help="Show the cells and their state; run nothing.")
@click.option("--retry-failed", is_flag=True, help="Run failed cells again.")
@json_option
def sweep(file: Path, out: Path | None, ray: str, only_list: bool, retry_failed: bool, as_json: bool) -> None:
    """Train, export and benchmark all combinations in a file.

    FILE is a TOML file with methods, categories, seeds and precisions. A finished cell is never run again. Stop any
    time; the same command resumes. See docs/sweep.md.
    """
    from edgead.sweep.run_sweep import plan
    from edgead.sweep.run_sweep import sweep as run

    if only_list:
        planned = plan(file, out)
        listed = [
            {"key": each.cell.key, "title": each.cell.title, "precision": each.precision}
            | {"state": each.state, "seconds": each.seconds}
            for each in planned
        ]
        emit(listed, as_json, _planned_table(planned))
        return
    found = run(file, out=out, ray=ray, retry_failed=retry_failed, console=terminal())
    value = {"folder": str(found.folder), "rows": schema.write(found.rows)}
    emit(value, as_json, f"{found.table}\n\nResults: {found.folder}")


def _planned_table(planned: Sequence[Planned]) -> str:
    lines = []
    for each in planned:
        time = "time unknown" if each.seconds is None else str(timedelta(seconds=round(each.seconds)))
        lines.append(f"{each.state.value:<8} {each.cell.key}  {time:<14} {each.cell.title}, {each.precision}")
    return "\n".join(lines)
