"""A PLC at a desk, for Modbus: it polls a ``modbus-server:``, or is the server that ``modbus://`` writes to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from edgead.errors import ConfigError, SinkError, require
from edgead.line.outputs.event_loop import EventLoop
from edgead.line.outputs.library_logs import quiet
from edgead.line.outputs.modbus_server import held_port, why_no_listening
from edgead.line.outputs.register_map import ACKNOWLEDGE, SIZE, Snapshot, from_registers


class PollingPlc:
    """Reads all registers in one request, as a PLC should.

    Args:
        host, port: of edgead.
        base: address of the map.
    """

    def __init__(self, host: str, port: int, base: int = 0) -> None:
        client: Any = require("pymodbus.client", "modbus")
        quiet("pymodbus")
        self._client = client.ModbusTcpClient(host, port=port, timeout=1.0, retries=0)
        self._base, self._where = base, f"{host}:{port}"

    def read(self) -> Snapshot:
        """Return what edgead shows."""
        count = ACKNOWLEDGE.address
        words = self._ask("read_holding_registers", self._base, count=count).registers
        if len(words) < count:
            raise SinkError(f"{self._where} answers with {len(words)} registers instead of {count}. Is it edgead?")
        return from_registers(words)

    def acknowledge(self, sequence: int) -> None:
        """Write the number of the result that was handled."""
        self._ask("write_register", self._base + ACKNOWLEDGE.address, sequence)

    def _ask(self, request: str, *arguments: Any, **options: Any) -> Any:
        if not self._client.connect():
            raise SinkError(f"Nothing listens on {self._where}. Is edgead running, with --sink modbus-server:…?")
        try:
            done = getattr(self._client, request)(*arguments, **options)
        except Exception as error:  # pymodbus raises its own kinds and those of the system
            self._client.close()
            raise SinkError(f"{self._where} does not answer.") from error
        if done.isError():
            raise SinkError(f"{self._where} answers {request} with an exception: {done}. Check ?base=")
        return done

    def close(self) -> None:
        """End it."""
        self._client.close()


class ServingPlc:
    """Has holding registers that edgead writes.

    Args:
        host, port: to listen on; port 0 takes a free one.
        base: address of the map; there are no other registers.
        on_write: called with the map after each write, in the server's thread.

    Attributes:
        port: that it listens on.

    Raises:
        ConfigError: it cannot listen there.
    """

    def __init__(
        self, host: str, port: int, base: int = 0, on_write: Callable[[Snapshot], None] = lambda snapshot: None
    ) -> None:
        server: Any = require("pymodbus.server", "modbus")
        simulator: Any = require("pymodbus.simulator", "modbus")
        quiet("pymodbus")
        self._words, self._lock = [0] * SIZE, threading.Lock()
        kind = simulator.DataType.REGISTERS

        async def access(
            function: int, start: int, address: int, count: int, words: list[int], given: list[int] | None
        ) -> None:
            """Keep our copy of the registers; see the `action` of pymodbus's `SimDevice`."""
            with self._lock:
                if given:
                    self._words[address - start : address - start + len(given)] = given
                words[:SIZE] = self._words
            if given:
                on_write(self.read())

        async def listen() -> Any:
            device = simulator.SimDevice(0, [simulator.SimData(base, values=[0] * SIZE, datatype=kind)], action=access)
            opened = server.ModbusTcpServer(device, address=(host, self.port))
            await opened.serve_forever(background=True)
            return opened

        self._loop = EventLoop("modbus-plc")
        with held_port(host, port) as self.port:
            try:
                self._server = self._loop.run(listen(), 5.0)
            except Exception as error:
                self._loop.close()
                why = why_no_listening(host, self.port)
                raise ConfigError(f"The simulated PLC cannot listen on {host}:{self.port}: {why}.") from error

    def read(self) -> Snapshot:
        """Return what edgead shows."""
        with self._lock:
            return from_registers(self._words)

    def acknowledge(self, sequence: int) -> None:
        """Write the number of the result that was handled."""
        with self._lock:
            self._words[ACKNOWLEDGE.address] = sequence

    def close(self) -> None:
        """End it."""
        self._loop.close(self._server.shutdown)
