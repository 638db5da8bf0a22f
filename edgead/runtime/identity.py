"""Identifiers of results, unique across restarts and machines."""

from __future__ import annotations

import secrets
import threading
import time
import uuid

_lock = threading.RLock()  # a signal handler of the host may ask for one while this is held
_newest = 0


def new_id() -> str:
    """Return a UUID of version 7 (RFC 9562): milliseconds, a counter of 12 bits, and 62 random bits.

    Identifiers of one process increase, also when the system's clock is set back.
    """
    global _newest
    with _lock:
        _newest = max(_newest + 1, time.time_ns() // 1_000_000 << 12)
        moment = _newest
    fields = (moment >> 12) << 80 | 7 << 76 | (moment & 0xFFF) << 64 | 0b10 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=fields))
