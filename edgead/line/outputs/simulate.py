"""`edgead plc simulate`: the PLC's end of an output, at a desk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from edgead.errors import ConfigError, SinkError
from edgead.line.outputs.address import split_address
from edgead.line.outputs.modbus_client import ClientOptions
from edgead.line.outputs.modbus_plc import PollingPlc, ServingPlc
from edgead.line.outputs.modbus_server import PORT, ServerOptions
from edgead.line.outputs.opcua.plc import OpcuaPlc
from edgead.line.outputs.opcua.server import PORT as OPCUA_PORT
from edgead.line.outputs.opcua.server import OpcuaOptions
from edgead.line.outputs.register_map import Snapshot, refuse_foreign
from edgead.runtime.sources.uri import redact, scheme_of

POLL = 0.01
"""Seconds between two looks at the registers."""
SILENT_AFTER = 1.0
"""Seconds without a heartbeat after which edgead counts as dead."""


class Plc(Protocol):
    """What a simulated PLC can do with its registers."""

    def read(self) -> Snapshot:
        """Return what edgead shows.

        Raises:
            SinkError: it cannot be read.
        """

    def acknowledge(self, sequence: int) -> None:
        """Write the number of the result that was handled."""

    def close(self) -> None:
        """End it."""


def open_plc(uri: str) -> Plc:
    """Open the other end of an output.

    Args:
        uri: of the sink, as edgead gets it.

    Raises:
        ConfigError: no such output, or its address is wrong.
        MissingDependencyError: its package is not installed.
    """
    scheme = scheme_of(uri)
    if scheme == "modbus-server":
        host, port, options = split_address(uri, PORT, ServerOptions)
        return PollingPlc(host, port, options.base)
    if scheme == "modbus":
        host, port, given = split_address(uri, PORT, ClientOptions)
        return ServingPlc(host, port, given.base)
    if scheme == "opcua":
        host, port, _ = split_address(uri, OPCUA_PORT, OpcuaOptions)
        return OpcuaPlc(host, port)
    raise ConfigError(
        f"There is no PLC to simulate for '{redact(uri)}'.\n"
        "Pass the --sink of edgead:  modbus-server:HOST:PORT, modbus://HOST:PORT, opcua:HOST:PORT"
    )


class PlcProgram:
    """What the program of a PLC does in each cycle; docs/plc.md shows the same as structured text.

    Attributes:
        alive: edgead is valid, and its heartbeat changes.
        missed: results that it never saw, by gaps in the sequence.
    """

    def __init__(self) -> None:
        self.alive, self.missed = False, 0
        self._last: tuple[int, int] | None = None  # session and sequence of the last result
        self._heartbeat, self._beat_at = -1, 0.0

    def see(self, snapshot: Snapshot, now: float) -> bool:
        """Look at the registers; return whether they hold a result that was not there before.

        Args:
            snapshot: the registers, from one request.
            now: `time.monotonic` seconds.
        """
        if snapshot.heartbeat != self._heartbeat:
            self._heartbeat, self._beat_at = snapshot.heartbeat, now
        self.alive = snapshot.valid == 1 and now - self._beat_at < SILENT_AFTER
        place = snapshot.session, snapshot.sequence
        if not self.alive or not snapshot.verdict or place == self._last:
            return False
        if self._last and self._last[0] == snapshot.session:
            self.missed += (snapshot.sequence - self._last[1] - 1) % 65535
        self._last = place
        return True


def simulate(
    plc: Plc,
    on_result: Callable[[Snapshot], object],
    *,
    acknowledge: bool = True,
    delay: float = 0.0,
    results: int = 0,
    say: Callable[[str], None] = lambda text: None,
    stopped: threading.Event | None = None,
    program: PlcProgram | None = None,
) -> PlcProgram:
    """Run a PLC's program.

    Args:
        plc: its registers.
        on_result: called with each new result.
        acknowledge: acknowledge each.
        delay: seconds until it does.
        results: end after that many; 0 for no limit.
        say: shows a line when edgead begins or stops to be alive.
        stopped: ends it when set.
        program: to run, for a caller that wants its figures if it is interrupted.

    Returns:
        The program at its end.
    """
    program, stopped = program or PlcProgram(), stopped or threading.Event()
    seen, told = 0, None
    while not stopped.wait(POLL):
        try:
            snapshot = plc.read()
            refuse_foreign(snapshot)  # another device must not be written to
            is_new = program.see(snapshot, time.monotonic())
            state = "edgead is alive." if program.alive else "edgead is not alive: the line must not trust a verdict."
            if is_new:
                on_result(snapshot)
                seen += 1
                stopped.wait(delay if acknowledge else 0.0)
            if acknowledge and program.alive and snapshot.verdict:  # again, if the first one was lost on its way
                plc.acknowledge(snapshot.sequence)
        except SinkError as error:
            state = str(error)
        if state != told:
            say(state)
            told = state
        if results and seen >= results:
            break
    return program
