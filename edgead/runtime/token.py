"""Tokens of requests: ``Authorization: Bearer TOKEN``, with a limit on wrong ones."""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import threading
import time
from collections import OrderedDict, deque

from edgead.errors import ConfigError

SHORTEST_TOKEN = 12
"""Characters of a token where other machines can reach the address."""
MOST_WRONG, WITHIN = 5, 60.0
"""Wrong tokens of one address in this many seconds; then every token of that address is refused."""
MOST_ADDRESSES = 1024


def refuse_weak(token: str, what: str) -> None:
    """Refuse a token that could be guessed, or that a header cannot hold.

    Raises:
        ConfigError: begins with `what`.
    """
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"{what} must have at least {SHORTEST_TOKEN} ASCII characters without spaces.\n"
            'Make one:  python3 -c "import secrets; print(secrets.token_urlsafe())"'
        )


class TokenCheck:
    """Compares tokens. Thread-safe.

    Args:
        token: the right one.
        limits_local: wrong tokens of this machine are limited too. Off where another user of the machine must not be
            able to keep out what the line needs.
    """

    def __init__(self, token: str, limits_local: bool = True) -> None:
        self._token, self._limits_local = token.encode(), limits_local
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def refusal(self, authorization: str, address: str) -> tuple[int, str] | None:
        """Return status and reason where a request is refused, else None.

        Args:
            authorization: the header's value; empty for none.
            address: of the client.
        """
        with self._lock:
            now, local, address = time.monotonic(), _is_loopback(address), _network_of(address)
            wrong = self._wrong.get(address, deque())
            while wrong and now - wrong[0] > WITHIN:
                wrong.popleft()
            if len(wrong) >= MOST_WRONG:
                return 429, f"Too many wrong tokens. Wait {WITHIN:.0f} seconds."
            if not authorization:
                return 401, "Token required: Authorization: Bearer TOKEN"
            if hmac.compare_digest(authorization.encode("latin-1", "replace"), b"Bearer " + self._token):
                self._wrong.pop(address, None)
                return None
            if local and not self._limits_local:
                return 401, "Wrong token."
            wrong.append(now)
            self._wrong[address] = wrong
            while len(self._wrong) > MOST_ADDRESSES:
                self._wrong.popitem(last=False)
            return 401, "Wrong token."


def _is_loopback(address: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(address).is_loopback
    return False


def _network_of(address: str) -> str:
    """Return the address, or of IPv6 its /64: a single machine may use all of those."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if found.version == 4 else str(ipaddress.ip_network(f"{found}/64", strict=False))
