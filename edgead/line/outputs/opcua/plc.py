"""A PLC at a desk, for OPC UA: it reads the variables of edgead's server."""

from __future__ import annotations

import contextlib
from typing import Any

from edgead.errors import SinkError, require
from edgead.line.outputs.address import at
from edgead.line.outputs.event_loop import EventLoop
from edgead.line.outputs.library_logs import quiet
from edgead.line.outputs.opcua.address_space import MAP, SYSTEM
from edgead.line.outputs.register_map import ACKNOWLEDGE, REGISTERS, Snapshot

TIMEOUT = 2.0
"""Seconds for one request."""


class OpcuaPlc:
    """Reads all variables of the map in one request, as a PLC should.

    Args:
        host, port: of edgead.
    """

    def __init__(self, host: str, port: int) -> None:
        asyncua: Any = require("asyncua", "opcua")
        quiet("asyncua")
        self._asyncua, self._where = asyncua, at(host, port)
        self._loop = EventLoop("opcua-plc")
        self._client: Any = None

    def read(self) -> Snapshot:
        """Return what edgead shows."""
        values = self._ask(self._read())
        return Snapshot(**dict(zip((register.name for register in REGISTERS), values)))

    def acknowledge(self, sequence: int) -> None:
        """Write the number of the result that was handled."""
        self._ask(self._write(sequence))

    async def _connect(self) -> Any:
        if self._client is None:
            client = self._asyncua.Client(f"opc.tcp://{self._where}/edgead/", timeout=TIMEOUT)
            await client.connect()
            self._client = client
        return self._client

    async def _read(self) -> list[Any]:
        client = await self._connect()
        values: list[Any] = await client.read_values([self._node(client, register.name) for register in REGISTERS])
        return values

    async def _write(self, sequence: int) -> None:
        ua = self._asyncua.ua
        client = await self._connect()
        await self._node(client, ACKNOWLEDGE.name).write_value(ua.Variant(sequence, ua.VariantType.UInt16))

    def _node(self, client: Any, name: str) -> Any:
        return client.get_node(self._asyncua.ua.NodeId(f"{SYSTEM}.{MAP}.{name}", 1))

    def _ask(self, work: Any) -> Any:
        try:
            return self._loop.run(work, 2 * TIMEOUT)
        except Exception as error:  # asyncua raises its own kinds, asyncio's and those of the system
            self._leave()
            raise SinkError(
                f"No OPC UA server answers at {self._where}. Is edgead running, with --sink opcua:…?"
            ) from error

    def _leave(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                self._loop.run(client.disconnect(), TIMEOUT)

    def close(self) -> None:
        """End it."""
        self._leave()
        self._loop.close()
