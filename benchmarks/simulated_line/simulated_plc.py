"""A PLC that polls the register map over Modbus TCP, acknowledges, and restarts when it is told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from judge import Judge

from edgead.errors import SinkError
from edgead.line.outputs.modbus_plc import PollingPlc
from edgead.line.outputs.simulate import Plc, PlcProgram

AGAIN_AFTER = 0.005
"""Seconds between two attempts to reach the line."""


class SimulatedPlc:
    """Polls without pauses in a thread of its own, from `begin` to `close`.

    Its program is that of docs/plc.md: it acknowledges each result, again for as long as the line shows it, and keeps
    session and sequence while it restarts.

    Args:
        address: of the line.
        judge: sees every read.
        connect: opens the connection; another one lets tests change what the PLC reads.

    Attributes:
        alive: the line is valid and its heartbeat changes.
        polls: requests that were answered.
        restarts: of the PLC.
        error: why the thread has ended, if it has.
    """

    def __init__(self, address: tuple[str, int], judge: Judge, connect: Callable[[str, int], Plc] = PollingPlc) -> None:
        self._address, self._judge, self._connect = address, judge, connect
        self._link = self._connect(*address)
        self.alive, self.polls, self.restarts = False, 0, 0
        self.error: BaseException | None = None
        self._off_for = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="plc", daemon=True)

    def begin(self) -> None:
        """Begin to poll."""
        self._thread.start()

    def restart(self, seconds: float) -> None:
        """Be off for a time, soon."""
        self._off_for = seconds

    def close(self) -> None:
        """End it."""
        self._stopped.set()
        self._thread.join(10.0)
        self._link.close()

    def _run(self) -> None:
        try:
            self._poll()
        except BaseException as error:  # the simulation must end with it
            self.error = error

    def _poll(self) -> None:
        program, exchanged = PlcProgram(), time.monotonic()
        while not self._stopped.is_set():
            if self._off_for:
                self._restart()
            try:
                began = time.monotonic()
                seen = self._link.read()
                now = time.monotonic()
                self._judge.rest(now - exchanged)
                exchanged = now
                self._judge.see(seen, began, now)
                program.see(seen, now)
                self.alive = program.alive
                if self.alive and seen.verdict:
                    self._link.acknowledge(seen.sequence)
                    self._judge.acknowledged(seen.sequence)
                self.polls += 1
            except SinkError:
                self.alive = False
                self._stopped.wait(AGAIN_AFTER)

    def _restart(self) -> None:
        self._link.close()
        self.alive = False
        self._stopped.wait(self._off_for)
        self._off_for = 0.0
        self._link = self._connect(*self._address)
        self.restarts += 1
