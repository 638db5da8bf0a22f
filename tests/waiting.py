"""Waits for what happens soon on any machine."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable


def wait_until(
    condition: Callable[[], object], seconds: float = 60.0, running: subprocess.Popen[str] | None = None
) -> None:
    """Wait until a condition is true; fail where it never is, or where the process that makes it true has ended."""
    until = time.monotonic() + seconds
    while not condition():
        assert running is None or running.poll() is None, running.communicate()
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)
