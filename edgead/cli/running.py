"""`edgead run`: verdicts on every frame of a line."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from edgead.cli.line import Arguments, open_line, read_config, set_log, with_file
from edgead.cli.line import check as look
from edgead.cli.options import PATH, decision_options, json_option, refuse_given
from edgead.cli.output import emit, ledger_line, parts_line, show_result, takes_output, terminal
from edgead.cli.visible import check_visible_secrets
from edgead.console import limit_waiting
from edgead.errors import INTERRUPTED


@click.command()
@click.argument("bundle", type=PATH, required=False)
@click.option(
    "--config",
    type=PATH,
    is_eager=True,
    expose_value=False,
    callback=read_config,
    help="TOML file of a line: cameras, triggers, products, sinks and options. Options on the command line "
    "override it. See docs/line.md.",
)
@click.option("--check", is_flag=True, help="Open every camera, bundle, trigger and sink, print the result, and end.")
@click.option(
    "--source",
    "sources",
    multiple=True,
    required=True,
    metavar="[NAME=]URI",
    help="Camera, video, folder …, here or in --config; see docs/sources.md. NAME appears in the results. Repeatable.",
)
@click.option(
    "--trigger",
    "triggers",
    multiple=True,
    metavar="URI",
    help="Signal that announces a part: http://…, mqtt://…, modbus://…, gpio:…, camera:; each part has one result. "
    "See docs/line.md. Repeatable.",
)
@click.option(
    "--part",
    "part_rules",
    multiple=True,
    metavar="NAME=VALUE",
    help="Rule for parts: within=MS, frames=N, fails=any|all|K, delay=MS, min_distance=MS, window=MS. Repeatable.",
)
@click.option(
    "--control",
    multiple=True,
    metavar="URI",
    help="Channel for changeovers between the products of --config: http://…, mqtt://…, modbus://…. Repeatable.",
)
@click.option("--product", default="", help="Product of --config to start with. [default: the file's]")
@click.option(
    "--need-all-cameras", is_flag=True, help="End if a camera cannot be opened at the start. [default: wait for it]"
)
@decision_options
@click.option("--max-frames", type=click.IntRange(1), help="Stop after this many results.")
@click.option(
    "--on-full",
    type=click.Choice(["wait", "drop-oldest", "drop-newest"]),
    default="drop-oldest",
    show_default=True,
    help="What to do when a camera is faster than the engine. Files always wait.",
)
@click.option(
    "--max-staleness",
    type=float,
    help="Frames older than this many ms are UNKNOWN; inf: never. [default: 2000 in transit, live sources]",
)
@click.option("--deadline", type=float, help="Decisions later than this many ms after exposure are UNKNOWN.")
@click.option(
    "--silence",
    type=float,
    default=5.0,
    show_default=True,
    help="Report a camera as silent after this many seconds without a frame.",
)
@click.option(
    "--health",
    type=click.Choice(["live", "all", "off"]),
    default="live",
    show_default=True,
    help="Sources to check for black, blurred, frozen and stretched frames.",
)
@click.option(
    "--untrained-aspect",
    type=click.Choice(["report", "unknown"]),
    default="report",
    show_default=True,
    help="Frames with an aspect ratio that no training image had, or far fewer pixels: report once, or return UNKNOWN.",
)
@click.option(
    "--keep-warm",
    type=float,
    default=0.0,
    help="Keep the engine warm: run it on a blank frame after this many idle seconds.",
)
@click.option(
    "--drift-window",
    type=click.IntRange(0),
    default=200,
    show_default=True,
    help="Number of passed frames that are compared with the bundle's held-out images at a time; 0: none.",
)
@click.option(
    "--drift-alarms",
    type=float,
    default=1.0,
    show_default=True,
    help="Largest number of false drift alarms in a million compared frames, on average over bundles.",
)
@click.option(
    "--drift-every",
    type=float,
    default=1.0,
    show_default=True,
    help="Least number of seconds between two compared frames of a camera: neighbouring frames show the same part.",
)
@click.option("--record", type=PATH, help="Folder to record frames and results in, for --source replay:DIR.")
@click.option(
    "--shadow",
    type=PATH,
    help="Second bundle to run on the same frames. It may be written later. Signal USR1 exchanges the two.",
)
@click.option(
    "--metrics", metavar="PORT", help="Serve Prometheus metrics on this port of 127.0.0.1, or on ADDRESS:PORT."
)
@click.option(
    "--metrics-token",
    default="",
    help="Bearer token for metrics requests: '${NAME}' or '${file:PATH}'.",
)
@click.option(
    "--view",
    metavar="PORT",
    is_flag=False,
    flag_value="8080",
    help="Serve the live page on this port of 127.0.0.1 [8080], or on ADDRESS:PORT; see docs/live-page.md.",
)
@click.option(
    "--view-token",
    default="",
    help="Token for changes on the page and for access from other machines: '${NAME}' or '${file:PATH}'.",
)
@click.option(
    "--view-bundles",
    multiple=True,
    type=PATH,
    metavar="DIR",
    help="Bundle, or folder of bundles, for changeovers on the page. Repeatable.",
)
@click.option(
    "--view-folder",
    type=PATH,
    help="Folder for marked rejects and the log of changes. [default: marks in the folder of --sink rejects:…, else "
    "runs/view]",
)
@click.option(
    "--log",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    expose_value=False,
    callback=set_log,
    help="Form of the messages on standard error. json: one object per line, with time, level and message.",
)
@json_option
def run(
    bundle: Path | None,
    check: bool,
    as_json: bool,
    product: str,
    control: tuple[str, ...],
    triggers: tuple[str, ...],
    part_rules: tuple[str, ...],
    view: str | None,
    view_token: str,
    view_bundles: tuple[Path, ...],
    view_folder: Path | None,
    drift_window: int,
    drift_alarms: float,
    drift_every: float,
    **options: Any,
) -> None:
    """Inspect every frame of one or more sources.

    With --trigger, every part has one result, instead of every frame. Results are printed unless --sink sends them
    elsewhere. Ctrl-C or signal TERM ends the run within 15 s, after captured frames are decided and written; a second
    one ends it at once. Signal HUP reloads the bundle.
    """
    console, ended = terminal(), list[bool]()
    given = Arguments(bundle, product, triggers, with_file("part_rules", part_rules), control)
    options["shapes"] = with_file("shapes", options["shapes"])
    check_visible_secrets(console)
    if not check:
        limit_waiting()
    from edgead.line.drift import Drift, DriftSettings

    drift = DriftSettings(drift_window, drift_alarms, drift_every)
    _refuse_idle(view, triggers, drift_window, options)
    if check:
        _refuse_wrong(view, view_token, view_bundles, options)
        _show_check(look(given, options, console), as_json)
        return
    from edgead.runtime.run import RunSummary
    from edgead.runtime.run import run as go
    from edgead.runtime.speed import describe_speed

    show = None if options["sinks"] or as_json else show_result

    def finish(summary: RunSummary) -> None:
        ended.append(True)
        if as_json:
            click.echo(json.dumps(summary), err=takes_output(options["sinks"]))
        else:
            console.say(ledger_line(summary))
            if "parts" in summary:
                console.say(parts_line(summary["parts"]))
        console.say(describe_speed(summary["speed_ms"]))

    watch, observer = Drift(drift, console.say), None
    if view is not None:
        from edgead.view.view import View

        observer = View(view, token=view_token, bundles=view_bundles, folder=view_folder, say=console.say)
    if triggers:
        from edgead.line.parts import CAPACITY

        options["capacity"] = CAPACITY
    try:
        with open_line(given, options, console) as (decides, gate, settings):
            go(
                decides,
                on_result=show,
                on_end=finish,
                observer=observer,
                gate=gate,
                watch=watch,
                configuration=settings,
                console=console,
                **options,
            )
    except KeyboardInterrupt:
        if not ended:
            raise
        sys.exit(INTERRUPTED)  # every captured frame was decided and written: no error


def _refuse_idle(view: str | None, triggers: Sequence[str], drift_window: int, options: Mapping[str, Any]) -> None:
    """Refuse options that have no effect without another one."""
    if view is None:
        refuse_given("without --view", "view_token", "view_bundles", "view_folder")
    if not triggers:
        refuse_given("without --trigger", "part_rules")
    if options["metrics"] is None:
        refuse_given("without --metrics", "metrics_token")
    if not drift_window:
        refuse_given("with --drift-window 0", "drift_alarms", "drift_every")


def _refuse_wrong(view: str | None, view_token: str, view_bundles: Sequence[Path], options: Mapping[str, Any]) -> None:
    """Refuse what a run would refuse that does not depend on what it opens."""
    from edgead.runtime.metrics_server import check_token, parse_address
    from edgead.runtime.policy import Policy
    from edgead.runtime.sources.uri import fill_secrets
    from edgead.view.access import Access, read_token
    from edgead.view.bundles import Bundles

    Policy(**{field.name: options[field.name] for field in dataclasses.fields(Policy) if field.name in options})
    if options["metrics"] is not None:
        check_token(parse_address(options["metrics"])[0], fill_secrets(options["metrics_token"]))
    if view is not None:
        Access(parse_address(view, "--view")[0], read_token(view_token))
        Bundles(view_bundles)


def _show_check(findings: list[Any], as_json: bool) -> None:
    """Print what a check has found, and end with exit code 2 if something cannot be used."""
    lines = [f"{'ok' if one.ok else 'FAILED':<8}{one.kind:<9}{one.name}: {one.text}" for one in findings]
    emit([vars(one) for one in findings], as_json, "\n".join(lines))
    if not all(one.ok for one in findings):
        sys.exit(2)
