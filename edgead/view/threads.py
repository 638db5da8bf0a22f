"""Runs calls that take long beside the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(call: Callable[..., T], *arguments: Any) -> T:
    """Return what a call returns in a thread of its own, or raise what it raises.

    The thread is a daemon: opening a bundle may take minutes, and the end of a run waits for nobody.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(set_outcome: Callable[[Any], None], outcome: object) -> None:
        if not future.done():
            set_outcome(outcome)

    def work() -> None:
        set_outcome: Callable[[Any], None] = future.set_result
        outcome: object
        try:
            outcome = call(*arguments)
        except Exception as error:
            set_outcome, outcome = future.set_exception, error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, set_outcome, outcome)

    threading.Thread(target=work, name="view-request", daemon=True).start()
    return await future
