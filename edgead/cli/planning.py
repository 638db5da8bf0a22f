"""`edgead plan`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import click

from edgead.cli.options import PATH, NumberRange, complete_engine, force_option, json_option, trust_option
from edgead.cli.output import emit, terminal
from edgead.errors import UNMET


class _Duration(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """``20ms`` or ``0.02s``, as milliseconds. A number without a unit is refused: it could be either."""

    name = "time"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s)", value) if isinstance(value, str) else None
        if found is None or not float(found[1]):
            self.fail(f"'{value}' is not a time above 0 with a unit, for instance 20ms or 0.02s.", parameter, context)
        return float(found[1]) * (1e3 if found[2] == "s" else 1)


class _Size(click.ParamType):  # type: ignore[type-arg]
    """``1280x720``, width first as cameras have it, as (height, width)."""

    name = "size"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", str(value))
        if found is None:
            self.fail(f"'{value}' is not a size, for instance 1280x720 (width x height).", parameter, context)
        return int(found[2]), int(found[1])


@click.command()
@click.option("--cameras", required=True, type=click.IntRange(1, 64), help="Number of cameras.")
@click.option("--fps", required=True, type=NumberRange(0.001, 10_000), help="Frames per second of each camera.")
@click.option(
    "--deadline",
    required=True,
    type=_Duration(),
    help="Time allowed from a frame to its verdict, with its unit: 20ms, 0.02s.",
)
@click.option(
    "--bundle",
    "bundles",
    multiple=True,
    type=PATH,
    help="Bundle to measure, or to take from --profile. Repeatable.",
)
@click.option(
    "--engine",
    "engines",
    multiple=True,
    help="Inference engine. Repeatable. [default: all that run here]",
    shell_complete=complete_engine,
)
@click.option("--profile", type=PATH, help="Plan from this stored profile, for instance of another machine.")
@click.option("--save-profile", type=PATH, help="Store the measurements in this file.")
@click.option("--frame-size", type=_Size(), help="Size of the cameras' frames, in pixels. [default: 1280x720]")
@click.option("--synchronous", is_flag=True, help="All cameras are triggered at the same moment.")
@force_option
@trust_option
@json_option
def plan(bundles: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Find out which bundle and engine keep up with your cameras.

    Measures each bundle on each engine for a few seconds, forecasts the stream, and lists what meets these
    requirements, or what comes nearest and what would have to change. Exit code 5: nothing meets them.
    """
    from edgead.plan import plan as make

    found = make(bundles, console=terminal(), **options)
    emit(found.to_dict(), as_json, found.table, f"\n{found.describe()}")
    if not found.met:
        sys.exit(UNMET)
