"""The metrics server against slow, rude and foreign clients."""

from __future__ import annotations

import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from waiting import wait_until

from edgead.errors import ConfigError
from edgead.runtime import metrics_server
from edgead.runtime.metrics_server import MetricsServer, parse_address
from edgead.runtime.token import TokenCheck


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetricsServer]:
    monkeypatch.setattr(metrics_server, "LONGEST_REQUEST", 0.5)
    opened = MetricsServer(0, lambda: "edgead_x 1\n")
    yield opened
    opened.close()


def get(port: int, token: str = "") -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


def test_slow_clients_are_cut_off_and_leave_no_thread(server: MetricsServer) -> None:
    before = threading.active_count()
    idle, slow = (socket.create_connection(("127.0.0.1", server.port)) for _ in range(2))
    with idle, slow:
        start = time.monotonic()
        with pytest.raises(OSError, match=r"pipe|reset|aborted"):  # noqa: PT012
            while time.monotonic() - start < 10:
                slow.sendall(b"X")  # never a whole line, and never a pause
                time.sleep(0.05)
        assert time.monotonic() - start < 5
        idle.settimeout(5)
        assert idle.recv(100) == b""
    wait_until(lambda: threading.active_count() <= before)
    assert get(server.port) == "edgead_x 1\n"


def test_many_connections_are_limited(server: MetricsServer) -> None:
    links = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(30)]
    wait_until(lambda: len(server._server._open) > 0)
    time.sleep(0.2)
    assert len(server._server._open) <= metrics_server.MOST_CONNECTIONS
    for link in links:
        link.close()
    wait_until(lambda: not server._server._open)
    assert get(server.port) == "edgead_x 1\n"


def test_reset_client_prints_nothing(server: MetricsServer, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(5):
        link = socket.create_connection(("127.0.0.1", server.port))
        link.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        link.close()
    time.sleep(0.3)
    assert get(server.port) == "edgead_x 1\n"
    assert "".join(capfd.readouterr()) == ""


def test_other_machines_need_a_token() -> None:
    with pytest.raises(ConfigError, match="--metrics-token"):
        MetricsServer(0, lambda: "", host="0.0.0.0")
    with pytest.raises(ConfigError, match="at least 12 ASCII characters"):
        MetricsServer(0, lambda: "", host="0.0.0.0", token="guessable")
    server = MetricsServer(0, lambda: "edgead_x 1\n", host="0.0.0.0", token="right-token-of-metrics")
    try:
        for token in ("", "wrong"):
            with pytest.raises(urllib.error.HTTPError, match="401") as caught:
                get(server.port, token)
            caught.value.close()
        assert get(server.port, "right-token-of-metrics") == "edgead_x 1\n"
    finally:
        server.close()


@pytest.mark.parametrize(
    ("text", "address"),
    [("9100", ("127.0.0.1", 9100)), ("0.0.0.0:0", ("0.0.0.0", 0)), ("[::1]:9100", ("::1", 9100))],
)
def test_address(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "x", "-1", "70000", "host:", "::1:9100", "1.5", "９１００"])
def test_malformed_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="port from 0 to 65535"):
        parse_address(text)


def test_address_that_is_not_ours_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot be served on port 0 of 192\.0\.2\.1"):
        MetricsServer(0, lambda: "", host="192.0.2.1", token="right-token-of-metrics")


def test_a_name_that_points_here_reads_nothing(server: MetricsServer) -> None:
    """As a page on the internet could make it: DNS rebinding. Without a token the address itself is needed."""
    asked = urllib.request.Request(f"http://127.0.0.1:{server.port}/metrics", headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="403") as caught:
        urllib.request.urlopen(asked, timeout=5)
    assert "Python" not in caught.value.headers["Server"]
    caught.value.close()


def test_wrong_tokens_are_counted_by_network() -> None:
    """Those of this machine are not: another user of it must not keep out what the line needs."""
    check = TokenCheck("right-token-of-metrics", limits_local=False)
    for address, statuses in {
        "192.0.2.7": [401] * 5 + [429] * 2,
        "127.0.0.1": [401] * 7,
        "::1": [401] * 7,
        "2001:db8::1": [401] * 5 + [429] * 2,
    }.items():
        refusals = [check.refusal("Bearer wrong", address) for _ in range(7)]
        assert [refusal and refusal[0] for refusal in refusals] == statuses, address
    assert check.refusal("Bearer right-token-of-metrics", "2001:db8::2") == (
        429,
        "Too many wrong tokens. Wait 60 seconds.",
    )
    for address in ("127.0.0.1", "192.0.2.8"):
        assert check.refusal("Bearer right-token-of-metrics", address) is None
        assert check.refusal("", address) == (401, "Token required: Authorization: Bearer TOKEN")
    for _ in range(9):  # an address that asks without a token is not one that guesses
        check.refusal("", "192.0.2.9")
    assert check.refusal("Bearer right-token-of-metrics", "192.0.2.9") is None
