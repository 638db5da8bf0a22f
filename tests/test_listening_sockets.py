"""Every socket that edgead can open: who reaches it, and what a client can take from the others."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from level_bundle import frame_of, make_level_bundle
from ports import free_port

import edgead
from edgead.errors import ConfigError
from edgead.line.outputs.modbus_plc import ServingPlc
from edgead.line.outputs.modbus_server import held_port, open_modbus_server
from edgead.line.outputs.opcua.server import open_opcua
from edgead.line.triggers.http import HttpTrigger
from edgead.runtime import metrics_server
from edgead.runtime.connections import ConnectionLimits, LimitedLoop, _Connection
from edgead.runtime.metrics_server import MetricsServer
from edgead.runtime.run import run
from edgead.view.access import Access
from edgead.view.hub import Hub
from edgead.view.server import Answers
from edgead.view.server import Server as PageServer
from edgead.view.view import View

ROOT = Path(edgead.__file__).parent
QUICK = 0.6
"""Seconds of silence, in the place of those of the product."""
Asked = Callable[[int], bytes]


def exchange(port: int, request: bytes) -> bytes:
    """Send a request and return the beginning of the answer; empty if the connection was closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as link, contextlib.suppress(ConnectionError):
        link.sendall(request)
        return link.recv(100)
    return b""


def http_request(line: str, body: bytes = b"", **headers: object) -> bytes:
    lines = [f"{line} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclasses.dataclass(frozen=True)
class Listening:
    """One kind of socket.

    Attributes:
        open: opens it on a free port of 127.0.0.1; yields the port and its loop, if it has one.
        request, answer: a request, and how its answer begins.
        oversized: more than a client may send.
        modules: that listen.
        elsewhere: opens it for other machines, without a token or certificates; None where the protocol has none.
    """

    open: Callable[[], Any]
    request: bytes
    answer: bytes
    oversized: bytes
    modules: tuple[str, ...]
    elsewhere: Callable[[], Any] | None


@contextlib.contextmanager
def metrics() -> Iterator[tuple[int, None]]:
    server = MetricsServer(0, lambda: "edgead_x 1\n")
    yield server.port, None
    server.close()


@contextlib.contextmanager
def trigger() -> Iterator[tuple[int, None]]:
    opened = HttpTrigger("127.0.0.1", 0, "/part")
    opened.begin(lambda part_id, *_: part_id or "1")
    yield opened.port, None
    opened.close()


@contextlib.contextmanager
def page() -> Iterator[tuple[int, LimitedLoop]]:
    link = socket.create_server(("127.0.0.1", 0))
    answers = Answers(lambda *_: None, lambda _: None, lambda: b"{}", lambda _: b"{}")
    server = PageServer(link, Access("127.0.0.1", ""), Hub(), answers, print)
    port = int(link.getsockname()[1])
    exchange(port, b"x\r\n\r\n")  # it serves
    yield port, server._loop
    server.close()


@contextlib.contextmanager
def modbus() -> Iterator[tuple[int, LimitedLoop]]:
    server = open_modbus_server("modbus-server:127.0.0.1:0")
    yield server.port, server._loop.loop
    server.close()


@contextlib.contextmanager
def simulated_plc() -> Iterator[tuple[int, LimitedLoop]]:
    pytest.importorskip("pymodbus")
    server = ServingPlc("127.0.0.1", 0)
    yield server.port, server._loop.loop
    server.close()


@contextlib.contextmanager
def opcua() -> Iterator[tuple[int, LimitedLoop]]:
    pytest.importorskip("asyncua")
    server = open_opcua("opcua:127.0.0.1:0")
    yield server.port, server._loop.loop
    server.close()


GET_REGISTERS = struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, 0, 4)
"""Modbus: read four holding registers."""
ENDPOINT = b"opc.tcp://127.0.0.1/edgead/"
HELLO = struct.pack("<4sI5II", b"HELF", 32 + len(ENDPOINT), 0, 65535, 65535, 0, 0, len(ENDPOINT)) + ENDPOINT
"""OPC UA: how every connection begins."""
JSON = {"Content_Type": "application/json"}
LARGE = b"x" * 200_000
OUTPUTS = "line/outputs"
SOCKETS = {
    "metrics": Listening(
        metrics,
        http_request("GET /metrics"),
        b"HTTP/1.0 200",
        b"GET /" + LARGE,
        ("runtime/metrics_server.py",),
        lambda: MetricsServer(0, str, host="0.0.0.0"),
    ),
    "trigger": Listening(
        trigger,
        http_request("POST /part", b"{}", **JSON),
        b"HTTP/1.0 202",
        http_request("POST /part", LARGE, **JSON),
        ("line/triggers/http.py",),
        lambda: HttpTrigger("0.0.0.0", 0, "/part"),
    ),
    "page": Listening(
        page,
        http_request("GET /"),
        b"HTTP/1.1 200",
        http_request("GET /", X=LARGE.decode()),
        ("view/view.py", "view/server.py"),
        lambda: View("0.0.0.0:0"),
    ),
    "modbus": Listening(modbus, GET_REGISTERS, GET_REGISTERS[:2], LARGE, (f"{OUTPUTS}/modbus_server.py",), None),
    "simulated PLC": Listening(
        simulated_plc, GET_REGISTERS, GET_REGISTERS[:2], LARGE, (f"{OUTPUTS}/modbus_plc.py",), None
    ),
    "opcua": Listening(
        opcua,
        HELLO,
        b"ACKF",
        struct.pack("<4sII", b"MSGF", 1 << 30, 0) + LARGE * 11,
        (f"{OUTPUTS}/opcua/address_space.py",),
        lambda: open_opcua("opcua:0.0.0.0:0"),
    ),
}


