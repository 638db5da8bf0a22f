"""What the verbs print."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from edgead.console import Console, Terminal
from edgead.redaction import printable, redact
from edgead.table import Table
from edgead.terminal import echo, open_screen

if TYPE_CHECKING:
    from edgead.bundle import Bundle
    from edgead.line.part_ledger import PartFigures
    from edgead.runtime.engine_validation import EngineValidation
    from edgead.runtime.ledger import Figures
    from edgead.runtime.result import Result


QUIET = "edgead.quiet"
"""Key in the context's `meta`: only results and errors are printed."""
COLOURS = {"PASS": "green", "FAIL": "red", "UNKNOWN": "yellow"}


def terminal() -> Console:
    """Return the console of the running verb: silent with --quiet."""
    return Console() if click.get_current_context().meta.get(QUIET) else Terminal()


def emit(value: Any, as_json: bool, *parts: str | Table) -> None:
    """Print a verb's result on standard output: JSON, or texts and tables for people."""
    if as_json:
        click.echo(json.dumps(value, indent=2))
        return
    for part in parts:
        if not (isinstance(part, Table) and _draw(part)):
            click.echo("\n".join(map(printable, str(part).split("\n"))))


def takes_output(sinks: Sequence[str]) -> bool:
    """Return whether standard output belongs to a sink, so that anything else goes to standard error."""
    return any(sink.endswith(":-") for sink in sinks)


def _draw(table: Table) -> bool:
    """Draw a table with rich; return False where it cannot be drawn, or is wider than the screen."""
    screen = open_screen(sys.stdout)
    if screen is None or table.width + 2 > screen.width:
        return False
    from rich import box
    from rich.table import Table as Drawn

    drawn = Drawn(*map(printable, table.head), box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for row in table.rows:
        drawn.add_row(*map(printable, row))
    screen.print(drawn)
    return True


def validate_here(bundle: Bundle, engine: str, batch: int = 1) -> EngineValidation:
    from edgead.runtime.engine_validation import validate_engine
    from edgead.runtime.golden import require_agreement

    console = terminal()
    validation = validate_engine(bundle, engine, batch=batch, console=console)
    console.say(validation.describe())
    require_agreement(validation.golden, validation.engine)
    return validation


def show_result(result: Result) -> None:
    """Print one line about a result, with the verdict in colour where colours are wanted."""
    verdict = result.verdict.value
    echo(click.style(f"{verdict:<8}", COLOURS[verdict]) + result_line(result)[8:])


def result_line(result: Result) -> str:
    from edgead.runtime.result import place_of

    scored = math.isfinite(result.score)
    score = f"{result.score:.6g}" if scored else "-"
    where = click.format_filename(result.path) if result.path else place_of(result.source_id, result.frame_id)
    where = f"{result.part_id}  {where}" if result.part_id else where
    reason = f"  ({redact(result.reason)})".replace("\n", " ") if result.verdict.value == "UNKNOWN" else ""
    return printable(f"{result.verdict.value:<8}{score:<12}{where}{reason}")


def by_cause(counts: dict[str, int]) -> str:
    return f" ({', '.join(f'{cause} {count}' for cause, count in counts.items())})" if counts else ""


def parts_line(figures: PartFigures) -> str:
    bounced = f"; bounced {figures['bounced']}" if figures["bounced"] else ""
    return (
        f"parts {figures['triggered']} = passed {figures['passed']} + failed {figures['failed']} "
        f"+ unknown {figures['unknown']}{by_cause(figures['unknown_by_cause'])}{bounced}"
    )


def ledger_line(summary: Figures) -> str:
    line = (
        f"captured {summary['captured']} = passed {summary['passed']} + failed {summary['failed']} "
        f"+ unknown {summary['unknown']}{by_cause(summary['unknown_by_cause'])} "
        f"+ dropped {summary['dropped']}{by_cause(summary['dropped_by_cause'])}"
    )
    if summary["reported_by_cause"]:
        line += f"; reported{by_cause(summary['reported_by_cause'])}"
    return line
