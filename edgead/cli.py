"""The command line. Each verb is a thin call into a room; what a verb needs is imported inside it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgead import __version__
from edgead.console import Terminal, guard_stderr
from edgead.errors import DeviceError
from edgead.failures import INTERRUPTED, flush, prepare_streams, report
from edgead.redaction import printable, redact

if TYPE_CHECKING:
    from edgead.bundle import Bundle
    from edgead.runtime.engine_validation import EngineValidation

F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)
ENGINES = ("onnxruntime", "onnxruntime-cuda", "openvino", "openvino-bf16", "tensorrt")
QUIET = {"OPENCV_LOG_LEVEL": "ERROR", "OPENCV_FFMPEG_LOGLEVEL": "-8"}
"""OpenCV's and FFmpeg's remarks on what they cannot open; ours says it once. Whoever sets one of these hears them."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code. An error is one to three lines, see `edgead.failures`."""
    for variable, level in QUIET.items():
        os.environ.setdefault(variable, level)  # read when OpenCV is imported, which is later
    prepare_streams()
    guard_stderr()
    with contextlib.suppress(ValueError):  # not in the main thread
        # It ends as Ctrl-C does, and leaves nothing half-written.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = cli.main(args=arguments, prog_name="edgead", standalone_mode=False) or 0
    except (Exception, KeyboardInterrupt) as error:
        code = report(error)
    sys.exit(flush(code))


def _emit(value: Any, as_json: bool, text: str) -> None:
    click.echo(json.dumps(value, indent=2) if as_json else "\n".join(map(printable, text.split("\n"))))


def _json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")(
        function
    )


def _force_option(function: F) -> F:
    return click.option("--force", is_flag=True, help="Replace results that are there already.")(function)


def _runtime_options(function: F) -> F:
    text = "Scores above it fail; fpr:0.001 lets that share of good parts fail. [default: the bundle's]"
    function = click.option("--threshold", help=text)(function)
    return _engine_option(function)


def _engine_option(function: F) -> F:
    return click.option("--engine", default="auto", show_default=True, help=f"auto, {', '.join(ENGINES)}.")(function)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgead")
def cli() -> None:
    """Visual anomaly detection: from photographs of good parts to a decision on every frame.

    \b
    edgead demo                                   see it work on sample parts
    edgead train --method draem --data DIR        learn what good parts look like
    edgead export --method draem                  make a bundle for the line
    edgead run BUNDLE --source 0                  decide on every frame of a camera
    """


@cli.command()
@click.option("--out", type=PATH, help="Folder for everything that is made. [default: runs/demo/TIME]")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Of the training.")
@_json_option
def demo(out: Path | None, seed: int, as_json: bool) -> None:
    """Make sample parts, train on them, export, inspect and benchmark: a few minutes on two cores."""
    from edgead.demo import run_demo

    outcome = run_demo(out, seed, Terminal())
    _emit(outcome, as_json, outcome["summary"])


@cli.command()
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
    "--source",
    "sources",
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
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Same seed, same CPU result."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--precision",
    type=click.Choice(["no", "bf16", "fp16"]),
    default="no",
    show_default=True,
    help="Mixed precision, for GPUs.",
)
@click.option("--workers", type=click.IntRange(0), help="Processes that prepare examples. [default: by the machine]")
@click.option("--resume", "go_on", is_flag=True, help="Go on with a stopped run: --out, or the newest of the method.")
@click.option("--out", type=PATH, help="Folder of the run. [default: runs/train/METHOD-CATEGORY-TIME]")
@_json_option
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
        _check_method(folder, method)
        kept = {name: options[name] for name in ("settings", "device", "workers")}
        folders = [resume(folder, data=data, console=Terminal(), **kept)]
    else:
        if data is None:
            raise click.UsageError("Missing option '--data'.")
        folders = start(method, data, out=out, console=Terminal(), **options)
    text = "\n".join(f"{folder}\nNext:  edgead export --checkpoint {folder}" for folder in folders)
    _emit({"runs": [str(folder) for folder in folders]}, as_json, text)


