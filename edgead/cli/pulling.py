"""`edgead pull`."""

from __future__ import annotations

from typing import Any

import click

from edgead.cli.options import PATH, NumberRange, engine_option, json_option, trust_option
from edgead.cli.output import emit, terminal


@click.command()
@click.argument("url")
@click.option("--to", required=True, type=PATH, metavar="LINK", help="Link that the line opens; changed in one step.")
@trust_option
@click.option("--token", default="", help="Bearer token for the server: '${NAME}' or '${file:PATH}'.")
@click.option("--ca", type=PATH, help="PEM file with certificates to trust instead of the system's.")
@click.option(
    "--max-size",
    type=click.IntRange(1, 1 << 20),
    default=4096,
    show_default=True,
    help="Largest size of all files, in MB.",
)
@engine_option
@click.option("--force", is_flag=True, help="Take a bundle that is older, for another category, or failed before.")
@click.option("--pid", default="", help="Process of the running line, or a file with its number; needs --metrics.")
@click.option("--metrics", default="", metavar="PORT", help="Port of that line's metrics, through which it is watched.")
@click.option("--metrics-token", default="", help="Token of these metrics: '${NAME}' or '${file:PATH}'.")
@click.option(
    "--watch",
    "watch_minutes",
    type=NumberRange(0.01, 1440),
    default=5.0,
    show_default=True,
    help="Minutes to watch the line.",
)
@click.option(
    "--max-change",
    type=NumberRange(0, 1),
    default=0.1,
    show_default=True,
    help="Return to the old bundle if the share of FAIL or UNKNOWN grows by more than this.",
)
@json_option
def pull(url: str, as_json: bool, token: str, metrics_token: str, **options: Any) -> None:
    """Fetch a signed bundle, check it and put it in place.

    URL is a folder on an HTTPS server with the files of the bundle. With --pid and --metrics, the running line takes
    the bundle and is watched. If the line fails, the old bundle returns, and the exit code is 3.

    \b
    edgead pull https://server/bottle.edgead --trust plant.pub --to current.edgead
    """
    from edgead.pull import pull as fetch
    from edgead.runtime.sources.uri import read_secret

    done = fetch(
        url,
        token=read_secret(token, "--token"),
        metrics_token=read_secret(metrics_token, "--metrics-token"),
        console=terminal(),
        **options,
    )
    if done.switched:
        text = f"{done.link} is {done.bundle} now, signed by {done.signer}."
    else:
        text = f"{done.link} is {done.bundle} already; nothing was changed."
    emit(done.to_dict(), as_json, text)
