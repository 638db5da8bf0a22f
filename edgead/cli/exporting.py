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
from edgead.cli.output import emit, terminal, validate_here
from edgead.errors import DeviceError
from edgead.text import typed

if TYPE_CHECKING:
    from edgead.export.options import PrecisionOptions


@click.command()
@click.option("--method", default="draem", show_default=True, help="Export this method's newest finished run.")
@click.option("--category", help="Category of the run; 'all' exports the newest run of every category.")
@click.option("--checkpoint", type=PATH, help="Export this run (a folder) instead of the newest.")
@click.option("--data", type=PATH, help="Data set, if it has moved. The precision gate uses its labelled images.")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Override a setting that can be changed at export."
)
@click.option("--false-reject", default=0.01, show_default=True, help="Largest share of good parts that may fail.")
@precision_options
@click.option(
    "--out", type=PATH, help="Folder of the bundle. [default: runs/export/RUN.edgead, or RUN-PRECISION.edgead]"
)
@force_option
@click.option(
    "--format",
    type=click.Choice(["onnx", "engine", "triton"]),
    default="onnx",
    show_default=True,
    help="engine: also build the TensorRT engine. Use it on the target device. "
    "triton: also write a model for NVIDIA's Triton server, into the folder 'triton_models' beside the bundle.",
)
@json_option
def export(
    method: str,
    category: str | None,
    checkpoint: Path | None,
    out: Path | None,
    format: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Export a finished run as a bundle.

    The graph is compared with the trained network; a lower precision must pass the gate (docs/precision.md).
    """
    if checkpoint:
        refuse_given("with --checkpoint, which is one run", "category")
    if category == "all" and out:
        raise click.UsageError("--category all writes several bundles; leave out --out.")
    if format == "engine":
        from edgead.runtime.engines.tensorrt_engine import find_tensorrt

        find_tensorrt()  # reported before the export, which takes minutes
    from edgead.export import export as make
    from edgead.export.runs import find_run, find_runs_of_all

    if checkpoint:
        check_method(checkpoint, method)
        runs = [checkpoint]
    elif category == "all":
        runs = find_runs_of_all(method, console=terminal())
    else:
        runs = [find_run(method, category, console=terminal())]
    if format == "triton":
        from edgead.export.triton import refuse_alignment
        from edgead.train.run_config import load_run_config

        for run in runs:
            refuse_alignment(run, load_run_config(run).geometry)
    bundles = [make(run, out=out, console=terminal(), **options) for run in runs]
    for bundle in bundles if format == "engine" else ():
        if why := bundle.manifest.failed_engines.get("tensorrt"):  # reported by the export, without a second build
            raise DeviceError(f"{bundle.path} was written, but TensorRT cannot run it on this machine: {why}")
        validate_here(bundle, "tensorrt")
    text = "\n".join(f"{bundle.path}\nNext:  edgead predict {typed(bundle.path)} IMAGES" for bundle in bundles)
    value = [{"bundle": str(bundle.path), "manifest": bundle.manifest.to_dict()} for bundle in bundles]
    if format == "triton":
        from edgead.export.triton import write_triton_model

        # A folder named triton would be imported by programs that start beside it.
        models = [write_triton_model(bundle, bundle.path.parent / "triton_models") for bundle in bundles]
        for entry, model in zip(value, models):
            entry["triton"] = str(model)
        repository = models[0].parent.resolve()
        text = "\n".join([*map(str, models), f"Next:  tritonserver --model-repository={typed(repository)}"])
    emit({"bundles": value}, as_json, text)


@click.command("import")
@click.argument("files", nargs=-1, required=True, type=PATH)
@click.option("--from", "source", help="Origin of an ONNX file: anomalib, or onnx for any other. [default: onnx]")
@click.option("--method", help="Import a published checkpoint of this method, one or two files; see `edgead methods`.")
@click.option(
    "--threshold-data",
    type=PATH,
    help="Images of good parts for the threshold. The model must not have been trained on them.",
)
@click.option("--false-reject", default=0.01, show_default=True, help="Largest share of good parts that may fail.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="With --method: override a setting.")
@click.option("--size", help="Input HEIGHTxWIDTH, if the model accepts any size.")
@click.option("--input", help="Name of the image input. Needed if the model has several.")
@click.option("--score", help="Tensor with the image score. [default: computed from the map]")
@click.option("--map", help="Tensor with the pixel map, or none. [default: the only map among the outputs]")
@click.option(
    "--pool",
    default="max",
    show_default=True,
    help="How to compute the score from the map: max, or top:0.01 (mean of the top 1 %).",
)
@click.option("--rgb/--bgr", default=None, help="Colour order of the model's input. [default: rgb]")
@click.option("--scale", type=float, help="Divisor of the pixel values. [default: 255]")
@click.option("--mean", metavar="A,B,C", help="Mean to subtract after scaling, per channel. [default: 0]")
@click.option("--std", metavar="A,B,C", help="Standard deviation to divide by after that, per channel. [default: 1]")
@precision_options
@click.option("--data", type=PATH, help="Labelled images for the gate of a lower precision.")
@click.option(
    "--out", type=PATH, help="Folder of the bundle. [default: runs/import/NAME.edgead, or NAME-PRECISION.edgead]"
)
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
    """Convert a model that was trained elsewhere to a bundle.

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

    bundle = make(files, method=method, source=source, precision=precision, console=terminal(), **options)
    text = f"{bundle.path}\nNext:  edgead predict {typed(bundle.path)} IMAGES"
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
            f"{option} takes three numbers separated by commas, or one for grey images, not '{text}'."
        ) from error