def _refuse_others(*allowed: str) -> None:
    """Refuse options that a resumed run would ignore: what decides its result was decided when it was started."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and name not in allowed:
            raise click.UsageError(f"{parameter.opts[0]} cannot be changed when a run is resumed.")


@cli.command()
@click.argument("run_folder", metavar="RUN", type=PATH)
@click.option("--count", type=click.IntRange(1), default=20, show_default=True, help="Pictures to draw.")
@click.option("--image", type=PATH, help="Put them on this good image, not on those that the run is trained on.")
@click.option("--defect", type=int, help="Only this defect learned from a source, numbered from 0, as it was learned.")
@click.option("--source", help="With --defect: the source, by its name in RUN/sources, where there are several.")
@click.option("--out", required=True, type=PATH, help="Folder for NUMBER.png and NUMBER_mask.png.")
@click.option("--data", type=PATH, help="Where the training data is now, if it has moved.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Random seed.")
@_json_option
def synthesise(run_folder: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Write synthetic anomalies, as a run is trained on, as pictures with their masks."""
    from edgead.train.synthesise import synthesise as draw

    paths = draw(run_folder, out, console=Terminal(), **options)
    _emit({"pictures": [str(path) for path in paths]}, as_json, f"{len(paths)} pictures with masks in {out}")


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


_OF_LOWER_PRECISION = ("calib_samples", "calib_method", "calib_data", "max_auroc_drop", "max_flips")


def _precision_options(command: F) -> F:
    """Give a verb the options on precision; they are listed in the order above."""
    for option in reversed(_PRECISION_OPTIONS):
        command = option(command)
    return command


@cli.command()
@click.option("--method", default="draem", show_default=True, help="Whose newest finished run is exported.")
@click.option("--category", help="Of the run; 'all' exports the newest run of every category.")
@click.option("--checkpoint", type=PATH, help="The run to export, instead of the newest.")
@click.option("--data", type=PATH, help="Where the data is now, if it has moved; its labelled images judge.")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Override a setting that is open at export."
)
@click.option("--false-reject", default=0.01, show_default=True, help="Share of good parts that may fail.")
@_precision_options
@click.option("--out", type=PATH, help="The bundle. [default: runs/export/RUN.edgead, or RUN-PRECISION.edgead]")
@_force_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["onnx", "engine"]),
    default="onnx",
    show_default=True,
    help="engine: also build the TensorRT engine, on the device that will run it.",
)
@_json_option
def export(
    method: str,
    category: str | None,
    checkpoint: Path | None,
    out: Path | None,
    form: str,
    as_json: bool,
    calib_samples: int,
    calib_method: str,
    calib_data: Path | None,
    max_auroc_drop: float,
    max_flips: float,
    **options: Any,
) -> None:
    """Make a bundle: the graph, compared with the trained network, and its threshold.

    A precision below fp32 must pass a gate, see docs/precision.md. It judges on labelled images too, if --data has any.
    """
    if category == "all" and out:
        raise click.UsageError("--category all writes several bundles; leave out --out.")
    if options["precision"] == "fp32":
        _refuse_given("at --precision fp32", *_OF_LOWER_PRECISION)
    if form == "engine":
        from edgead.runtime.engines.tensorrt_engine import find_tensorrt

        find_tensorrt()  # said before minutes go into something else
    from edgead.export.calibration import Calibration
    from edgead.export.export import export as make
    from edgead.export.export import find_run, find_runs_of_all
    from edgead.export.gate import Budget

    if checkpoint:
        _check_method(checkpoint, method)
        runs = [checkpoint]
    else:
        runs = find_runs_of_all(method) if category == "all" else [find_run(method, category)]
    options["calibration"] = Calibration(calib_samples, calib_method, calib_data)
    options["budget"] = Budget(max_auroc_drop, max_flips)
    bundles = [make(run, out=out, console=Terminal(), **options) for run in runs]
    for bundle in bundles if form == "engine" else ():
        if why := bundle.manifest.failed_engines.get("tensorrt"):  # minutes went into that already
            raise DeviceError(f"{bundle.path} is written, but TensorRT does not run it here: {why}")
        _validate(bundle, "tensorrt")
    text = "\n".join(f"{bundle.path}\nNext:  edgead predict {bundle.path} IMAGES" for bundle in bundles)
    value = [{"bundle": str(bundle.path), "manifest": bundle.manifest.to_dict()} for bundle in bundles]
    _emit({"bundles": value}, as_json, text)


