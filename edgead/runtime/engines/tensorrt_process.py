"""Builds a plan in a separate process, which can be stopped and may crash without ending this one."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from edgead import errors
from edgead.console import Console
from edgead.errors import DeviceError
from edgead.runtime.engines.tensorrt_build import BuildEvent, BuildRequest, as_json

PROGRAM = "edgead.runtime.engines.tensorrt_build"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class BuiltPlan:
    """How a plan was built.

    Attributes:
        strong: the network is strongly typed.
        precision: what a weakly typed one may use, of ``int8`` and ``fp16``.
        bytes: of the plan.
        seconds: of the build.
        unused: types of `precision` that no layer of the plan has, where TensorRT tells.
    """

    strong: bool
    precision: list[str]
    bytes: int
    seconds: float
    unused: list[str] = field(default_factory=list)


def build_in_process(request: BuildRequest, console: Console) -> BuiltPlan:
    """Build a plan and wait for it. Ctrl-C ends the other process at once; no plan is then written.

    Raises:
        BundleError, ConfigError: see `edgead.runtime.engines.tensorrt_build.build_plan`.
        DeviceError: the builder failed or crashed, or the plan could not be written.
    """
    start = time.monotonic()
    facts: BuildEvent = {}
    paths = os.pathsep.join(path for path in sys.path if path)
    try:
        child = subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-m", PROGRAM, as_json(request)],
            stdin=subprocess.PIPE,  # the child ends when this pipe is closed
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"},
            start_new_session=True,  # Ctrl-C is for this process alone
        )
    except OSError as error:
        raise DeviceError(f"The process that builds the engine cannot be started: {error}.") from error
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        with console.clock("building the engine") as show:
            for line in child.stdout:
                event: BuildEvent = json.loads(line)
                if "phase" in event:
                    show(f"{event['phase']} {event['step']}/{event['steps']}")
                facts.update(event)
        code = child.wait()
    except BaseException:
        child.kill()
        child.wait()
        Path(request.plan).unlink(missing_ok=True)
        raise
    finally:
        child.stdin.close()
        child.stdout.close()
    if "done" not in facts:
        Path(request.plan).unlink(missing_ok=True)
        raise _failure(facts, code, Path(request.plan))
    if "unkept" in facts:
        console.say(f"The timing cache {request.timing_cache} could not be written: {facts['unkept']}. Continuing.")
    unused = facts.get("unused", [])
    if unused:
        console.say(f"TensorRT uses no {' and no '.join(unused)} in this engine: it found float32 faster everywhere.")
    return BuiltPlan(facts["strong"], facts["precision"], facts["done"], round(time.monotonic() - start, 1), unused)


def _failure(facts: BuildEvent, code: int, plan: Path) -> Exception:
    if facts.get("error") == "OSError":
        return disk_error(plan, OSError(facts["number"], facts["text"]))
    if "error" in facts:
        kind: type[Exception] = getattr(errors, facts["error"])
        return kind(facts["text"])
    how = f"was ended by signal {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return DeviceError(
        f"TensorRT's builder {how} without a plan. If memory was short, try  --engine tensorrt:workspace=256"
    )


def disk_error(path: Path, error: OSError) -> DeviceError:
    """Return the error for an engine that could not be written to a path."""
    remedy = f"Check {error.filename or path.parent}, or choose another folder"
    if error.errno in FULL:
        remedy = "Free some space, or choose a folder on another disk"
    return DeviceError(
        f"The engine could not be written to {path.parent}: {error.strerror or error}.\n"
        f"{remedy} with the environment variable XDG_CACHE_HOME."
    )
