"""A PLC on a bench: a real Modbus TCP server whose bits and registers a test sets."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from ports import free_port
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

SIZE = 208
BLOCKS = {1: "co", 2: "di", 3: "hr", 4: "ir"}
"""By the code of the function that reads it."""


class Plc:
    """Serves coils, discrete inputs, holding and input registers 0 to 207 on a free port of loopback.

    Attributes:
        takes: seconds from a question to its answer, which says how it was when it was asked.
    """

    def __init__(self) -> None:
        self.port, self.takes = free_port(), 0.0
        self._values = {name: [0] * SIZE for name in BLOCKS.values()}
        self._loop = asyncio.new_event_loop()
        self._server: Any = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def set(self, block: str, address: int, *values: int) -> None:
        """Set bits (``co``, ``di``) or registers (``hr``, ``ir``)."""
        self._values[block][address : address + len(values)] = values

    def start(self) -> None:
        self._run(self._listen())

    async def _answer(
        self, function: int, _start: int, _address: int, _count: int, words: list[int], _given: list[int] | None
    ) -> None:
        values = self._values[BLOCKS[function]]
        if function > 2:
            words[:] = values
        else:
            for place in range(len(words)):
                words[place] = sum(bit << number for number, bit in enumerate(values[16 * place : 16 * place + 16]))
        await asyncio.sleep(self.takes)

    async def _listen(self) -> None:
        bits = [SimData(0, values=[False] * SIZE, datatype=DataType.BITS)]
        registers = [SimData(0, values=[0] * SIZE, datatype=DataType.REGISTERS)]
        device = SimDevice(0, (bits, bits, registers, registers), action=self._answer)
        self._server = ModbusTcpServer(device, address=("127.0.0.1", self.port))
        await self._server.serve_forever(background=True)

    def stop(self) -> None:
        if self._server:
            self._run(self._server.shutdown())
            self._server = None

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(5)
