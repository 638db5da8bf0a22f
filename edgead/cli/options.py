"""Options that several verbs share, and checks of the options a user gave."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from edgead.cli.output import QUIET
from edgead.home import at_home
from edgead.runtime.engine_table import ENGINES
from edgead.settings import BATCH_LIMIT, WORKERS_LIMIT
from edgead.signatures.trust import TRUST

F = TypeVar("F", bound=Callable[..., Any])


class _GivenPath(click.Path):
    """A path. Empty text, of a variable that is not set, would be the current folder.

    A leading ``~/`` that no shell replaced, because of quotes or in a file, is the home folder.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path; empty text is refused."""
        if not value:
            self.fail("the path is empty. Is the variable that it comes from set?", param, ctx)
        return super().convert(at_home(os.fspath(value)), param, ctx)


PATH = _GivenPath(path_type=Path)


class NumberRange(click.FloatRange):
    """A number within limits. Click's own takes NaN, which no comparison finds wrong."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; NaN is refused as what lies outside is."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return number


def _all_of(options: Sequence[Callable[[F], F]]) -> Callable[[F], F]:
    """Combine options into one decorator; the help lists them in this order."""

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def _be_quiet(context: click.Context, _: click.Parameter, quiet: bool) -> None:
    if quiet:
        context.meta[QUIET] = True


quiet_option = click.option(
    "-q", "--quiet", is_flag=True, expose_value=False, callback=_be_quiet, help="Print only results and errors."
)
json_option = _all_of(
    (
        quiet_option,
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output."),
    )
)
"""How the result is printed, for every verb."""
force_option = click.option("--force", is_flag=True, help="Replace existing results.")


