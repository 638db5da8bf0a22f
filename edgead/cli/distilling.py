"""`edgead distil`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from edgead.cli.options import PATH, json_option, refuse_to_change, required, training_options, weights_option
from edgead.cli.output import emit, terminal
from edgead.text import typed


def _read_target(context: click.Context, parameter: click.Parameter, text: str) -> float:
    """Return the milliseconds of ``10ms`` or ``2.5ms``."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*ms", text.strip().lower())
    if not found or not float(found[1]):
        raise click.BadParameter(f"it takes milliseconds such as 10ms, not '{text}'.", context, parameter)
    return float(found[1])


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--data", type=PATH, help="Images of good parts, as for `edgead train`.")
@click.option("--category", help="Category to distil on, if the data set has several.")
@click.option(
    "--target",
    "target_ms",
    required=True,
    metavar="TIME",
    callback=_read_target,
    help="Time of one inference on --engine here, such as 10ms. The largest network that meets it is trained.",
)
@click.option("--engine", default="onnxruntime", show_default=True, help="Engine that networks are measured on.")
@click.option("--budget", metavar="TIME", help="Time for training, the teacher's inferences included: 10m, 1h.")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Override a setting; see `edgead methods student`."
)
@weights_option
@click.option(
    "--precision", default="int8", show_default=True, help="Precision of the student: int8, fp16, fp32 or auto."
)
@click.option("--false-reject", default=0.01, show_default=True, help="Largest share of good parts that may fail.")
@click.option("--holdout", default=0.2, show_default=True, help="Share of good images held out for the threshold.")
@training_options
@click.option(
    "--resume", "continue_run", is_flag=True, help="Finish the run in --out, or the newest unfinished run of a student."
)
@click.option("--out", type=PATH, help="Folder of the run. [default: runs/train/student-CATEGORY-TIME]")
@click.option("--bundle-out", type=PATH, help="Folder of the bundle. [default: runs/export/RUN-PRECISION.edgead]")
@json_option
def distil(
    bundle: Path, data: Path | None, target_ms: float, continue_run: bool, as_json: bool, **options: Any
) -> None:
    """Train a small, fast network that decides like a bundle.

    \b
    edgead distil bottle.edgead --data photos/ --target 10ms --budget 20m

    The bundle may come from `edgead export` or `edgead import`. The network is exported, too, and a report compares it
    with the bundle (docs/training.md). Stop any time, and finish with --resume:

    \b
    edgead distil bottle.edgead --target 10ms --resume
    """
    from edgead.distil import distil as make
    from edgead.distil import resume

    if continue_run:
        kept = ("target_ms", "engine", "settings", "precision", "false_reject", "device", "workers", "track", "out")
        refuse_to_change(*kept, "bundle_out", "bundle", "data", "continue_run", "as_json", "quiet")
        left = {name: options[name] for name in (*kept[1:], "bundle_out")}
        made = resume(bundle, data=data, target_ms=target_ms, console=terminal(), **left)
    else:
        made = make(bundle, required(data), target_ms=target_ms, console=terminal(), **options)
    text = (
        f"{made.bundle.path}\n"
        f"Compare:  {made.report}\n"
        f"Next:  edgead run {typed(bundle)} --source 0 --shadow {typed(made.bundle.path)}"
    )
    emit({"run": str(made.run), "bundle": str(made.bundle.path), "report": str(made.report)}, as_json, text)
