"""`edgead train` and `edgead synthesise`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgead.cli.options import PATH, check_method, json_option
from edgead.cli.output import emit
from edgead.console import Terminal


@click.command()
@click.option("--method", default="draem", show_default=True, help="See `edgead methods`.")
@click.option("--data", type=PATH, help="Good images, or a data set in MVTec AD, MVTec 3D-AD or VisA form.")
@click.option("--category", help="One of several categories, or 'all' for a run each.")
@click.option(
    "--preset",
    help="paper, edge (for small devices) or nano (to try). [default: the largest that trains here in 12 hours]",
)
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Override a setting; see `edgead methods NAME`."
)
@click.option("--textures", type=PATH, help="Folder of pictures that fill synthetic anomalies, for instance DTD.")
@click.option(
    "--donor",
    "donors",
    multiple=True,
    type=PATH,
    help="Another product's data with defects (or a run that learned from it), for DRepT. Repeatable.",
)
@click.option("--weights", type=PATH, help="A backbone's ImageNet weights, .pth or .safetensors. [default: download]")
@click.option("--holdout", default=0.2, show_default=True, help="Share of good images kept for the threshold.")
@click.option(
    "--bit-depth", type=click.IntRange(9, 16), default=16, show_default=True, help="Bits used by 16-bit images."
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Same seed and precision, same result on a CPU.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--mixed-precision",
    type=click.Choice(["auto", "no", "bf16", "fp16"]),
    default="auto",
    show_default=True,
    help="auto: bf16 on a CPU that has it, where it is faster and losses agree. no: float32.",
)
@click.option("--budget", metavar="TIME", help="Scale the published schedule to fit: 90s, 30m, 2h.")
@click.option("--workers", type=click.IntRange(0), help="Processes that prepare examples. [default: by the machine]")
@click.option("--resume", "go_on", is_flag=True, help="Go on with a stopped run: --out, or the newest of the method.")
@click.option("--out", type=PATH, help="Folder of the run. [default: runs/train/METHOD-CATEGORY-TIME]")
@json_option
def train(go_on: bool, as_json: bool, data: Path | None, method: str, out: Path | None, **options: Any) -> None:
    """Learn from images of good parts.

    A run can be stopped at any time and gone on with later (--resume), after a training that diverged with
    a lower learning rate (--set learning_rate=…).
    Several GPUs: accelerate launch -m edgead train … --out DIR
    """
    from edgead.train.train import find_unfinished, resume
    from edgead.train.train import train as start

    if go_on:
        _refuse_others("method", "data", "settings", "out", "device", "workers", "go_on", "as_json")
        folder = out or find_unfinished(method)
        check_method(folder, method)
        kept = {name: options[name] for name in ("settings", "device", "workers")}
        folders = [resume(folder, data=data, console=Terminal(), **kept)]
    else:
        if data is None:
            raise click.UsageError("Missing option '--data'.")
        folders = start(method, data, out=out, console=Terminal(), **options)
    text = "\n".join(f"{folder}\nNext:  edgead export --checkpoint {folder}" for folder in folders)
    emit({"runs": [str(folder) for folder in folders]}, as_json, text)


def _refuse_others(*allowed: str) -> None:
    """Refuse options that a resumed run would ignore: what decides its result was decided when it was started."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and name not in allowed:
            raise click.UsageError(f"{parameter.opts[0]} cannot be changed when a run is resumed.")


@click.command()
@click.argument("run_folder", metavar="RUN", type=PATH)
@click.option("--count", type=click.IntRange(1), default=20, show_default=True, help="Pictures to draw.")
@click.option("--image", type=PATH, help="Put them on this good image, not on those that the run is trained on.")
@click.option("--defect", type=int, help="Only this defect learned from a source, numbered from 0, as it was learned.")
@click.option("--donor", help="With --defect: the donor, by its name in RUN/sources, where there are several.")
@click.option("--out", required=True, type=PATH, help="Folder for NUMBER.png and NUMBER_mask.png.")
@click.option("--data", type=PATH, help="Where the training data is now, if it has moved.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Random seed.")
@json_option
def synthesise(run_folder: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Write synthetic anomalies, as a run is trained on, as pictures with their masks."""
    from edgead.train.synthesise import synthesise as draw

    paths = draw(run_folder, out, console=Terminal(), **options)
    emit({"pictures": [str(path) for path in paths]}, as_json, f"{len(paths)} pictures with masks in {out}")