def _validate(bundle: Bundle, engine: str, batch: int = 1) -> EngineValidation:
    from edgead.runtime.engine_validation import validate_engine
    from edgead.runtime.golden import require_agreement

    console = Terminal()
    validation = validate_engine(bundle, engine, batch=batch, console=console)
    console.say(validation.describe())
    require_agreement(validation.golden, validation.engine)
    return validation


@cli.command("import")
@click.argument("files", nargs=-1, required=True, type=PATH)
@click.option("--from", "source", help="anomalib or onnx, for a model that comes as ONNX. [default: onnx]")
@click.option("--method", help="Whose published checkpoint it is, see `edgead methods`; may consist of two files.")
@click.option("--threshold-data", type=PATH, help="Images of good parts that the model was not trained on.")
@click.option("--false-reject", default=0.01, show_default=True, help="Share of good parts that may fail.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="With --method: override a setting.")
@click.option("--size", help="Input HEIGHTxWIDTH, where the model takes any.")
@click.option("--input", "input_name", help="The image input, where there are several.")
@click.option("--score", help="The image score; any tensor of the graph. [default: computed from the map]")
@click.option("--map", "map_name", help="The pixel map; any tensor of the graph, or none.")
@click.option("--pool", default="max", show_default=True, help="Score from the map: max, or top:0.01 (mean of 1 %).")
@click.option("--rgb/--bgr", default=None, help="Colour order that the model wants. [default: rgb]")
@click.option("--scale", type=float, help="Grey values are divided by it first. [default: 255]")
@click.option("--mean", metavar="A,B,C", help="Subtracted then, for each channel; one number for grey. [default: 0]")
@click.option("--std", metavar="A,B,C", help="Divided by then. [default: 1]")
@_precision_options
@click.option("--data", type=PATH, help="Labelled images that a lower precision is judged on, too.")
@click.option("--out", type=PATH, help="The bundle. [default: runs/import/NAME.edgead, or NAME-PRECISION.edgead]")
@_force_option
@_json_option
def import_model(
    files: tuple[Path, ...], source: str | None, method: str | None, as_json: bool, **options: Any
) -> None:
    """Make a bundle of a model that was trained elsewhere.

    \b
    edgead import model.onnx --from anomalib
    edgead import model.onnx --map NAME --threshold-data DIR
    edgead import NAME.pckl NAME_seg.pckl --method draem --threshold-data DIR
    """
    shared = {name: options[name] for name in ("threshold_data", "false_reject", "out", "force")}
    if options["precision"] != "fp32":
        from edgead.export.calibration import Calibration
        from edgead.export.choose import PrecisionOptions
        from edgead.export.gate import Budget

        calibration = Calibration(*(options[name] for name in ("calib_samples", "calib_method", "calib_data")))
        budget = Budget(options["max_auroc_drop"], options["max_flips"])
        shared["precision"] = PrecisionOptions(options["precision"], calibration, budget, options["data"])
    else:
        _refuse_given("at --precision fp32", *_OF_LOWER_PRECISION, "data")
    if method:
        from edgead.export.official import import_checkpoint

        _refuse_given(
            "with --method", "source", "input_name", "score", "map_name", "pool", "rgb", "scale", "mean", "std"
        )
        settings = [*options["settings"], *([f"size={options['size']}"] if options["size"] else [])]
        bundle = import_checkpoint(files, method, settings=settings, console=Terminal(), **shared)
    else:
        from edgead.export.imported import OnnxOptions, import_onnx

        if len(files) != 1:
            raise click.UsageError("One ONNX file at a time. Files of a published method's checkpoint want --method.")
        _refuse_given("without --method", "settings")
        chosen = OnnxOptions(
            input=options["input_name"],
            score=options["score"],
            map=options["map_name"],
            size=_parse_size(options["size"]),
            rgb=options["rgb"],
            scale=options["scale"],
            mean=_parse_numbers("--mean", options["mean"]),
            std=_parse_numbers("--std", options["std"]),
            pool=options["pool"],
        )
        bundle = import_onnx(files[0], source=source or "onnx", options=chosen, console=Terminal(), **shared)
    text = f"{bundle.path}\nNext:  edgead predict {bundle.path} IMAGES"
    _emit({"bundle": str(bundle.path), "manifest": bundle.manifest.to_dict()}, as_json, text)


def _refuse_given(when: str, *names: str) -> None:
    """Refuse options that would be ignored."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        if name in names and context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{parameter.opts[0]} means nothing {when}.")


def _check_method(run: Path, method: str) -> None:
    """Refuse another method than a run's, where the command line names both."""
    from edgead.train.checkpoint import load_run_config

    given = click.get_current_context().get_parameter_source("method") is click.core.ParameterSource.COMMANDLINE
    if given and (own := load_run_config(run).method) != method:
        raise click.UsageError(f"{run} is a run of {own}, not of {method}.")


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


@cli.command()
@click.argument("bundle", type=PATH)
@click.argument("paths", nargs=-1, required=True, type=PATH)
@click.option(
    "--save",
    type=PATH,
    help="Folder for overlays (heat where the map is high, the mask outlined) and reconstructions, where there are.",
)
@_force_option
@_runtime_options
@_json_option
def predict(
    bundle: Path,
    paths: tuple[Path, ...],
    save: Path | None,
    force: bool,
    engine: str,
    threshold: str | None,
    as_json: bool,
) -> None:
    """Decide on images, and on folders with their subfolders."""
    from edgead.files import refuse_existing
    from edgead.runtime.inspector import load
    from edgead.runtime.ledger import Ledger
    from edgead.runtime.predict import collect_images
    from edgead.runtime.predict import predict as decide

    ledger = Ledger()
    images = collect_images(paths)
    if images.left_out:
        click.echo(images.left_out, err=True)
    refuse_existing((save / name for _, name in images.images) if save else (), force)
    with (
        load(bundle, engine=engine, threshold=threshold, console=Terminal()) as inspector,
        Terminal().bar("inspecting", len(images)) as step,
    ):
        results = []
        for result in decide(inspector, images, save):
            ledger.enter(result.source_id)
            ledger.count(result)
            results.append(result.to_dict())
            step("")
            if not as_json:
                click.echo(_line(results[-1]))
    summary = {"bundle": str(bundle), **ledger.snapshot()}
    if as_json:
        _emit({**summary, "left_out": images.left_out, "results": results}, True, "")
    else:
        click.echo(f"{ledger.passed} PASS, {ledger.failed} FAIL, {ledger.unknown} UNKNOWN", err=True)


def _line(result: dict[str, Any]) -> str:
    from edgead.runtime.result import place_of

    score = "-" if result["score"] is None else f"{result['score']:.6g}"
    where = result["path"] and click.format_filename(result["path"])
    where = where or place_of(result["source_id"], result["frame_id"])
    reason = f"  ({result['reason']})" if result["score"] is None else ""
    return printable(f"{result['verdict']:<8}{score:<12}{where}{reason}")


@cli.command()
@click.argument("bundle", type=PATH)
@click.option(
    "--source",
    "sources",
    multiple=True,
    required=True,
    metavar="[NAME=]URI",
    help="Camera, video, folder …; see docs/sources.md. Repeatable; NAME is what results call it.",
)
@click.option(
    "--sink", "sinks", multiple=True, help="jsonl:FILE, sqlite:FILE, mqtt://…; see docs/sinks.md. Repeatable."
)
@click.option("--max-frames", type=click.IntRange(1), help="Stop after that many results.")
@click.option(
    "--on-full",
    type=click.Choice(["wait", "drop-oldest", "drop-newest"]),
    default="drop-oldest",
    show_default=True,
    help="When a camera is faster than the engine. Files always wait.",
)
@click.option(
    "--max-staleness",
    type=float,
    help="ms: an older picture is UNKNOWN, not inferred. [default: cameras 2000 on the way here; inf for never]",
)
@click.option("--deadline", type=float, help="ms from making the picture after which a decision is UNKNOWN.")
@click.option(
    "--batch", type=click.IntRange(1, 1024), default=1, show_default=True, help="Most frames in one inference."
)
@click.option("--silence", type=float, default=5.0, show_default=True, help="s without a frame until that is reported.")
@click.option(
    "--health",
    type=click.Choice(["live", "all", "off"]),
    default="live",
    show_default=True,
    help="Sources to check for black, blurred, frozen and stretched pictures.",
)
@click.option(
    "--untrained-aspect",
    type=click.Choice(["report", "unknown"]),
    default="report",
    show_default=True,
    help="When frames have an aspect ratio that no training image had: say it once, or UNKNOWN too.",
)
@click.option("--keep-warm", type=float, default=0.0, help="Run the engine on a blank frame after this many idle s.")
@click.option("--roi", multiple=True, help="What counts: a mask image, or x,y,width,height from 0 to 1. Repeatable.")
@click.option("--ignore", multiple=True, help="What does not count, in the same form. Repeatable.")
@click.option("--min-area", type=click.IntRange(0), default=0, help="Pixels; smaller defects pass.")
@click.option("--boxes", "shapes", flag_value="boxes", multiple=True, help="Put the defects' boxes into the results.")
@click.option("--contours", "shapes", flag_value="contours", multiple=True, help="Put their outlines into the results.")
@click.option("--record", type=PATH, help="Folder that keeps frames and results, for --source replay:DIR.")
@click.option("--shadow", type=PATH, help="A second bundle that runs beside; signal USR1 exchanges the two.")
@click.option(
    "--metrics", metavar="PORT", help="Serve Prometheus metrics on this port of 127.0.0.1, or on ADDRESS:PORT."
)
@click.option("--metrics-token", default="", help="Bearer token that requests for metrics must carry; '${NAME}' works.")
@_runtime_options
@_json_option
def run(bundle: Path, as_json: bool, **options: Any) -> None:
    """Decide on every frame of one or several sources. Without a sink, results are printed.

    Ctrl-C or signal TERM end it within 15 s: what is captured is still decided and written. A second one ends it at
    once. Signal HUP reads the bundle again.
    """
    from edgead.runtime.signals import ignore_early

    ignore_early()
    from edgead.runtime.run import run as go

    printed = any(sink.endswith(":-") for sink in options["sinks"])
    show = None if options["sinks"] or as_json else lambda result: click.echo(_line(result.to_dict()))

    ended: list[bool] = []

    def finish(summary: dict[str, Any]) -> None:
        ended.append(True)
        text = json.dumps(summary) if as_json else _ledger_line(summary)
        click.echo(text, err=printed or not as_json)

    try:
        go(bundle, on_result=show, on_end=finish, console=Terminal(), **options)
    except KeyboardInterrupt:
        if not ended:
            raise
        sys.exit(INTERRUPTED)  # everything was decided and written: that is no error


def _ledger_line(summary: dict[str, Any]) -> str:
    def by_cause(counts: dict[str, int]) -> str:
        return f" ({', '.join(f'{cause} {count}' for cause, count in counts.items())})" if counts else ""

    line = (
        f"captured {summary['captured']} = passed {summary['passed']} + failed {summary['failed']} "
        f"+ unknown {summary['unknown']}{by_cause(summary['unknown_by_cause'])} "
        f"+ dropped {summary['dropped']}{by_cause(summary['dropped_by_cause'])}"
    )
    if summary["reported_by_cause"]:
        line += f"; reported{by_cause(summary['reported_by_cause'])}"
    return line


@cli.command()
@click.argument("bundles", nargs=-1, required=True, type=PATH)
@click.option("--data", required=True, type=PATH, help="Labelled test images: one category, or a folder of several.")
@click.option(
    "--rounds", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Timed calls of each bundle."
)
@click.option(
    "--pixel-size",
    type=click.IntRange(32, 4096),
    default=256,
    show_default=True,
    help="Side at which pixel metrics are computed.",
)
@click.option("--out", type=PATH, help="Folder of the report. [default: runs/benchmark/TIME]")
@_force_option
@_engine_option
@_json_option
def benchmark(
    bundles: tuple[Path, ...],
    data: Path,
    rounds: int,
    pixel_size: int,
    out: Path | None,
    force: bool,
    engine: str,
    as_json: bool,
) -> None:
    """Measure latency against AUROC: table, results.json, results.csv and report.html."""
    from edgead.benchmark.benchmark import benchmark as measure
    from edgead.benchmark.benchmark import to_table

    report, folder = measure(
        bundles,
        data,
        engine=engine,
        rounds=rounds,
        pixel_size=pixel_size,
        out=out,
        force=force,
        command=["edgead", *map(redact, sys.argv[1:])],
        console=Terminal(),
    )
    table = to_table([*report.rows, *report.results["averages"]])
    _emit(report.results, as_json, f"{table}\n\nReport: {folder / 'report.html'}")


@cli.command()
@click.argument("bundle", type=PATH)
@_engine_option
@_json_option
def inspect(bundle: Path, engine: str, as_json: bool) -> None:
    """Show what is in a bundle; check its hashes and run its golden frames on this machine."""
    from edgead.bundle import read_bundle
    from edgead.manifest import describe_sensitivity
    from edgead.runtime.engines import open_engine
    from edgead.runtime.golden import check_golden, require_agreement

    opened = read_bundle(bundle)
    with contextlib.closing(open_engine(engine, opened, console=Terminal())) as runner:
        check = check_golden(opened, runner)
        manifest, name = opened.manifest, runner.name
    facts = {
        "bundle": manifest.name,
        "method": f"{manifest.method} ({manifest.preset})",
        "category": manifest.category,
        "input": f"{manifest.size[0]}×{manifest.size[1]}{_depth_words(manifest.pixels.depth_range)}",
        "precision": manifest.precision,
        "threshold": manifest.threshold.describe(manifest.data.unseen).removeprefix("threshold "),
        "parity": f"graph and network differ by at most {manifest.parity.score_error:.2g} in the score, "
        f"{manifest.parity.map_error:.2g} in the map",
        **({"origin": manifest.origin.describe()} if manifest.origin else {}),
        **({"protocol": manifest.training.protocol} if manifest.training.protocol else {}),
        "made": f"{manifest.created} by edgead {manifest.edgead}",
        "files": f"{len(manifest.files)}, hashes right",
        "golden": f"{check.frames} frames on {name}: {check.describe()}",
    }
    if manifest.gate:
        if judged := manifest.gate.describe():
            facts["gate"] = judged
        if manifest.gate.handed_back:
            facts["in fp32"] = ", ".join(manifest.gate.handed_back)
        if manifest.gate.sensitivity:
            facts["sensitive"] = describe_sensitivity(manifest.gate.sensitivity)
        if failed := manifest.failed_engines:
            facts["not on"] = "; ".join(f"{engine}, where it was made: {why}" for engine, why in failed.items())
    if manifest.calibration:
        facts["calibrated"] = manifest.calibration.describe()
    value = {"manifest": manifest.to_dict(), "golden": {**dataclasses.asdict(check), "good": check.good}}
    _emit(value, as_json, "\n".join(f"{key:<10} {text}" for key, text in facts.items()))
    require_agreement(check, name)


def _depth_words(depth_range: tuple[float, float] | None) -> str:
    return "" if depth_range is None else f", with depth from {depth_range[0]:.4g} to {depth_range[1]:.4g}"


@cli.command()
@click.argument("name", required=False)
@_json_option
def methods(name: str | None, as_json: bool) -> None:
    """List the methods and their figures; with a method's NAME its settings, in every preset, too."""
    from edgead.train.describe import as_text, describe
    from edgead.train.methods import get_method

    if name:
        get_method(name)
    described = [entry for entry in describe() if name in (None, entry["name"])]
    text = "\n\n".join(as_text(entry, settings=name is not None) for entry in described)
    _emit(described, as_json, text if name else f"{text}\n\nSettings of a method:  edgead methods NAME")


@cli.command()
@click.option("--build", "bundle", type=PATH, help="Build this bundle's engine here, check its golden frames, time it.")
@click.option("--engine", default="tensorrt", show_default=True, help="With --build: any engine, with its settings.")
@click.option("--batch", type=click.IntRange(1, 1024), default=1, help="With --build: as for `edgead run`.")
@_json_option
def doctor(bundle: Path | None, engine: str, batch: int, as_json: bool) -> None:
    """Tell what this machine can run, and what is missing.

    edgead doctor --build BUNDLE proves a bundle on this machine's GPU, which nothing elsewhere can.
    """
    from edgead.doctor import diagnose

    if bundle:
        from edgead.bundle import read_bundle

        validation = _validate(read_bundle(bundle), engine, batch)
        _emit(dataclasses.asdict(validation), as_json, f"ok  {bundle} can be run here on {validation.engine}")
        return
    _refuse_given("without --build", "engine", "batch")
    findings = diagnose()
    marks = {True: "ok", False: "--", None: "  "}
    lines = [f"{marks[finding.good]}  {finding.name:<12} {finding.text}" for finding in findings]
    _emit([dataclasses.asdict(finding) for finding in findings], as_json, "\n".join(lines))


if __name__ == "__main__":
    main()
