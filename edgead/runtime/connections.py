"""Limits on the connections of servers that are written with asyncio, whichever library answers the requests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

BUSY = 1.0
"""Seconds since its last answer in which a connection is not closed in favour of another one."""
ACCEPTING = 5
"""Turns of a loop until a connection that arrives is admitted or ended, and one to spare."""


@dataclass(frozen=True)
class ConnectionLimits:
    """What clients of one server may use.

    An answer is anything that is sent to the client. One that sends nothing, half a request, or a request byte by byte
    gets none.

    Attributes:
        connections: at once. One more closes the connection that has been without an answer for longest, those first
            that never had one; so idle ones do not keep others out. If all had an answer within `BUSY`, the new one is
            closed.
        silence: seconds without an answer after which a connection is closed.
        unanswered: bytes that may arrive without an answer; with more, the connection is closed.
        rate: bytes per second and connection that are read, evenly after those of the first second. The rest waits in
            the client.
    """

    connections: int = 16
    silence: float = 60.0
    unanswered: int = 4096
    rate: int = 16384


class LimitedLoop(asyncio.SelectorEventLoop):
    """An event loop that limits the connections of all servers in it together.

    Args:
        limits: see `ConnectionLimits`.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        super().__init__()
        self.limits = limits
        self.connections: list[_Connection] = []
        self._servers: list[asyncio.Server] = []

    async def create_server(self, protocol_factory: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
        """As in asyncio."""
        self._servers.append(await super().create_server(lambda: _Connection(protocol_factory, self), *args, **kwargs))
        return self._servers[-1]

    async def stop_listening(self) -> None:
        """Close the servers. asyncio loses a connection that it accepts meanwhile, so they stop accepting first."""
        for server in self._servers:
            for listening in server.sockets:
                self.remove_reader(listening)
        for _ in range(ACCEPTING):
            await asyncio.sleep(0)
        for server in self._servers:
            server.close()

    def close(self) -> None:
        """End the connections that are left, also those that are just being accepted, then the loop."""
        if not self.is_closed():
            self.limits = replace(self.limits, connections=0)
            for connection in list(self.connections):
                connection.end()
            for _ in range(ACCEPTING):
                self.run_until_complete(asyncio.sleep(0))  # else their sockets stay open
        super().close()

    @contextlib.contextmanager
    def working(self, peer: object) -> Iterator[None]:
        """Leave a client's connection open while its request is worked on, which may take minutes.

        Args:
            peer: address and port of the client.
        """
        found = next((each for each in self.connections if each.peer == peer), None)
        if found is None:
            yield
            return
        found.working += 1
        try:
            yield
        finally:
            found.working -= 1
            found.progress = self.time()

    def admit(self, new: _Connection) -> bool:
        """Make room for a connection; return whether it may stay."""
        if len(self.connections) >= self.limits.connections:
            idle = [each for each in self.connections if not each.working]
            first = min(idle, key=lambda each: (each.answers > 0, each.progress), default=None)
            if first is None or (first.answers and self.time() - first.progress < BUSY):
                return False
            first.end()
        self.connections.append(new)
        return True


class _Connection(asyncio.Protocol):
    """Between the transport and the library's protocol, which exists once the connection is admitted."""

    def __init__(self, make: Callable[[], Any], loop: LimitedLoop) -> None:
        self._make, self._loop = make, loop
        self._inner: Any = None
        self._transport: Any = None
        self.answers, self.working, self.progress = 0, 0, loop.time()
        self.peer: object = None
        self._unanswered, self._due = 0, 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.peer = (transport.get_extra_info("peername") or (None,))[:2]
        if not self._loop.admit(self):
            self._transport.abort()
            return
        self._inner = self._make()
        self._inner.connection_made(_Transport(transport, self.answered))
        self._timer = self._loop.call_later(self._loop.limits.silence, self._look)

    def answered(self) -> None:
        self.answers += 1
        self.progress, self._unanswered = self._loop.time(), 0

    def _look(self) -> None:
        limit = self._loop.limits.silence
        left = limit if self.working else self.progress + limit - self._loop.time()
        if left <= 0:
            self.end()
        else:
            self._timer = self._loop.call_later(left, self._look)

    def end(self) -> None:
        """Close at once; what the client was sent last may be lost."""
        if self in self._loop.connections:
            self._loop.connections.remove(self)
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._inner is None or self._transport.is_closing():
            return
        self._unanswered += len(data)
        if self._unanswered > self._loop.limits.unanswered:
            self.end()
            return
        self._slow_down(len(data))
        self._inner.data_received(data)

    def _slow_down(self, size: int) -> None:
        """Read a second's worth at once, then evenly: a PLC that polls without a pause must not wait for long."""
        now = self._loop.time()
        self._due = max(self._due, now - 1) + size / self._loop.limits.rate
        if self._due > now:
            self._transport.pause_reading()
            self._loop.call_at(self._due, self._go_on)

    def _go_on(self) -> None:
        if not self._transport.is_closing():
            with contextlib.suppress(RuntimeError):  # until Python 3.12 a transport that is not paused refuses
                self._transport.resume_reading()

    def eof_received(self) -> bool | None:
        return None if self._inner is None else self._inner.eof_received()

    def pause_writing(self) -> None:
        self._pass("pause_writing")

    def resume_writing(self) -> None:
        self._pass("resume_writing")

    def _pass(self, name: str) -> None:
        if call := getattr(self._inner, name, None):
            call()

    def connection_lost(self, error: Exception | None) -> None:
        if self in self._loop.connections:
            self._loop.connections.remove(self)
        if self._inner is not None:
            self._timer.cancel()
            self._inner.connection_lost(error)


class _Transport:
    """A transport that notices when something is sent."""

    def __init__(self, transport: Any, sent: Callable[[], None]) -> None:
        self._transport, self._sent = transport, sent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._sent()
        self._transport.write(data)

    def writelines(self, parts: Any) -> None:
        self._sent()
        self._transport.writelines(parts)
