"""The event loop of servers that are written with asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket

import pytest

from edgead.runtime.connections import ConnectionLimits, LimitedLoop


@pytest.mark.parametrize("turns", range(6))
def test_a_connection_that_is_being_accepted_is_closed_with_its_loop(turns: int) -> None:
    """Its socket stayed open, because it was not among the connections yet."""
    loop = LimitedLoop(ConnectionLimits())
    server = loop.run_until_complete(loop.create_server(asyncio.Protocol, "127.0.0.1", 0))
    with socket.create_connection(server.sockets[0].getsockname(), 5.0) as client:
        for _ in range(turns):
            loop.call_soon(loop.stop)
            loop.run_forever()
        loop.run_until_complete(loop.stop_listening())
        loop.close()
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
    del server, loop
    gc.collect()  # warns of what is open
