"""Tells systemd that a run has begun, decides and ends (`sd_notify`). Without systemd it does nothing.

A unit with ``Type=notify`` waits for the first frame's stream, and with ``WatchdogSec=`` systemd restarts a run whose
thread that decides hangs, even if everything else goes on.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable


class Systemd:
    """The service manager of this process, by the variables NOTIFY_SOCKET and WATCHDOG_USEC.

    Args:
        decides: returns whether the run decides; the watchdog is fed only then.
    """

    def __init__(self, decides: Callable[[], bool]) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        self._decides = decides
        period = os.environ.get("WATCHDOG_USEC", "")
        ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._period = int(period) / 1e6 if period.isdecimal() and ours else 0.0
        self._end = threading.Event()

    def ready(self) -> None:
        """The run has begun. From now on the watchdog is fed, if the unit has one."""
        self._tell("READY=1")
        if self._address and self._period:
            threading.Thread(target=self._feed, name="watchdog", daemon=True).start()

    def close(self) -> None:
        """The run ends."""
        self._end.set()
        self._tell("STOPPING=1")

    def _feed(self) -> None:
        while not self._end.wait(self._period / 3):
            if self._decides():
                self._tell("WATCHDOG=1")

    def _tell(self, state: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.sendto(state.encode(), self._address)
