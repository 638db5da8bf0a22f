"""What `edgead run` needs for a line: the file that describes it, its products and parts, and the check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgead.console import Console, log_as_json

if TYPE_CHECKING:
    from edgead.line.line_file import LineFile
    from edgead.runtime.gate import Gate

FILE = "edgead.line"
"""Key in the context's `meta`: the file of the line."""
RULES = ("threshold", "roi", "ignore", "min_area")
"""Options that hold for every product when they are given on the command line."""
NOT_KEPT = ("as_json", "check", "part_rules")
"""What a run's configuration does not hold: how the summary is printed, and rules that it holds as `part`."""


@dataclass(frozen=True)
class Arguments:
    """What the command line says about products and parts; each as the option of its name."""

    bundle: Path | None
    product: str
    triggers: Sequence[str]
    part_rules: Sequence[str]
    control: Sequence[str]


def read_config(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Make what a line's file sets the defaults of the verb's options."""
    if path is not None:
        from edgead.line.line_file import read_line_file

        context.meta[FILE] = line = read_line_file(path)
        context.default_map = {**(context.default_map or {}), **line.options()}


def with_file(name: str, values: Sequence[str]) -> tuple[str, ...]:
    """Return the values of an option behind those that a line's file has for it.

    For options whose values are settings, each of its own: one on the command line must not undo the others of the
    file. Of two of one setting, the last one counts.
    """
    of_file = tuple((click.get_current_context().default_map or {}).get(name, ()))
    return of_file if tuple(values) == of_file else (*of_file, *values)


def set_log(_: click.Context, __: click.Parameter, form: str) -> None:
    """Write messages in the form that is asked for, on the command line or in the file."""
    if form == "json":
        log_as_json()


def line_of_run() -> LineFile:
    """Return the file of the running verb; an empty one if there is none."""
    from edgead.line.line_file import LineFile

    found: LineFile = click.get_current_context().meta.get(FILE) or LineFile()
    return found


def products_of_run(given: Arguments, options: dict[str, Any], console: Console) -> tuple[dict[str, Any], str]:
    """Return the products by name, and the name of the first one. BUNDLE replaces those of the file.

    Says which rules of the file do not hold for BUNDLE.

    Raises:
        UsageError: there is neither.
    """
    import dataclasses

    from edgead.line.products import Product

    line, context = line_of_run(), click.get_current_context()
    typed = {
        name: options[name]
        for name in RULES
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    if given.bundle is not None:
        if given.product:
            raise click.UsageError("--product selects a product of --config. With BUNDLE there is nothing to select.")
        products = line.products.values()
        ruled = (name for name in RULES if any(getattr(one, name) != getattr(Product, name) for one in products))
        if lost := ", ".join(name for name in ruled if name not in typed):
            console.say(f"Warning: {given.bundle} replaces the products of --config. Their rules do not apply: {lost}")
        return {given.bundle.stem: Product(str(given.bundle), **typed)}, ""
    if not line.products:
        raise click.UsageError("Missing argument 'BUNDLE', or products in the file of --config.")
    changed = {name: dataclasses.replace(one, **typed) for name, one in line.products.items()}
    return changed, given.product or line.product


@contextmanager
def open_line(
    given: Arguments, options: dict[str, Any], console: Console
) -> Iterator[tuple[Any, Gate | None, dict[str, Any] | None]]:
    """Open products, channels and triggers, and close them at the end.

    Returns:
        What decides (a bundle, or the open inspector of a product), the gate, and the configuration of a run with a
        file; the last two are None where they are not needed.
    """
    from edgead.line.channels import open_channels
    from edgead.line.line_file import describe
    from edgead.line.part import read_rules
    from edgead.line.parts import Parts
    from edgead.line.products import FreeRun, Products

    line, rules, triggers = line_of_run(), read_rules(given.part_rules), given.triggers
    delays = _delays(line, options)
    _refuse_idle(given, line)

    every = {**click.get_current_context().params, **options}
    kept = {name: value for name, value in every.items() if name not in NOT_KEPT}

    def warn(text: str) -> None:
        console.say(f"Warning: {text}")

    found, kept["product"] = products_of_run(given, options, console)
    if given.bundle is not None:
        if given.control:
            raise click.UsageError("--control changes over between the products of --config; BUNDLE is the only one.")
        gate = Parts(rules, triggers, delays=delays, say=warn) if triggers else None
        yield given.bundle, gate, describe(kept, rules, delays, {}) if line.products or line.cameras else None
        return
    shapes, channels = tuple(options["shapes"]), open_channels(given.control, warn)
    settings: dict[str, Any] = {"engine": options["engine"], "batch": options["batch"], "shapes": shapes}
    try:
        products = Products(found, kept["product"], channels=channels, console=console, **settings)
    except BaseException:
        for channel in channels:
            channel.close()
        raise
    with products:
        own: Gate = FreeRun(products)
        if triggers:
            own = Parts(rules, triggers, delays=delays, products=products, say=warn)
        yield products.current, own, describe(kept, rules, delays, products.recipes)


def _delays(line: LineFile, options: dict[str, Any]) -> dict[str, float]:
    """Return the delays of those cameras of the file that run: sources on the command line replace all of them."""
    named = {source.partition("=")[0] for source in options["sources"]}
    return {name: delay for name, delay in line.delays.items() if name in named}


def check(given: Arguments, options: dict[str, Any], console: Console) -> list[Any]:
    """Open all that a run would open, and return what was found. See `edgead.line.check.check_line`.

    Raises:
        ConfigError: rules that the cameras cannot meet, or a product that is not there.
    """
    from edgead.errors import ConfigError, unknown
    from edgead.line.check import check_line
    from edgead.line.part import read_rules, refuse_long_delays

    rules, line = read_rules(given.part_rules), line_of_run()
    _refuse_idle(given, line)
    if given.triggers:
        refuse_long_delays(rules, _delays(line, options))
        rules.needed(rules.frames * len(options["sources"]))
    products, first = products_of_run(given, options, console)
    if first and first not in products:
        raise ConfigError(unknown("product", first, products))
    names = {name: options[name] for name in ("sources", "sinks", "engine", "batch")}
    return check_line(products, triggers=given.triggers, control=given.control, console=console, **names)


def _refuse_idle(given: Arguments, line: LineFile) -> None:
    """Refuse rules of parts, and delays of cameras, where they have no effect."""
    from edgead.line.part import read_rules

    delays = [f"delay of the camera {name}" for name in line.delays]
    if not given.triggers:
        idle, where = [*["[part] or --part"] * bool(given.part_rules), *delays], "without a trigger"
    elif any(trigger.startswith("camera:") for trigger in given.triggers):
        rules = read_rules(given.part_rules)
        idle = [*(f"{name} of a part" for name in ("delay", "window") if getattr(rules, name)), *delays]
        where = "with the trigger camera:, where each picture opens its part. Only tolerance=MS applies there"
    else:
        return
    for what in idle:
        raise click.UsageError(f"{what} has no effect {where}.")
