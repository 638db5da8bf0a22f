"""Signals that arrive even while the main thread is busy in a library."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType


@contextmanager
def listen(
    handlers: Mapping[str, Callable[[int, FrameType | None], None]], heard: Callable[[int], None]
) -> Iterator[None]:
    """Handle signals for as long as the block runs; only the main thread can, elsewhere this does nothing.

    Args:
        handlers: by name, for instance ``"SIGHUP"``; called by the main thread as soon as it runs Python code. Signals
            that this system does not have are skipped.
        heard: called at once with the number of each of these signals, in a separate thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def hear() -> None:
        with reader:
            while numbers := reader.recv(64):
                for number in numbers:
                    heard(number)

    threading.Thread(target=hear, name="signals", daemon=True).start()
    wakeup_before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    before = {
        number: signal.signal(number, handler)
        for name, handler in handlers.items()
        if (number := getattr(signal, name, None)) is not None
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup_before)
        writer.close()


def ignore_early() -> None:
    """Ignore HUP and USR1 until they are handled. Nothing is loaded yet that they could reload or exchange."""
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGHUP", "SIGUSR1"):
            if number := getattr(signal, name, None):
                signal.signal(number, signal.SIG_IGN)
