"""How the command line reports errors, and its exit codes. It never prints a traceback.

An unexpected error is an internal error of edgead. Its traceback goes into a file, and the message shows the path;
``EDGEAD_DEBUG=1`` prints the traceback instead.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import sys
import tempfile
import threading
import traceback
from datetime import datetime
from pathlib import Path
from typing import NoReturn

import click

from edgead import __version__
from edgead.errors import INTERRUPTED, EdgeadError, was_interrupted
from edgead.home import state_folder
from edgead.redaction import redact, shown
from edgead.terminal import CLOSED, echo

UNFORESEEN = 70
DEBUG = "EDGEAD_DEBUG"
LONGEST = 300
"""Longest message of another library that is shown, in characters."""


def prepare_streams() -> None:
    """Make standard input, output and error safe to use.

    A closed stream is opened on the null device: otherwise the next file would get its number, and what a library
    prints. Characters that the encoding lacks are written as escapes: a stream may be ASCII or Latin-1 (a service
    without a locale, a Windows console), and file names may hold any bytes.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        name = ("stdin", "stdout", "stderr")[number]
        setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w"))
        CLOSED.add(name)
    os.close(number)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # closed, or not a text stream of Python's own
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def flush(code: int) -> int:
    """Flush standard output and error; return the exit code, which reports a failure to do so.

    Otherwise the interpreter would try at its end, and print a traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError) as error:
            code = code or (1 if isinstance(error, BrokenPipeError) else report(error))
            with contextlib.suppress(OSError, ValueError):  # not a stream of the system
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return code


def leave(code: object) -> NoReturn:
    """End the process, also while daemon threads are busy in the code of a library.

    The interpreter ends such threads in the middle of C++ code that does not expect it, and the process aborts: a run
    that has ended well would look like a crash. So where there are any, the interpreter's end is left out.

    Args:
        code: exit code, see `sys.exit`.
    """
    if not isinstance(code, int) or not any(thread.daemon for thread in threading.enumerate()):
        sys.exit(code)  # type: ignore[arg-type]
    threading._shutdown()  # type: ignore[attr-defined]  # the other threads, as the interpreter would
    atexit._run_exitfuncs()
    os._exit(flush(code))


def report(error: BaseException) -> int:
    """Print on standard error what happened, in one to three lines; return the exit code."""
    if isinstance(error, (click.Abort, KeyboardInterrupt)) or was_interrupted(error):
        return _complain("interrupted.", INTERRUPTED)
    if isinstance(error, EdgeadError):
        return _complain(str(error), error.exit_code)
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, MemoryError):
        return _complain("Out of memory. Use fewer or smaller images, or a smaller preset.", 2)
    if isinstance(error, OSError) and error.errno is not None:
        where = f" {os.fsdecode(error.filename)}" if isinstance(error.filename, (str, bytes, os.PathLike)) else ""
        return _complain(f"Cannot read or write{where}: {error.strerror or error}.{_remedy(error)}", 2)
    return _unforeseen(error)


def _complain(text: str, code: int) -> int:
    with contextlib.suppress(OSError, ValueError):  # standard error may be closed, too
        echo(click.style("Error:", "red", bold=True) + f" {shown(text)}", err=True)
    return code


def _remedy(error: OSError) -> str:
    return " Free some space and try again." if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""


def _unforeseen(error: BaseException) -> int:
    details = "".join(traceback.format_exception(error))
    if os.environ.get(DEBUG, "0") not in ("", "0"):
        with contextlib.suppress(OSError, ValueError):
            click.echo(details, err=True)
        return UNFORESEEN
    said = " ".join(_redacted(str(error)).split())[:LONGEST]
    file = _keep(_redacted(details))
    where = f"Details: {file}" if file else f"{DEBUG}=1 shows where"
    return _complain(
        f"{type(error).__name__}: {said}\nThis is an internal error of edgead {__version__}; please report it. {where}",
        UNFORESEEN,
    )


def _redacted(text: str) -> str:
    try:
        return redact(text)
    except Exception:  # reporting an internal error must not raise another one
        return "(not shown: it could not be searched for passwords)"


def _keep(details: str) -> Path | None:
    """Write details into a file of the user's state folder, or of the temporary one; None where neither can be."""
    name = f"error-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.txt"
    command = _redacted(" ".join(map(ascii, sys.argv[1:])))
    text = f"edgead {__version__}, Python {sys.version}\narguments: {command}\n\n{details}"
    for folder in (state_folder(), Path(tempfile.gettempdir())):
        with contextlib.suppress(OSError):
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
                return folder / name
    return None
