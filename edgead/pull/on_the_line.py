"""Hands a bundle over to a running line, and takes it back where it fails."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from edgead.console import Console
from edgead.errors import EdgeadError, PullError, describe, first_line
from edgead.pull.place import INTERRUPTED, Pulled, take_back
from edgead.pull.watch import Report, RunningLine, wait_for, watch

BACK_WITHIN = 60.0
"""Seconds without an answer that a line may need to start again with the bundle before."""


def hand_over(done: Pulled, line: RunningLine, link: Path, seconds: float, most: float, console: Console) -> Pulled:
    """Let the line take the bundle, and take it back where it fails; `switched` says whether the link points to it."""
    report, old = Report(), ""
    try:
        seen = line.look()
        if seen is None:
            raise PullError("the line does not answer any more")
        report, old = Report(seen.counts), seen.digest
        line.reload()
        report.failed = wait_for(line, done.digest, seen)
        if not report.failed:
            console.say(f"{done.bundle} decides. Watching it for {seconds / 60:g} minutes.")
            report = watch(line, done.digest, seen.counts, seconds, most, console.say)
    except (EdgeadError, KeyboardInterrupt) as error:
        report.failed = INTERRUPTED if isinstance(error, KeyboardInterrupt) else first_line(error).rstrip(".")
    if not report.failed:
        return dataclasses.replace(done, line=report)
    console.say(f"{done.bundle} failed: {report.failed}. Going back.")
    try:
        take_back(done, link)
    except OSError as error:
        console.say(f"Warning: {link} cannot be set back: {error.strerror or error}.")
        return dataclasses.replace(done, line=report)
    seen = line.look()
    try:
        line.reload()
    except EdgeadError as error:  # a service manager may be starting it again, with the old bundle
        console.say(f"Warning: the line was not told to go back: {describe(error)}")
    if old and (why := wait_for(line, old, seen, gone=BACK_WITHIN)):
        console.say(f"Warning: the line may not have gone back: {why}. Restart it.")
    return dataclasses.replace(done, switched=False, line=report)