@pytest.fixture(scope="module")
def opened() -> Iterator[dict[str, tuple[int, LimitedLoop | None]]]:
    """Port and loop of each, all open at once."""
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(each.open()) for name, each in SOCKETS.items()}


def test_no_other_module_listens() -> None:
    """What opens a socket for others is in the table above."""
    opens = re.compile(
        r"create_server\(|\.listen\(|\.bind\(\(|LimitedServer\)|HTTPServer\)|TcpServer\(|asyncua\.Server\("
    )
    found = {str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py") if opens.search(path.read_text())}
    tools = {"runtime/connections.py"}  # the limits themselves
    assert found - tools == {module for each in SOCKETS.values() for module in each.modules} - {"view/server.py"}


@pytest.mark.parametrize("name", SOCKETS)
def test_it_answers(name: str, opened: dict[str, Any]) -> None:
    assert exchange(opened[name][0], SOCKETS[name].request).startswith(SOCKETS[name].answer)


@pytest.mark.parametrize("name", SOCKETS)
def test_only_this_machine_reaches_it(name: str, opened: dict[str, Any]) -> None:
    """A server of a protocol without passwords listens where it is told; the others need a token or certificates."""
    elsewhere = SOCKETS[name].elsewhere
    if elsewhere is not None:
        with pytest.raises(ConfigError, match=r"needs a token|need a token|certificates"):
            elsewhere()
    port = opened[name][0]
    listening = {
        line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"
    }
    assert f"0100007F:{port:04X}" in listening
    assert not {f"00000000:{port:04X}"} & listening


@pytest.mark.parametrize("name", SOCKETS)
def test_idle_connections_keep_nobody_out(name: str, opened: dict[str, Any]) -> None:
    """Far more than are allowed, none of which has asked for anything, or half a request."""
    port, kind = opened[name][0], SOCKETS[name]
    with contextlib.ExitStack() as stack:
        for number in range(200):
            link = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            with contextlib.suppress(ConnectionError):
                link.sendall(kind.request[: number % 10])
            if number % 20 == 0:
                assert exchange(port, kind.request).startswith(kind.answer)
        for _ in range(5):
            assert exchange(port, kind.request).startswith(kind.answer)


@pytest.mark.parametrize("name", SOCKETS)
def test_a_request_byte_by_byte_is_given_up(name: str, opened: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    (port, loop), kind = opened[name], SOCKETS[name]
    if loop is None:
        monkeypatch.setattr(metrics_server, "LONGEST_REQUEST", QUICK)
    else:
        monkeypatch.setattr(loop, "limits", dataclasses.replace(loop.limits, silence=QUICK))
    until = time.monotonic() + 30
    with (
        socket.create_connection(("127.0.0.1", port), timeout=0.05) as link,
        contextlib.suppress(ConnectionError),
    ):
        for each in range(10_000):
            assert time.monotonic() < until, "it is still open"
            link.sendall(b"X" if kind.request[:1].isalpha() and each else kind.request[:1])
            with contextlib.suppress(TimeoutError, socket.timeout):
                if link.recv(100) == b"":
                    break
    monkeypatch.undo()
    assert exchange(port, kind.request).startswith(kind.answer)


@pytest.mark.parametrize("name", SOCKETS)
def test_a_request_that_is_too_large_is_refused(name: str, opened: dict[str, Any]) -> None:
    port, kind = opened[name][0], SOCKETS[name]
    assert re.match(rb"$|HTTP/1\.\d 4", exchange(port, kind.oversized))
    assert exchange(port, kind.request).startswith(kind.answer)


class Client:
    """A connection that stays open."""

    def __init__(self, port: int) -> None:
        self.link = socket.create_connection(("127.0.0.1", port), timeout=5)

    def ask(self, request: bytes, size: int) -> bytes:
        self.link.sendall(request)
        answer = b""
        while len(answer) < size and (part := self.link.recv(size - len(answer))):
            answer += part
        return answer


def test_a_plc_that_polls_stays_connected(opened: dict[str, Any]) -> None:
    """While others come and go; and while all of them ask, the newest is the one that is closed."""
    port, loop = opened["modbus"]
    plc = Client(port)
    assert plc.ask(GET_REGISTERS, 17)
    others = [Client(port) for _ in range(60)]
    for _ in range(20):
        assert plc.ask(GET_REGISTERS, 17)[:2] == GET_REGISTERS[:2]
        others += [Client(port)]
    for other in others:
        other.link.close()
    busy = [Client(port) for _ in range(loop.limits.connections)]
    for each in (plc, *busy[1:]):
        assert each.ask(GET_REGISTERS, 17)
    late = Client(port)
    with contextlib.suppress(ConnectionError):
        assert late.ask(GET_REGISTERS, 17) == b""
    assert plc.ask(GET_REGISTERS, 17)
    for each in (plc, late, *busy):
        each.link.close()


def test_a_client_that_asks_too_fast_waits(opened: dict[str, Any]) -> None:
    """It gets each answer, but no more than the rate of bytes that are read in a second."""
    port, loop = opened["modbus"]
    kept, loop.limits = loop.limits, ConnectionLimits(rate=20 * len(GET_REGISTERS))
    try:
        client, began = Client(port), time.monotonic()
        for _ in range(50):
            assert client.ask(GET_REGISTERS, 17)[:2] == GET_REGISTERS[:2]
        assert time.monotonic() - began > 1.0  # 20 at once, then 20 a second
        client.link.close()
    finally:
        loop.limits = kept


def test_a_client_that_polls_without_a_pause_waits_evenly() -> None:
    """Not until a second is over, which would make a verdict late."""
    clock, until = [100.0], []
    loop = SimpleNamespace(
        time=lambda: clock[0], limits=ConnectionLimits(rate=12_000), call_at=lambda at, call: until.append(at)
    )
    connection = _Connection(lambda: None, loop)  # type: ignore[arg-type]
    connection._transport = SimpleNamespace(pause_reading=lambda: None)
    for _ in range(5000):
        waits = len(until)
        connection._slow_down(12)
        if len(until) > waits:
            assert until[-1] - clock[0] <= 0.0011
            clock[0] = until[-1]
    assert 3.9 < clock[0] - 100.0 < 4.1  # the first thousand at once


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a port that nobody listens on")
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1"])
def test_a_free_port_stays_free_until_the_server_listens(host: str) -> None:
    """OPC UA takes a while to begin; meanwhile another program took the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with held_port(host, 0) as port:
        with socket.socket(family) as other, pytest.raises(OSError, match="in use"):
            other.bind((host, port))
        socket.create_server((host, port), family=family).close()
    with held_port(host, 5020) as port:
        assert port == 5020


@pytest.mark.slow
def test_the_stream_goes_on(tmp_path: Path) -> None:
    """A flood on every socket of a run costs no frame; a client of each reads all the while."""
    pytest.importorskip("asyncua")
    bundle = make_level_bundle(tmp_path / "level.edgead").path
    done, read, ends = threading.Event(), {"modbus": 0, "opcua": 0}, []
    ports = [free_port() for _ in read]
    sinks = [f"modbus-server:127.0.0.1:{ports[0]}?ack=off&hold_ms=10", f"opcua:127.0.0.1:{ports[1]}"]

    def flood() -> None:
        links: list[socket.socket] = []
        while not done.is_set():
            for port in ports:
                links.append(socket.create_connection(("127.0.0.1", port), timeout=5))
            for link in links[:-100]:
                link.close()
            del links[:-100]
            time.sleep(0.005)  # it runs in this process, as the stream does
        for link in links:
            link.close()

    def ask() -> None:
        while not done.is_set():
            time.sleep(0.01)
            for port, name in zip(ports, read):
                read[name] += exchange(port, SOCKETS[name].request).startswith(SOCKETS[name].answer)

    def frames() -> Iterator[Any]:
        for thread in threads:  # the servers are open now
            thread.start()
        for number in range(300):
            time.sleep(0.01)
            yield frame_of(number % 250)
        done.set()
        for thread in threads:
            thread.join(20)

    threads = [threading.Thread(target=each) for each in (flood, ask)]
    try:
        results = tmp_path / "r.jsonl"
        run(
            bundle,
            sources=[frames()],
            sinks=[f"jsonl:{results}", *sinks],
            engine="onnxruntime",
            health="off",
            on_end=ends.append,
        )
    finally:
        done.set()
    [summary] = ends
    assert (summary["captured"], summary["inferred"], summary["dropped"]) == (300, 300, 0)
    assert len(results.read_text().splitlines()) == 300
    assert all(count > 10 for count in read.values()), read


def test_the_page_answers_late_where_its_work_takes_long() -> None:
    """Work on a request is no silence: a changeover may take minutes."""
    link = socket.create_server(("127.0.0.1", 0))
    answers = Answers(lambda *_: None, lambda _: None, lambda: time.sleep(1.0) or b"{}", lambda _: b"{}")
    server = PageServer(link, Access("127.0.0.1", ""), Hub(), answers, print)
    server._loop.limits = dataclasses.replace(server._loop.limits, silence=0.2)
    client = http.client.HTTPConnection("127.0.0.1", link.getsockname()[1], timeout=20)
    client.request("GET", "/api/scores")
    answer = client.getresponse()
    assert (answer.status, json.loads(answer.read())) == (200, {})
    client.close()
    server.close()
