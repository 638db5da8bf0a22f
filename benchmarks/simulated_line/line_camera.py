"""A camera that knows when each picture was made: its end in the simulation, and the source that `edgead run` opens.

A picture is a header, its number and the moment when it was made, and its pixels. `edgead run` finds the source
``simulated:PORT`` through an entry point, as it finds any plug-in.
"""

from __future__ import annotations

import socket
import struct
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from edgead.images import COLOUR, Frame, PixelFormat
from edgead.runtime.sources.source import Captured, FrameSource

HEADER = struct.Struct(">Id")
SIDE = 16
SIZE = SIDE * SIDE * 3


class SimulatedCamera:
    """Sends pictures to the line that is connected. One thread uses it.

    While it stalls, pictures are made and wait, or are lost. Call `work` often: it sends what waited.
    """

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.setblocking(False)
        self.port = int(self._server.getsockname()[1])
        self._link: socket.socket | None = None
        self._waiting: deque[bytes] = deque()
        self._stalled_until, self._loses = 0.0, False
        self._number = 0

    @property
    def connected(self) -> bool:
        """A line is there. Ask for it until it is."""
        with suppress(BlockingIOError):
            if self._link is None:
                self._link, _ = self._server.accept()
                self._link.settimeout(5.0)
                self._link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._link is not None

    def stall(self, seconds: float, loses: bool) -> None:
        """Deliver nothing for a time. Pictures that are made meanwhile come late, or never."""
        self._stalled_until, self._loses = time.monotonic() + seconds, loses

    def expose(self, picture: Frame) -> str:
        """Make a picture now. Return what becomes of it: ``shown`` at once, ``late`` or ``lost``."""
        now = time.monotonic()
        stalled = now < self._stalled_until
        if not (stalled and self._loses):
            self._waiting.append(HEADER.pack(self._number, now) + picture.tobytes())
            self.work()
        self._number += 1
        return "shown" if not stalled else "lost" if self._loses else "late"

    def work(self) -> None:
        """Send the pictures that waited, if it does not stall."""
        if time.monotonic() >= self._stalled_until and self._link:
            while self._waiting:
                with suppress(OSError):  # the line was killed
                    self._link.sendall(self._waiting[0])
                self._waiting.popleft()

    def disconnect(self) -> None:
        """Leave the line, with what waits for it."""
        self._waiting.clear()
        self._stalled_until = 0.0
        if self._link:
            self._link.close()
            self._link = None

    def close(self) -> None:
        """Release everything."""
        self.disconnect()
        self._server.close()


class SimulatedSource(FrameSource):
    """The line's end of it."""

    live = True

    def __init__(self, port: int) -> None:
        super().__init__("simulated")
        self._link = socket.create_connection(("127.0.0.1", port))
        self._link.settimeout(0.2)

    def read(self) -> Iterator[Captured]:
        while not self.stopped.is_set():
            data = self._receive(HEADER.size + SIZE)
            if len(data) < HEADER.size + SIZE:
                return
            number, made = HEADER.unpack_from(data)
            picture = np.frombuffer(data, np.uint8, offset=HEADER.size).reshape(SIDE, SIDE, 3)
            yield Captured(picture, "", self.name, number, time.monotonic(), t_made=made)

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size and not self.stopped.is_set():
            with suppress(TimeoutError):
                more = self._link.recv(size - len(data))
                if not more:
                    break
                data += more
        return data

    def close(self) -> None:
        self._link.close()


def open_simulated(uri: str, pixels: PixelFormat = COLOUR) -> SimulatedSource:
    """``simulated:PORT``."""
    return SimulatedSource(int(uri.partition(":")[2]))
