"""Hands messages to viewers: one encoded copy for all, and for each viewer only the newest of each kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

MOST_VIEWERS = 32


class Hub:
    """The newest message of each kind. All but `publish` belongs to the event loop of the server."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._messages: dict[str, tuple[int, bytes]] = {}
        self._count = 0
        self._waiting: set[asyncio.Event] = set()
        self.closed = False

    @property
    def viewers(self) -> int:
        """Viewers that are connected now. Any thread may ask."""
        return len(self._waiting)

    def begin(self) -> None:
        """Take messages from now on, in the running event loop."""
        self._loop = asyncio.get_running_loop()

    def publish(self, event: str, key: str, data: bytes) -> None:
        """Make a message the newest of its key, from any thread. It waits for no viewer.

        Args:
            event: name of the server-sent event.
            key: of messages that replace each other.
            data: JSON in one line.
        """
        message = b"event: " + event.encode() + b"\ndata: " + data + b"\n\n"
        self._soon(self._put, key, message)

    def forget(self) -> None:
        """Drop all messages where nobody watches, from any thread: who comes later must not see old ones."""
        self._soon(self._forget)

    def close(self) -> None:
        """End all viewers' streams, from any thread."""
        self._soon(self._close)

    def _soon(self, *call: object) -> None:
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(*call)  # type: ignore[arg-type]

    def _put(self, key: str, message: bytes) -> None:
        self._count += 1
        self._messages[key] = self._count, message
        self._wake()

    def _forget(self) -> None:
        if not self._waiting:  # a viewer may have come since the caller looked
            self._messages.clear()

    def _close(self) -> None:
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        for event in self._waiting:
            event.set()

    async def messages(self) -> AsyncGenerator[bytes, None]:
        """Yield new messages to one viewer until the run ends. A viewer that is slow misses the older ones."""
        changed, sent = asyncio.Event(), dict[str, int]()
        self._waiting.add(changed)
        try:
            while not self.closed:
                changed.clear()
                new = [(key, one) for key, one in self._messages.items() if one[0] > sent.get(key, 0)]
                if new:
                    sent.update((key, number) for key, (number, _) in new)
                    yield b"".join(message for _, (_, message) in new)
                else:
                    await changed.wait()
            yield b"event: ended\ndata: {}\n\n"
        finally:
            self._waiting.discard(changed)
