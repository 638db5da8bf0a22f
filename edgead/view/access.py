"""Who may read and who may change: token, host, origin, and a limit on wrong tokens."""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from urllib.parse import urlsplit

from edgead.errors import ConfigError
from edgead.runtime.metrics_server import is_local
from edgead.runtime.sources.uri import fill_secrets

SHORTEST_TOKEN = 12
MOST_WRONG, WITHIN = 5, 60.0
"""Wrong tokens of one address in this many seconds; then every token of that address is refused."""
MOST_ADDRESSES = 1024


class Refused(Exception):  # noqa: N818
    """A request that is not answered.

    Args:
        status: of HTTP.
        text: why.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def read_token(text: str) -> str:
    """Return the token of ``${NAME}`` or ``${file:PATH}``; empty for none.

    Raises:
        ConfigError: written on the command line, where other users see it, too short, or not ASCII.
    """
    if not text:
        return ""
    if not re.fullmatch(r"\$\{[^}]+\}", text):
        raise ConfigError(
            "A token on the command line is visible in ps.\n"
            "Read it from the environment or a file:  --view-token '${VIEW_TOKEN}'  or  '${file:PATH}'"
        )
    token = fill_secrets(text)
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"The token in {text} must have at least {SHORTEST_TOKEN} ASCII characters without spaces.\n"
            'Make one:  python3 -c "import secrets; print(secrets.token_urlsafe())"'
        )
    return token


class Access:
    """Decides on requests.

    Args:
        host: the address that the page is served on.
        token: empty for a page on which nothing can be changed.

    Raises:
        ConfigError: other machines reach the address and there is no token.
    """

    def __init__(self, host: str, token: str) -> None:
        self.local = is_local(host)
        if not self.local and not token:
            raise ConfigError(
                f"The page on {host} can be seen by other machines and needs a token.\n"
                "Set one:  --view-token '${VIEW_TOKEN}'"
            )
        self._token = token.encode()
        name = socket.gethostname().lower()
        self._names = {"localhost", host.lower(), name, f"{name.partition('.')[0]}.local", socket.getfqdn().lower()}
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()

    @property
    def may_change(self) -> bool:
        """Whether there is a token, without which nothing can be changed."""
        return bool(self._token)

    def check_host(self, headers: Mapping[str, str]) -> None:
        """Refuse a Host that is neither an address nor a name of this machine.

        A page on the internet can let its own name point to this machine (DNS rebinding); its requests bear that name.

        Raises:
            Refused: it is another name.
        """
        try:
            host = (urlsplit(f"//{headers.get('host', '')}").hostname or "").rstrip(".")
        except ValueError:
            host = ""
        if not _is_address(host) and host not in self._names:
            raise Refused(421, "This page is not served under that name. Use the machine's address.")

    def check_reader(self, headers: Mapping[str, str], address: str) -> None:
        """Refuse a reader from another machine without the token.

        Raises:
            Refused: no token, a wrong one, or too many wrong ones.
        """
        if not self.local:
            self._check_token(headers, address)

    def check_changer(self, headers: Mapping[str, str], address: str) -> None:
        """Refuse a change without the token, or from another website.

        A browser lets another website send neither JSON nor our header without asking us first, and it always sends
        the Origin.

        Raises:
            Refused: one of these.
        """
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "Send JSON: Content-Type: application/json")
        origin = headers.get("origin")
        if headers.get("x-edgead") != "change" or (origin is not None and not _is_same(origin, headers["host"])):
            raise Refused(403, "Changes are accepted from this page only.")
        if not self._token:
            raise Refused(403, "This page is read-only. Start edgead run with --view-token to allow changes.")
        self._check_token(headers, address)

    def _check_token(self, headers: Mapping[str, str], address: str) -> None:
        now, address = time.monotonic(), _network_of(address)
        wrong = self._wrong.get(address, deque())
        while wrong and now - wrong[0] > WITHIN:
            wrong.popleft()
        if len(wrong) >= MOST_WRONG:
            raise Refused(429, f"Too many wrong tokens. Wait {WITHIN:.0f} seconds.")
        given = headers.get("authorization", "").encode("latin-1", "replace")
        if not given:
            raise Refused(401, "Token required.")
        if hmac.compare_digest(given, b"Bearer " + self._token):
            self._wrong.pop(address, None)
            return
        wrong.append(now)
        self._wrong[address] = wrong
        while len(self._wrong) > MOST_ADDRESSES:
            self._wrong.popitem(last=False)
        raise Refused(401, "Wrong token.")


def _network_of(address: str) -> str:
    """Return the address, or of IPv6 its /64: a single machine may use all of those."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if found.version == 4 else str(ipaddress.ip_network(f"{found}/64", strict=False))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_same(origin: str, host: str) -> bool:
    return origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")
