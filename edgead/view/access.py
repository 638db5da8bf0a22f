"""Who may read and who may change: token, host, origin, and a limit on wrong tokens."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from edgead.errors import ConfigError
from edgead.runtime.metrics_server import is_local
from edgead.runtime.sources.uri import read_secret
from edgead.runtime.token import TokenCheck, refuse_weak


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
    token = read_secret(text, "--view-token")
    if not token:
        return ""
    refuse_weak(token, f"The token in {text}")
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
        self._token, self._check = token, TokenCheck(token)
        self._name = socket.gethostname().lower()
        self._names = {"localhost", host.lower(), self._name, f"{self._name.partition('.')[0]}.local"}
        self._full_name = ""

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
        if not (_is_address(host) or host in self._names or self._is_full_name(host)):
            raise Refused(421, "This page is not served under that name. Use the machine's address.")

    def _is_full_name(self, host: str) -> bool:
        """Return whether it is our name with its domain. Only a name that begins with ours asks the resolver, once."""
        if host.partition(".")[0] != self._name.partition(".")[0]:
            return False
        self._full_name = self._full_name or socket.getfqdn().lower()
        return host == self._full_name

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
        if refused := self._check.refusal(headers.get("authorization", ""), address):
            raise Refused(*refused)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_same(origin: str, host: str) -> bool:
    return origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")