def complete_engine(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    """Complete the name of an engine in a shell."""
    return [name for name in ENGINES if name.startswith(begun)]


engine_option = click.option(
    "--engine",
    default="auto",
    show_default=True,
    help=f"Inference engine: {', '.join(ENGINES)}.",
    shell_complete=complete_engine,
)


def _trust(context: click.Context, _: click.Parameter, places: tuple[Path, ...]) -> None:
    """Let the verb, and every process that it starts, load only bundles that one of these keys has signed."""
    if not places:
        return
    before = os.environ.get(TRUST)
    os.environ[TRUST] = os.pathsep.join(str(place.absolute()) for place in places)

    def restore() -> None:
        if before is None:
            os.environ.pop(TRUST, None)
        else:
            os.environ[TRUST] = before

    context.call_on_close(restore)


trust_option = click.option(
    "--trust",
    multiple=True,
    type=PATH,
    envvar=TRUST,
    expose_value=False,
    callback=_trust,
    metavar="KEY",
    help="Public key, or folder of public keys: refuse bundles that are not signed with one of them. Repeatable. "
    f"[default: those of {TRUST}, else any bundle]",
)
decision_options = _all_of(
    (
        engine_option,
        trust_option,
        click.option(
            "--batch",
            type=click.IntRange(1, BATCH_LIMIT),
            default=1,
            show_default=True,
            help="Largest number of frames per inference.",
        ),
        click.option(
            "--threshold",
            help="Frames with a higher score fail. fpr:0.001 allows that share of good parts to fail. "
            "[default: the bundle's]",
        ),
        click.option(
            "--roi",
            multiple=True,
            help="Region of interest: a mask image, or x,y,width,height from 0 to 1. Repeatable.",
        ),
        click.option("--ignore", multiple=True, help="Region to ignore, in the same form. Repeatable."),
        click.option(
            "--min-area",
            type=click.IntRange(0),
            default=0,
            show_default=True,
            help="Pass if the largest defect has fewer pixels.",
        ),
        click.option(
            "--boxes", "shapes", flag_value="boxes", multiple=True, help="Add bounding boxes of defects to the results."
        ),
        click.option(
            "--contours", "shapes", flag_value="contours", multiple=True, help="Add outlines of defects to the results."
        ),
        click.option(
            "--sink",
            "sinks",
            multiple=True,
            metavar="URI",
            help="Where to send results: jsonl:FILE, sqlite:FILE, mqtt://…; see docs/sinks.md. Repeatable.",
        ),
    )
)
"""How frames are decided and where results go, for `predict` and `run`."""

weights_option = click.option(
    "--weights", type=PATH, help="ImageNet weights of the backbone, .pth or .safetensors. [default: download]"
)

training_options = _all_of(
    (
        click.option(
            "--textures", type=PATH, help="Folder of texture images for synthetic anomalies, for instance DTD."
        ),
        click.option(
            "--seed",
            type=click.IntRange(0, 2**63 - 1),
            default=0,
            show_default=True,
            help="Random seed. On a CPU, the same seed and precision return the same result.",
        ),
        click.option(
            "--device", default="auto", show_default=True, help="Device to train on: auto, cpu, cuda or cuda:N."
        ),
        click.option(
            "--mixed-precision",
            type=click.Choice(["auto", "no", "bf16", "fp16"]),
            default="auto",
            show_default=True,
            help="auto: bf16 on a CPU that supports it, if it is faster and the losses agree. no: float32.",
        ),
        click.option(
            "--workers", type=click.IntRange(0, WORKERS_LIMIT), help="Data-loading processes. [default: auto]"
        ),
        click.option(
            "--track",
            multiple=True,
            type=click.Choice(["tensorboard", "mlflow"]),
            help="Log losses, learning rates and held-out figures to an experiment tracker. Repeatable.",
        ),
    )
)
"""How a network is trained, for `train` and `distil`."""

_CALIBRATION = ("calib_samples", "calib_method", "calib_data")
_BUDGET = ("max_auroc_drop", "max_flips")
_PRECISION: Sequence[Callable[[F], F]] = (
    click.option(
        "--precision",
        default="fp32",
        show_default=True,
        help="fp32, fp16, int8, int8-fp16 (other layers in float16), or auto: the fastest here that passes the gate.",
    ),
    click.option("--calib-samples", default=128, show_default=True, help="Number of good images for INT8 calibration."),
    click.option("--calib-method", default="minmax", show_default=True, help="minmax, entropy or percentile."),
    click.option(
        "--calib-data",
        type=PATH,
        help="Good images for INT8 calibration. [default: the training images, or those of --threshold-data]",
    ),
    click.option("--max-auroc-drop", default=0.005, show_default=True, help="Largest loss of AUROC and AUPRO."),
    click.option(
        "--max-flips", default=0.001, show_default=True, help="Largest share of settled verdicts that may change."
    ),
)


def precision_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options on precision to a verb, which gets them as one `PrecisionOptions`, its parameter `precision`."""

    @functools.wraps(command)
    def gathered(
        precision: str,
        calib_samples: int,
        calib_method: str,
        calib_data: Path | None,
        max_auroc_drop: float,
        max_flips: float,
        **others: Any,
    ) -> None:
        from edgead.export.options import Budget, Calibration, PrecisionOptions

        if precision == "fp32":
            # The gate judges these settings too, see `edgead.export.settings_gate`.
            gated = others.get("settings") and click.get_current_context().info_name == "export"
            refuse_given("at --precision fp32", *_CALIBRATION, *(() if gated else _BUDGET))
        calibration = Calibration(calib_samples, calib_method, calib_data)
        budget = Budget(max_auroc_drop, max_flips)
        command(precision=PrecisionOptions(precision, calibration, budget), **others)

    return _all_of(_PRECISION)(gathered)


def _given() -> dict[str, str]:
    """Return name ↦ spelling of the options and arguments on the command line."""
    context = click.get_current_context()
    named = {parameter.name or "": parameter.opts[0] for parameter in context.command.params}
    typed_in = click.core.ParameterSource.COMMANDLINE
    return {name: option for name, option in named.items() if context.get_parameter_source(name) is typed_in}


def refuse_given(when: str, *names: str) -> None:
    """Refuse options that have no effect in this combination."""
    for name, option in _given().items():
        if name in names:
            raise click.UsageError(f"{option} has no effect {when}.")


def refuse_to_change(*allowed: str) -> None:
    """Refuse options that were fixed when the run was started, also with the same value: all but these."""
    for name, option in _given().items():
        if name not in allowed:
            raise click.UsageError(f"{option} cannot be given with --resume: the run keeps its own. Leave it out.")


def required(data: Path | None) -> Path:
    """Return --data; refuse its absence where nothing else says which images are meant."""
    if data is None:
        raise click.UsageError("Missing option '--data'.")
    return data


def check_method(run: Path, method: str) -> None:
    """Refuse a --method that differs from the run's."""
    from edgead.train.run_config import load_run_config

    if "method" in _given() and (own := load_run_config(run).method) != method:
        raise click.UsageError(f"{run} is a run of {own}, not of {method}.")
