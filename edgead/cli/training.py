"""`edgead train` and `edgead synthesise`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgead.cli.options import (
    PATH,
    check_method,
    json_option,
    refuse_given,
    refuse_to_change,
    required,
    training_options,
    weights_option,
)
from edgead.cli.output import emit, terminal
from edgead.text import typed


@click.command()
@click.option(
    "--quick",
    is_flag=True,
    help="Train a first model from ten or more images and export it, in about a minute: PatchCore (docs/training.md).",
)
@click.option("--method", default="draem", show_default=True, help="Method to train; see `edgead methods`.")
@click.option(
    "--data", type=PATH, help="Folder of good images, or a data set (MVTec AD, 3D-AD, VisA …; see docs/data.md)."
)
@click.option(
    "--marked",
    type=PATH,
    help="Folder of a sink rejects:DIR: good parts marked as false rejects are trained on too (docs/thresholds.md).",
)
@click.option("--category", help="Category to train, if the data set has several; 'all' trains one run per category.")
@click.option(
    "--preset",
    help="paper, edge (for small devices) or nano (for a trial). [default: the largest that trains here in 12 hours]",
)
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Override a setting; see `edgead methods NAME`."
)
@click.option(
    "--donor",
    "donors",
    multiple=True,
    type=PATH,
    help="For DRepT: data of another product with defects, or a run trained with it. Repeatable.",
)
@weights_option
@click.option(
    "--holdout", type=float, help="Share of good images held out for the threshold. [default: 0.2; with --quick 0.3]"
)
@click.option(
    "--bit-depth", type=click.IntRange(9, 16), default=16, show_default=True, help="Significant bits of 16-bit images."
)
@click.option(
    "--crop",
    metavar="X,Y,W,H",
    help="Part of each image to inspect, as shares (0.1,0,0.8,1) or in pixels. Stored in the bundle.",
)
@click.option(
    "--fit",
    type=click.Choice(["stretch", "letterbox"]),
    default="stretch",
    show_default=True,
    help="Stretch images to the network's input, or keep their aspect ratio. Stored in the bundle.",
)
@click.option(
    "--tiles",
    metavar="RxC",
    help="Cut each image into rows x columns (3x4), or into tiles of this many of its pixels (512px).",
)
@click.option(
    "--overlap", type=float, help="Overlap of neighbouring tiles, as a share of a tile, up to 0.5. [default: 0.125]"
)
@click.option(
    "--scale", type=float, help="Pixels per millimetre, to report how many pixels of a defect of 1 mm are left."
)
@click.option(
    "--align",
    metavar="FILE|auto",
    help="Shift and turn each image so that the part lies as on this image. auto: as on one of the good images.",
)
@click.option(
    "--max-shift", type=float, help="With --align: largest shift, as a share of the longer side. [default: 0.2]"
)
@click.option(
    "--max-rotation", type=float, help="With --align: largest angle in degrees; 180 allows any. [default: 30]"
)
@training_options
@click.option("--budget", metavar="TIME", help="Shorten or lengthen the published schedule to this time: 90s, 30m, 2h.")
@click.option(
    "--resume", "continue_run", is_flag=True, help="Continue the run in --out, or the method's newest unfinished run."
)
@click.option("--out", type=PATH, help="Folder of the run. [default: runs/train/METHOD-CATEGORY-TIME]")
@json_option
def train(
    quick: bool,
    continue_run: bool,
    as_json: bool,
    data: Path | None,
    method: str,
    out: Path | None,
    **options: Any,
) -> None:
    """Train a model on images of good parts.

    Stop any time; continue with --resume. If training diverged, add --set learning_rate=… with a lower rate.

    Several GPUs: accelerate launch -m edgead train … --out DIR
    """
    from edgead.train import resume
    from edgead.train import train as start
    from edgead.train.training import find_unfinished

    if options["holdout"] is None:
        del options["holdout"]
    if quick:
        refuse_given("with --quick", "method", "preset", "textures", "donors", "budget", "continue_run")
        _train_quick(required(data), out, as_json, options)
        return
    if continue_run:
        kept = ("settings", "device", "workers", "track")
        refuse_to_change(*kept, "method", "data", "out", "continue_run", "as_json", "quiet")
        folder = out or find_unfinished(method)
        check_method(folder, method)
        folders = [resume(folder, data=data, console=terminal(), **{name: options[name] for name in kept})]
    else:
        folders = start(method, required(data), out=out, console=terminal(), **options)
    text = "\n".join(f"{folder}\nNext:  edgead export --checkpoint {typed(folder)}" for folder in folders)
    emit({"runs": [str(folder) for folder in folders]}, as_json, text)


def _train_quick(data: Path, out: Path | None, as_json: bool, options: dict[str, Any]) -> None:
    from edgead.quick import train_quick

    unused = ("preset", "textures", "donors", "budget")
    kept = {name: value for name, value in options.items() if name not in unused}
    made = train_quick(data, out=out, console=terminal(), **kept)
    text = "\n".join(
        f"{bundle.path}\n"
        f"Promise: {bundle.manifest.threshold.describe(bundle.manifest.data.unseen)}\n"
        f"Next:  edgead predict {typed(bundle.path)} IMAGES\n"
        f"       edgead run {typed(bundle.path)} --source 0 --view\n"
        f"Later: edgead train --method aand --data {typed(data)}, then export; compare both on the line with --shadow"
        for _, bundle in made
    )
    value = {"runs": [str(run) for run, _ in made], "bundles": [str(bundle.path) for _, bundle in made]}
    emit(value, as_json, text)


@click.command()
@click.argument("run_folder", metavar="RUN", type=PATH)
@click.option("--count", type=click.IntRange(1), default=20, show_default=True, help="Number of images.")
@click.option("--image", type=PATH, help="Good image to alter. [default: the run's training images]")
@click.option("--defect", type=int, help="Draw only this transferred defect, numbered from 0.")
@click.option("--donor", help="With --defect: name of its donor in RUN/sources, if there are several.")
@click.option("--out", required=True, type=PATH, help="Folder for NUMBER.png and NUMBER_mask.png.")
@click.option("--data", type=PATH, help="Training data, if it has moved.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Random seed.")
@json_option
def synthesise(run_folder: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Write synthetic anomalies of a run, with their masks.

    They are drawn in the same way as for the training of the run.
    """
    from edgead.train.synthesise import synthesise as draw

    paths = draw(run_folder, out, console=terminal(), **options)
    emit({"pictures": [str(path) for path in paths]}, as_json, f"{len(paths)} images with masks in {out}")
