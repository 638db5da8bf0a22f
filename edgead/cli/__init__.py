"""The command line. Each verb calls the public function of the same name and imports what it needs when it runs."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys

import click

from edgead import __version__
from edgead.cli.benchmarking import benchmark
from edgead.cli.demonstration import demo
from edgead.cli.distilling import distil
from edgead.cli.exporting import export, import_model
from edgead.cli.inspecting import doctor, inspect, methods
from edgead.cli.options import quiet_option
from edgead.cli.planning import plan
from edgead.cli.plc import plc
from edgead.cli.predicting import predict
from edgead.cli.pulling import pull
from edgead.cli.reporting import report as report_command
from edgead.cli.reviewing import review
from edgead.cli.running import run
from edgead.cli.signing import keys, sign
from edgead.cli.sweeping import sweep
from edgead.cli.training import synthesise, train
from edgead.console import guard_stderr, log_as_json
from edgead.failures import flush, prepare_streams, report
from edgead.runtime.signals import ignore_early

QUIET = {"OPENCV_LOG_LEVEL": "ERROR", "OPENCV_FFMPEG_LOGLEVEL": "-8"}
"""Silence OpenCV and FFmpeg about what they cannot open: our error reports it. Set a variable to see their messages."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code. Errors have one to three lines, see `edgead.failures`."""
    for variable, level in QUIET.items():
        os.environ.setdefault(variable, level)  # OpenCV reads it when it is imported, later
    prepare_streams()
    guard_stderr()
    given = sys.argv[1:] if arguments is None else arguments
    if "--log=json" in given or ("--log", "json") in itertools.pairwise(given):  # also if the command line is wrong
        log_as_json()
    with contextlib.suppress(ValueError):  # not in the main thread
        # TERM ends a verb as Ctrl-C does, with nothing half-written; so does HUP, of a terminal that is closed
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        if next((word for word in given if not word.startswith("-")), "") == "run":
            ignore_early()  # there, HUP reloads the bundle
        elif sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # nohup ignores it
            signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        code = cli.main(args=arguments, prog_name="edgead", standalone_mode=False) or 0
    except (Exception, KeyboardInterrupt) as error:
        code = report(error)
    sys.exit(flush(code))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgead")
@quiet_option
def cli() -> None:
    """Visual anomaly detection: train on photographs of good parts, decide on every camera frame.

    \b
    edgead demo                                   see it work on sample parts
    edgead train --method draem --data DIR        train on images of good parts
    edgead export --method draem                  write a bundle for the line
    edgead run BUNDLE --source 0                  PASS or FAIL every frame of camera 0
    """


VERBS = (
    benchmark,
    demo,
    distil,
    doctor,
    export,
    import_model,
    inspect,
    keys,
    methods,
    plan,
    plc,
    predict,
    pull,
    report_command,
    review,
    run,
    sign,
    sweep,
    synthesise,
    train,
)
for verb in VERBS:
    cli.add_command(verb)
