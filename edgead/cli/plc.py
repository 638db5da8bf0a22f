"""`edgead plc`: the other end of a PLC output."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from edgead.cli.options import NumberRange, json_option
from edgead.cli.output import COLOURS, emit, terminal
from edgead.errors import INTERRUPTED
from edgead.redaction import printable

if TYPE_CHECKING:
    from edgead.line.outputs.register_map import Snapshot


@click.command()
@click.argument("action", type=click.Choice(["simulate", "registers"]))
@click.argument("uri", required=False)
@click.option("--ack/--no-ack", "acknowledge", default=True, help="Acknowledge each result, or none. [default: --ack]")
@click.option(
    "--delay", type=NumberRange(0, 60_000), default=0.0, help="Milliseconds from a result to its acknowledgement."
)
@click.option("--results", type=click.IntRange(0), default=0, help="End after this number of results. [default: never]")
@json_option
def plc(action: str, uri: str | None, acknowledge: bool, delay: float, results: int, as_json: bool) -> None:
    """Simulate a PLC, or print the register map.

    URI is the URI of the sink, as in `edgead run --sink URI`. See docs/plc.md.

    \b
    edgead plc registers
    edgead plc simulate modbus-server:127.0.0.1:5020      polls edgead
    edgead plc simulate modbus://127.0.0.1:5020           edgead polls and writes it
    edgead plc simulate opcua:127.0.0.1:4840              reads edgead's variables
    """
    from edgead.line.outputs import register_map

    if action == "registers":
        if uri:
            raise click.UsageError("registers takes no URI.")
        from edgead.table import Table

        every = [*register_map.REGISTERS, register_map.ACKNOWLEDGE]
        rows = [[str(one.address), one.name, one.kind, str(one.words), one.meaning] for one in every]
        emit([vars(one) for one in every], as_json, Table(["register", "name", "type", "words", "meaning"], rows))
        return
    if not uri:
        raise click.UsageError("simulate needs the URI of the sink, for instance modbus-server:127.0.0.1:5020.")
    from edgead.line.outputs.simulate import PlcProgram, open_plc, simulate

    def show(snapshot: Snapshot) -> None:
        told = register_map.describe(snapshot)
        if as_json:
            click.echo(json.dumps({name: _finite(value) for name, value in told.items()}))
            return
        verdict = str(told["verdict"])
        cause = f"  ({told['cause']})" if told["cause"] else ""
        line = f"{snapshot.sequence:<7}{snapshot.part_id}  {snapshot.recipe}  score {snapshot.score:.6g}{cause}"
        click.echo(click.style(f"{verdict:<8}", COLOURS[verdict]) + printable(line))

    console, program, opened = terminal(), PlcProgram(), open_plc(uri)
    try:
        simulate(
            opened,
            show,
            acknowledge=acknowledge,
            delay=delay / 1e3,
            results=results,
            say=console.say,
            program=program,
        )
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        console.say(f"{program.missed} results were missed.")
        opened.close()


def _finite(value: object) -> object:
    """Return a value that JSON can hold."""
    return None if isinstance(value, float) and not abs(value) < float("inf") else value
