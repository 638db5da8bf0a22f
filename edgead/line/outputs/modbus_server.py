"""``modbus-server:HOST:PORT``: a Modbus TCP server that the PLC polls."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgead.errors import ConfigError, require
from edgead.line.outputs.address import at, split_address
from edgead.line.outputs.event_loop import EventLoop
from edgead.line.outputs.handshake import PlcSink, Timing
from edgead.line.outputs.library_logs import quiet
from edgead.line.outputs.register_map import ACKNOWLEDGE, SIZE, to_registers

PORT = 502
FUNCTIONS = (3, 4, 6, 16)
"""Codes: read holding and input registers; write one and several holding registers. The last two also read back."""


@dataclass(frozen=True)
class ServerOptions(Timing):
    """Options of ``modbus-server:``.

    Attributes:
        base: address of the map's first register.
    """

    base: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_base(self.base)


def check_base(base: int) -> None:
    """Check that the map fits behind an address.

    Raises:
        ConfigError: it does not.
    """
    if not 0 <= base <= 65536 - SIZE:
        raise ConfigError(f"base must be from 0 to {65536 - SIZE}, because the map has {SIZE} registers; not {base}.")


def open_modbus_server(uri: str) -> ModbusServer:
    """``modbus-server:HOST:PORT?base=0&…``."""
    return ModbusServer(*split_address(uri, PORT, ServerOptions))


class ModbusServer(PlcSink):
    """Serves the map as holding and as input registers, for any unit number. Only `acknowledge` can be written.

    Each answer is made when it is asked for, from one moment: sequence and verdict in one request always belong
    together, and a verdict that is over is never read.

    Args:
        host, port: to listen on; port 0 takes a free one.
        options: see `ServerOptions`.

    Attributes:
        port: that it listens on.

    Raises:
        ConfigError: it cannot listen there.
        MissingDependencyError: pymodbus is not installed.
    """

    def __init__(self, host: str, port: int, options: ServerOptions | None = None) -> None:
        server: Any = require("pymodbus.server", "modbus")
        simulator: Any = require("pymodbus.simulator", "modbus")
        codes: Any = require("pymodbus.constants", "modbus").ExcCodes
        quiet("pymodbus")
        options = options or ServerOptions()
        super().__init__(f"modbus-server:{at(host, port)}", options)
        base, registers = options.base, simulator.DataType.REGISTERS

        async def access(
            function: int, start: int, address: int, count: int, words: list[int], given: list[int] | None
        ) -> Any:
            """Answer one request: see the `action` of pymodbus's `SimDevice`."""
            if function not in FUNCTIONS:
                return codes.ILLEGAL_FUNCTION
            if given:  # pymodbus has refused all registers but this one
                self.handshake.acknowledge(given[0])
            else:
                words[: ACKNOWLEDGE.address] = to_registers(self.handshake.snapshot())
            return None

        async def listen() -> Any:
            data = [
                simulator.SimData(base, values=[0] * ACKNOWLEDGE.address, datatype=registers, readonly=True),
                simulator.SimData(base + ACKNOWLEDGE.address, values=[0], datatype=registers),
            ]
            device = simulator.SimDevice(0, data, action=access)
            opened = server.ModbusTcpServer(device, address=(host, self.port))
            await opened.serve_forever(background=True)
            return opened

        self._loop = EventLoop("modbus-server")
        with held_port(host, port) as self.port:
            try:
                self._server = self._loop.run(listen(), 5.0)
            except Exception as error:
                self._loop.close()
                raise ConfigError(f"{self.name} cannot be opened: {why_no_listening(host, self.port)}.") from error
        self.name = f"modbus-server:{at(host, self.port)}"
        self.handshake.name = self.name

    def close(self) -> None:
        self.handshake.close()
        self._loop.close(self._server.shutdown)


@contextlib.contextmanager
def held_port(host: str, port: int) -> Iterator[int]:
    """Yield the port to listen on: for 0 a free one, which no other program gets until the server listens.

    On Linux, a socket that is bound and does not listen keeps the port, and a server that sets SO_REUSEADDR, as those
    of asyncio do, can listen on it all the same.
    """
    with contextlib.ExitStack() as stack:
        if port == 0:
            try:
                probe = stack.enter_context(socket.socket(_family(host)))
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, 0))
                port = int(probe.getsockname()[1])
            except OSError:
                port = PORT  # opening then fails with the reason
            if sys.platform != "linux":
                stack.close()
        yield port


def why_no_listening(host: str, port: int) -> str:
    """Return why no server can listen on an address, as the system says it."""
    try:
        with socket.create_server((host, port), family=_family(host)):
            return "it does not answer"
    except PermissionError:
        return f"port {port} is below 1024 and needs a privilege (CAP_NET_BIND_SERVICE); take another one, as in 5020"
    except OSError as error:
        return (os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)).lower()


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
