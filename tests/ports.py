"""Ports of 127.0.0.1 that nobody else gets while the tests run."""

from __future__ import annotations

import socket
import sys


def free_port() -> int:
    """Return a port on which a server of a test can listen. Until then, connections to it are refused.

    A port that was free a moment ago may be anybody's: the system gives it to the next connection. On Linux, a socket
    that is bound and does not listen keeps it from that, and a server that sets SO_REUSEADDR can listen there all the
    same, as those of Python, asyncio and brokers do. It is held until the tests end.
    """
    probe = socket.socket()
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(("127.0.0.1", 0))
    port = int(probe.getsockname()[1])
    if sys.platform == "linux":
        probe.detach()
    else:
        probe.close()
    return port
