"""Options that several verbs share, and checks of what was given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from edgead.runtime.engine_table import ENGINES

F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")(
        function
    )


def force_option(function: F) -> F:
    return click.option("--force", is_flag=True, help="Replace results that are there already.")(function)


def runtime_options(function: F) -> F:
    text = "Scores above it fail; fpr:0.001 lets that share of good parts fail. [default: the bundle's]"
    function = click.option("--threshold", help=text)(function)
    return engine_option(function)


def engine_option(function: F) -> F:
    return click.option("--engine", default="auto", show_default=True, help=f"{', '.join(ENGINES)}.")(function)


_PRECISION_OPTIONS = (
    click.option(
        "--precision",
        default="fp32",
        show_default=True,
        help="fp32, fp16, int8, int8-fp16 (the rest in float16), or auto: the fastest here that passes the gate.",
    ),
    click.option("--calib-samples", default=128, show_default=True, help="Good images that INT8 is scaled on."),
    click.option("--calib-method", default="minmax", show_default=True, help="minmax, entropy or percentile."),
    click.option("--calib-data", type=PATH, help="Good images to scale INT8 on. [default: those at hand]"),
    click.option("--max-auroc-drop", default=0.005, show_default=True, help="AUROC and AUPRO that precision may cost."),
    click.option("--max-flips", default=0.001, show_default=True, help="Share of verdicts that precision may change."),
)


OF_LOWER_PRECISION = ("calib_samples", "calib_method", "calib_data", "max_auroc_drop", "max_flips")


def precision_options(command: F) -> F:
    """Give a verb the options on precision; they are listed in the order above."""
    for option in reversed(_PRECISION_OPTIONS):
        command = option(command)
    return command


def refuse_given(when: str, *names: str) -> None:
    """Refuse options that would be ignored."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        if name in names and context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{parameter.opts[0]} means nothing {when}.")


def check_method(run: Path, method: str) -> None:
    """Refuse another method than a run's, where the command line names both."""
    from edgead.train.checkpoint import load_run_config

    given = click.get_current_context().get_parameter_source("method") is click.core.ParameterSource.COMMANDLINE
    if given and (own := load_run_config(run).method) != method:
        raise click.UsageError(f"{run} is a run of {own}, not of {method}.")
