"""``modbus-server:HOST:PORT``: a Modbus TCP server that the PLC polls."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from edgead.errors import ConfigError
from edgead.line.outputs.address import at, split_address
from edgead.line.outputs.event_loop import EventLoop
from edgead.line.outputs.handshake import PlcSink, Timing
from edgead.line.outputs.register_map import ACKNOWLEDGE, SIZE, to_registers

PORT = 502
READ_HOLDING, READ_INPUT, WRITE_ONE, WRITE_SEVERAL = 3, 4, 6, 16
"""Function codes."""
FUNCTIONS = (READ_HOLDING, READ_INPUT, WRITE_ONE, WRITE_SEVERAL)
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE = 1, 2, 3
"""Exception codes."""
HEADER = struct.Struct(">HHHB")
"""Of each message in TCP: transaction, protocol (0), number of bytes that follow (unit included), unit."""


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
    """

    def __init__(self, host: str, port: int, options: ServerOptions | None = None) -> None:
        options = options or ServerOptions()
        super().__init__(f"modbus-server:{at(host, port)}", options)
        self._base, self._written = options.base, 0
        self._loop = EventLoop("modbus-server")
        with held_port(host, port) as self.port:
            try:
                listening = self._loop.loop.create_server(lambda: _Connection(self._answer), host, self.port)
                self._loop.run(listening, 5.0)
            except Exception as error:
                self._loop.close()
                raise ConfigError(f"{self.name} cannot be opened: {why_no_listening(host, self.port)}.") from error
        self.name = f"modbus-server:{at(host, self.port)}"
        self.handshake.name = self.name

    def close(self) -> None:
        self.handshake.close()
        self._loop.close()

    def _answer(self, request: bytes) -> bytes:
        """Return the answer to a request: function code and data of each."""
        function = request[0]
        if function not in FUNCTIONS:
            return bytes([function | 0x80, ILLEGAL_FUNCTION])
        try:
            address, count, values = _parsed(request)
        except (struct.error, ValueError):
            return bytes([function | 0x80, ILLEGAL_VALUE])
        first = address - self._base
        if not (ACKNOWLEDGE.address if values else 0) <= first <= SIZE - count:
            return bytes([function | 0x80, ILLEGAL_ADDRESS])
        if values:
            self._written = values[0]
            self.handshake.acknowledge(values[0])
            return request[:5]
        registers = [*to_registers(self.handshake.snapshot()), self._written][first : first + count]
        return struct.pack(f">BB{count}H", function, 2 * count, *registers)


def _parsed(request: bytes) -> tuple[int, int, tuple[int, ...]]:
    """Return address, number of registers, and the values to write, none of a request that reads.

    Raises:
        struct.error, ValueError: the request has another length, or the number of registers is wrong.
    """
    function, address, number = struct.unpack_from(">BHH", request)
    count, values = number, request[5:]
    if function == WRITE_ONE:
        count, values = 1, request[3:]
    elif function == WRITE_SEVERAL:
        size, values = request[5:6], request[6:]
        if len(values) != 2 * count or size != bytes([2 * count]):
            raise ValueError(size)
    if not 1 <= count <= 125 or (function in (READ_HOLDING, READ_INPUT) and values):
        raise ValueError(count)
    return address, count, struct.unpack(f">{count if values else 0}H", values)


class _Connection(asyncio.Protocol):
    """Answers the requests of one client in their order, however TCP cuts them.

    Args:
        answer: see `ModbusServer._answer`.
    """

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer, self._received = answer, b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= HEADER.size and not self._transport.is_closing():
            transaction, protocol, length, unit = HEADER.unpack_from(self._received)
            if protocol != 0 or not 2 <= length <= 254:
                self._transport.close()  # another protocol: no later byte can be understood either
                return
            end = HEADER.size - 1 + length
            if len(self._received) < end:
                return
            request, self._received = self._received[HEADER.size : end], self._received[end:]
            answer = self._answer(request)
            self._transport.write(HEADER.pack(transaction, 0, len(answer) + 1, unit) + answer)

    def pause_writing(self) -> None:
        self._transport.abort()  # some 500 answers wait: this client reads none


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
