"""Calls the command line and programs in this process, which has imported torch and the engines already."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgead.cli import main


def inside(*arguments: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Call the command line as a process would be; return its exit code and what it wrote.

    Args:
        arguments: the verb and what follows it.
        folder: the current folder of the call.
    """
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)}
    before, given = Path.cwd(), list(map(str, arguments))
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    os.chdir(folder or before)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main(given)
    finally:
        os.chdir(before)
        for number, handler in kept.items():
            signal.signal(number, handler)
    for stream in (out, err):
        stream.flush()
    outputs = (stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(given, int(ended.value.code or 0), *outputs)


def program(path: Path, *arguments: object) -> str:
    """Run a program as ``python PATH ARGUMENT…`` would; return what it prints."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        runpy.run_path(str(path), run_name="__main__")
    return out.getvalue()
