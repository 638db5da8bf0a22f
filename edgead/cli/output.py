"""What the verbs print."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import click

from edgead.console import Terminal
from edgead.redaction import printable, redact

if TYPE_CHECKING:
    from edgead.bundle import Bundle
    from edgead.runtime.engine_validation import EngineValidation
    from edgead.runtime.ledger import Figures
    from edgead.runtime.result import Result


def emit(value: Any, as_json: bool, text: str) -> None:
    click.echo(json.dumps(value, indent=2) if as_json else "\n".join(map(printable, text.split("\n"))))


def validate_here(bundle: Bundle, engine: str, batch: int = 1) -> EngineValidation:
    from edgead.runtime.engine_validation import validate_engine
    from edgead.runtime.golden import require_agreement

    console = Terminal()
    validation = validate_engine(bundle, engine, batch=batch, console=console)
    console.say(validation.describe())
    require_agreement(validation.golden, validation.engine)
    return validation


def result_line(result: Result) -> str:
    from edgead.runtime.result import place_of

    scored = math.isfinite(result.score)
    score = f"{result.score:.6g}" if scored else "-"
    where = click.format_filename(result.path) if result.path else place_of(result.source_id, result.frame_id)
    reason = "" if scored else f"  ({redact(result.reason)})"
    return printable(f"{result.verdict.value:<8}{score:<12}{where}{reason}")


def ledger_line(summary: Figures) -> str:
    def by_cause(counts: dict[str, int]) -> str:
        return f" ({', '.join(f'{cause} {count}' for cause, count in counts.items())})" if counts else ""

    line = (
        f"captured {summary['captured']} = passed {summary['passed']} + failed {summary['failed']} "
        f"+ unknown {summary['unknown']}{by_cause(summary['unknown_by_cause'])} "
        f"+ dropped {summary['dropped']}{by_cause(summary['dropped_by_cause'])}"
    )
    if summary["reported_by_cause"]:
        line += f"; reported{by_cause(summary['reported_by_cause'])}"
    return line
