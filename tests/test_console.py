"""What reaches a terminal or a log: progress, and no secrets, forged lines or terminal codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from datetime import datetime, timedelta

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
