"""The command line. Each verb calls the public function of its name; what a verb needs is imported inside it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys

import click

from edgead import __version__
from edgead.cli.benchmarking import benchmark
from edgead.cli.demonstration import demo
from edgead.cli.exporting import export, import_model
from edgead.cli.inspecting import doctor, inspect, methods
from edgead.cli.running import predict, run
from edgead.cli.sweeping import sweep
from edgead.cli.training import synthesise, train
from edgead.console import guard_stderr
from edgead.failures import flush, prepare_streams, report

QUIET = {"OPENCV_LOG_LEVEL": "ERROR", "OPENCV_FFMPEG_LOGLEVEL": "-8"}
"""Silences remarks of OpenCV and FFmpeg on what they cannot open: our error says it. Set a variable to hear them."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code. An error is one to three lines, see `edgead.failures`."""
    for variable, level in QUIET.items():
        os.environ.setdefault(variable, level)  # read when OpenCV is imported, which is later
    prepare_streams()
    guard_stderr()
    with contextlib.suppress(ValueError):  # not in the main thread
        # TERM ends a verb as Ctrl-C does, with nothing half-written
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = cli.main(args=arguments, prog_name="edgead", standalone_mode=False) or 0
    except (Exception, KeyboardInterrupt) as error:
        code = report(error)
    sys.exit(flush(code))


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


for verb in (benchmark, demo, doctor, export, import_model, inspect, methods, predict, run, sweep, synthesise, train):
    cli.add_command(verb)
