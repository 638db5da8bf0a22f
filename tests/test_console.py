"""What reaches a terminal or a log: no secrets, no forged lines, no terminal codes."""

from __future__ import annotations

import subprocess
import sys

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
