"""`edgead export` and `edgead import`: the verbs that make bundles."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgead.cli.options import (
    PATH,
    check_method,
    force_option,
    json_option,
    precision_options,
    refuse_given,
)
from edgead.cli.output import emit, validate_here
from edgead.console import Terminal
from edgead.errors import DeviceError

if TYPE_CHECKING:
    from edgead.export.options import PrecisionOptions


@click.command()
@click.option("--method", default="draem", show_default=True, help="Whose newest finished run is exported.")
@click.option("--category", help="Of the run; 'all' exports the newest run of every category.")
@click.option("--checkpoint", type=PATH, help="The run to export, instead of the newest.")
@click.option("--data", type=PATH, help="Where the data is now, if it has moved; its labelled images judge.")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Override a setting that is open at export."
)
@click.option("--false-reject", default=0.01, show_default=True, help="Share of good parts that may fail.")
@precision_options
@click.option("--out", type=PATH, help="The bundle. [default: runs/export/RUN.edgead, or RUN-PRECISION.edgead]")
@force_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["onnx", "engine"]),
    default="onnx",
    show_default=True,
    help="engine: also build the TensorRT engine, on the device that will run it.",
)
@json_option
def export(
    method: str,
    category: str | None,
    checkpoint: Path | None,
    out: Path | None,
    form: str,
    as_json: bool,
    data: Path | None,
    settings: tuple[str, ...],
    false_reject: float,
    force: bool,
    precision: PrecisionOptions,
) -> None:
    """Make a bundle: the graph, compared with the trained network, and its threshold.

    A precision below fp32 must pass a gate, see docs/precision.md. It judges on labelled images too, if --data has any.
    """
    if category == "all" and out:
        raise click.UsageError("--category all writes several bundles; leave out --out.")
    if form == "engine":
        from edgead.runtime.engines.tensorrt_engine import find_tensorrt

        find_tensorrt()  # said before minutes go into something else
    from edgead.export import export as make
    from edgead.export.runs import find_run, find_runs_of_all

    if checkpoint:
        check_method(checkpoint, method)
        runs = [checkpoint]
    else:
        runs = find_runs_of_all(method) if category == "all" else [find_run(method, category)]
    bundles = [
        make(
            run,
            data=data,
            out=out,
            false_reject=false_reject,
            settings=settings,
            precision=precision,
            force=force,
            console=Terminal(),
        )
        for run in runs
    ]
    for bundle in bundles if form == "engine" else ():
        if why := bundle.manifest.failed_engines.get("tensorrt"):  # minutes went into that already
            raise DeviceError(f"{bundle.path} is written, but TensorRT does not run it here: {why}")
        validate_here(bundle, "tensorrt")
    text = "\n".join(f"{bundle.path}\nNext:  edgead predict {bundle.path} IMAGES" for bundle in bundles)
    value = [{"bundle": str(bundle.path), "manifest": bundle.manifest.to_dict()} for bundle in bundles]
    emit({"bundles": value}, as_json, text)


@click.command("import")
@click.argument("files", nargs=-1, required=True, type=PATH)
@click.option("--from", "source", help="anomalib or onnx, for a model that comes as ONNX. [default: onnx]")
@click.option("--method", help="Whose published checkpoint it is, see `edgead methods`; may consist of two files.")
@click.option("--threshold-data", type=PATH, help="Images of good parts that the model was not trained on.")
@click.option("--false-reject", default=0.01, show_default=True, help="Share of good parts that may fail.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="With --method: override a setting.")
@click.option("--size", help="Input HEIGHTxWIDTH, where the model takes any.")
@click.option("--input", help="The image input, where there are several.")
@click.option("--score", help="The image score; any tensor of the graph. [default: computed from the map]")
@click.option("--map", help="The pixel map; any tensor of the graph, or none.")
@click.option("--pool", default="max", show_default=True, help="Score from the map: max, or top:0.01 (mean of 1 %).")
@click.option("--rgb/--bgr", default=None, help="Colour order that the model wants. [default: rgb]")
@click.option("--scale", type=float, help="Grey values are divided by it first. [default: 255]")
@click.option("--mean", metavar="A,B,C", help="Subtracted then, for each channel; one number for grey. [default: 0]")
@click.option("--std", metavar="A,B,C", help="Divided by then. [default: 1]")
@precision_options
@click.option("--data", type=PATH, help="Labelled images that a lower precision is judged on, too.")
@click.option("--out", type=PATH, help="The bundle. [default: runs/import/NAME.edgead, or NAME-PRECISION.edgead]")
@force_option
@json_option
def import_model(
    files: tuple[Path, ...],
    source: str | None,
    method: str | None,
    precision: PrecisionOptions,
    data: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Make a bundle of a model that was trained elsewhere.

    \b
    edgead import model.onnx --from anomalib
    edgead import model.onnx --map NAME --threshold-data DIR
    edgead import NAME.pckl NAME_seg.pckl --method draem --threshold-data DIR
    """
    if not precision.lowers:
        refuse_given("at --precision fp32", "data")
    precision = dataclasses.replace(precision, labelled=data)
    if method:
        refuse_given("with --method", "source", "input", "score", "map", "pool", "rgb", "scale", "mean", "std")
    else:
        refuse_given("without --method", "settings")
    options["size"] = _parse_size(options["size"])
    options |= {name: _parse_numbers(f"--{name}", options[name]) for name in ("mean", "std")}
    from edgead.export import import_model as make

    bundle = make(files, method=method, source=source, precision=precision, console=Terminal(), **options)
    text = f"{bundle.path}\nNext:  edgead predict {bundle.path} IMAGES"
    emit({"bundle": str(bundle.path), "manifest": bundle.manifest.to_dict()}, as_json, text)


def _parse_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        sides = [int(part) for part in text.lower().split("x")]
        height, width = sides * 2 if len(sides) == 1 else sides
    except ValueError as error:
        raise click.UsageError(f"--size takes HEIGHTxWIDTH or one number, not '{text}'.") from error
    return height, width


def _parse_numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise click.UsageError(
            f"{option} takes three numbers with commas between them, or one for grey, not '{text}'."
        ) from error
