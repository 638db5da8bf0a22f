"""What reaches a terminal or a log: progress, and no secrets, forged lines or terminal codes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from edgead.console import Terminal

PROGRAM = """
import logging, sys, threading
from edgead.console import Terminal, guard_stderr
guard_stderr()
guard_stderr()
uri = "rtsp://me:geheim@cam/line"
Terminal().say(f"The source {uri} has a name with\\nError: forged \\x1b[2J.")
logging.getLogger("edgead").warning("%s\\nfrom a topic", uri)
logging.getLogger("somebody.else").error("token=geheim")
def fail():
    raise OSError(5, f"cannot open {uri}")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
print(f"plain {uri}", file=sys.stderr)
raise RuntimeError(f"last: {uri}?key=geheim")
"""


def test_in_a_log_a_line_now_and_then_stands_for_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal(line_every=0.0).bar("train", 3) as step:
        step("loss 0.5")
        step("")
        step("the end needs no line")
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"train  1/3  0:00:00 left  loss 0\.5", first)
    assert second == "train  2/3  0:00:00 left"


def test_the_first_line_comes_only_after_a_while(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in Terminal().track("reading")(range(100)):
        pass
    assert capsys.readouterr().err == ""


def test_in_a_log_the_clock_tells_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal(line_every=0.01).clock("building") as show:
        show("3 of 9 layers")
        for _ in range(500):
            time.sleep(0.01)
            told = capsys.readouterr().err
            if told:
                break
    assert told.splitlines()[-1] == "building  0:00  3 of 9 layers"


def test_nothing_on_stderr_shows_a_secret_or_is_forged() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 1
    assert "geheim" not in done.stderr
    lines = done.stderr.splitlines()
    assert lines[:5] == [
        "The source rtsp://cam/line has a name with",
        r"  Error: forged \x1b[2J.",
        "Warning: rtsp://cam/line",
        "  from a topic",
        "Warning: token=…",
    ]
    assert "OSError: [Errno 5] cannot open rtsp://cam/line" in lines
    assert lines[-1] == "RuntimeError: last: rtsp://cam/line?key=…"


AS_JSON = """
import logging, sys, threading, warnings
import click
from edgead.console import Terminal, guard_stderr, log_as_json
guard_stderr()
log_as_json()
log_as_json()
guard_stderr()
uri = "rtsp://me:geheim@cam/line"
Terminal().say(f"The source {uri} has a name with\\nError: forged \\x1b[2J.")
with Terminal(line_every=0.0).bar("train", 2) as step:
    step("loss 0.5")
    step("")
logging.getLogger("edgead").warning("%s?token=geheim", uri)
click.echo(click.style("Error:", "red") + " two\\nlines", err=True, color=True)
print("printed", uri, file=sys.stderr)
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
"""


def test_every_message_is_a_json_object_on_a_line_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", AS_JSON], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert all(set(line) == {"time", "level", "message"} for line in lines)
    assert all(datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0) for line in lines)
    assert "geheim" not in done.stderr
    told = [(line["level"], line["message"]) for line in lines]
    assert told[0][0] == "info"
    assert told[0][1].startswith("The source rtsp://cam/line has a name with")
    assert "\x1b" not in told[0][1]
    assert told[1][1].startswith("train  1/2")
    assert told[2] == ("warning", "rtsp://cam/line?token=…")
    assert told[3] == ("error", "two\nlines")
    assert told[4] == ("info", "printed rtsp://cam/line")
    assert "ZeroDivisionError" in told[-1][1]


FULL_DISK = """
import logging, sys, threading
from edgead.console import Terminal, guard_stderr
guard_stderr()
Terminal().say("a message")
logging.getLogger("edgead").warning("another one")
print("a third one", file=sys.stderr)
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
print("goes on")
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("where", ["/dev/full", "closed pipe"])
def test_a_message_that_cannot_be_written_stops_nothing(where: str) -> None:
    if where == "closed pipe":
        reader, descriptor = os.pipe()
        os.close(reader)
    else:
        descriptor = os.open(where, os.O_WRONLY)
    with open(descriptor, "w") as stderr:
        done = subprocess.run([sys.executable, "-c", FULL_DISK], stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert (done.returncode, done.stdout) == (0, "goes on\n")


UNREAD = """
import sys
from edgead import console
console.STDERR_WITHIN = 0.05
console.guard_stderr()
if sys.argv[1:]:
    console.log_as_json()
console.limit_waiting()
console.Terminal().say("left out one")
console.Terminal().say("left out two")
print("goes on", flush=True)
sys.stdin.readline()
console.Terminal().say("is read")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of Windows cannot be asked for room")
@pytest.mark.parametrize("form", [[], ["json"]])
def test_a_message_that_nobody_reads_is_left_out_and_counted(form: list[str]) -> None:
    """A pager that is not scrolled, a `tee` that was stopped: the pipe is full."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    filled = 0
    for size in (4096, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                filled += os.write(writer, b"x" * size)
    os.set_blocking(writer, True)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        subprocess.Popen([sys.executable, "-c", UNREAD, *form], stderr=writer, **pipes) as process,
        open(reader) as stderr,
    ):
        os.close(writer)
        assert process.stdout
        assert process.stdin
        assert process.stdout.readline() == "goes on\n"
        assert stderr.read(filled) == "x" * filled
        process.stdin.write("\n")
        process.stdin.close()
        lines = stderr.read().splitlines()
    if form:
        lines = [json.loads(line)["message"] for line in lines]
    assert [line.removeprefix("Warning: ") for line in lines] == [
        "2 messages were left out: nobody read them.",
        "is read",
    ]


@pytest.mark.parametrize("form", [[], ["log_as_json()"]])
def test_the_form_of_messages_does_not_depend_on_the_encoding(form: list[str]) -> None:
    """click goes round a stream whose encoding is ASCII."""
    program = "; ".join(
        [
            "import click",
            "from edgead.console import guard_stderr, log_as_json",
            "guard_stderr()",
            *form,
            "click.echo('Error: \\u2713 rtsp://me:geheim@cam/line', err=True)",
        ]
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, env=environment)
    said = done.stderr.decode()
    assert (json.loads(said)["message"] if form else said) == (
        "\u2713 rtsp://cam/line" if form else "Error: \u2713 rtsp://cam/line\n"
    )
