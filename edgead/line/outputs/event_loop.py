"""An asyncio loop in a thread of its own, for servers that are written with asyncio."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from edgead.runtime.connections import ConnectionLimits, LimitedLoop

T = TypeVar("T")


class EventLoop:
    """Runs coroutines in a daemon thread until `close`.

    Args:
        name: of the thread.
        limits: of clients, where there is a server.
    """

    def __init__(self, name: str, limits: ConnectionLimits | None = None) -> None:
        self.loop = LimitedLoop(limits or ConnectionLimits())
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        """Run a coroutine and return its result.

        Raises:
            concurrent.futures.TimeoutError: it takes longer than `timeout` seconds; it is cancelled.
        """
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:  # until Python 3.10 a kind of its own
            future.cancel()
            raise

    def close(self, last: Callable[[], Coroutine[Any, Any, object]] | None = None) -> None:
        """Stop listening, cancel what still runs and end the thread. A second call does nothing.

        Args:
            last: makes a coroutine that runs before anything is cancelled; its errors are ignored.
        """
        if self.loop.is_closed():
            return
        for work in (self.loop.stop_listening, last):
            if work:
                with contextlib.suppress(Exception):
                    self.run(work(), 2.0)

        async def cancel() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        try:
            self.run(cancel(), 2.0)
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(2.0)
            if not self._thread.is_alive():
                self.loop.close()
