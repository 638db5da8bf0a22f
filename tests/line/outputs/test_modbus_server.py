"""The Modbus server, with real clients on loopback."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from plc_parts import Writing, closing, make_result
from waiting import wait_until

from edgead.decision import Verdict
from edgead.errors import ConfigError
from edgead.line.outputs.modbus_server import ModbusServer, open_modbus_server
from edgead.line.outputs.register_map import ACKNOWLEDGE, SIZE, VERDICTS, from_registers, to_registers
from edgead.runtime.sink_worker import SinkWorker
from edgead.runtime.sinks import open_sink

client_module = pytest.importorskip("pymodbus.client", reason="no pymodbus (pip install 'edgead[modbus]')")


@pytest.fixture
def server() -> Iterator[ModbusServer]:
    with closing(open_modbus_server("modbus-server:127.0.0.1:0?hold_ms=2000")) as opened:
        yield opened


@pytest.fixture
def client(server: ModbusServer) -> Iterator[Any]:
    with closing(connect(server)) as connected:
        yield connected


def connect(server: ModbusServer) -> Any:
    client = client_module.ModbusTcpClient("127.0.0.1", port=server.port, timeout=2, retries=0)
    assert client.connect()
    return client


def test_a_plc_polls_and_acknowledges(server: ModbusServer, client: Any) -> None:
    writing = Writing(server.write, make_result(Verdict.FAIL, "Teil-ä"))
    wait_until(lambda: client.read_holding_registers(6).registers == [VERDICTS[Verdict.FAIL]])
    holding, inputs = (
        ask(0, count=ACKNOWLEDGE.address).registers
        for ask in (client.read_holding_registers, client.read_input_registers)
    )
    seen = from_registers(holding)
    assert (seen.part_id, seen.recipe, seen.score, seen.threshold) == ("Teil-ä", "bottle 3", 1.5, 2.5)
    assert from_registers(inputs).sequence == seen.sequence
    assert writing.waits
    answer = client.write_register(ACKNOWLEDGE.address, seen.sequence, device_id=9)  # any unit number
    assert not answer.isError()
    assert writing.end() == ""
    assert client.read_holding_registers(6).registers == [0]
    assert client.read_holding_registers(ACKNOWLEDGE.address).registers == [seen.sequence]


def test_only_the_acknowledgement_can_be_written(server: ModbusServer, client: Any) -> None:
    illegal_function, illegal_address = 1, 2
    Writing(server.write, make_result(Verdict.FAIL))
    wait_until(lambda: client.read_holding_registers(6).registers == [2])
    writes = [
        (client.write_register(6, 1), illegal_address),
        (client.write_registers(ACKNOWLEDGE.address - 1, [1, 1]), illegal_address),
        (client.write_registers(ACKNOWLEDGE.address, [1, 1]), illegal_address),
        (client.write_register(SIZE, 1), illegal_address),
        (client.write_coil(16 * 6, True), illegal_address),
        (client.mask_write_register(address=6, and_mask=0, or_mask=1), illegal_address),
        (client.readwrite_registers(read_address=0, read_count=1, write_address=6, values=[1]), illegal_address),
        (client.read_holding_registers(0, count=SIZE + 1), illegal_address),
        (client.read_coils(0), illegal_function),
    ]
    for answer, expected in writes:
        assert answer.isError()
        assert answer.exception_code in (expected, illegal_function)
    assert client.read_holding_registers(6).registers == [2]
    assert server.handshake.awaits()


def test_a_reader_under_load_never_pairs_two_results(server: ModbusServer) -> None:
    """PASS has even numbers, FAIL odd ones: a reader that polls as fast as it can sees no other pair."""
    server.handshake.continue_after(1000)
    worker, ended, wrong, seen = SinkWorker(server), threading.Event(), [], set[int]()

    def poll(acknowledges: bool) -> None:
        with closing(connect(server)) as client:
            while not ended.is_set():
                read = from_registers(client.read_input_registers(0, count=ACKNOWLEDGE.address).registers)
                if not read.verdict:
                    continue
                number = 1000 + int(read.part_id.removeprefix("part-"))
                if read.verdict != (1 if read.sequence % 2 == 0 else 2) or number != read.sequence:
                    wrong.append(read)
                if acknowledges:
                    seen.add(read.sequence)
                    client.write_register(ACKNOWLEDGE.address, read.sequence)

    readers = [threading.Thread(target=poll, args=(first,)) for first in (True, False)]
    for reader in readers:
        reader.start()
    for number in range(1, 301):
        worker.offer(make_result(Verdict.PASS if number % 2 == 0 else Verdict.FAIL, f"part-{number}"), wait=True)
    wait_until(lambda: worker.accepted == 300, 20.0)
    ended.set()
    for reader in readers:
        reader.join()
    worker.close()
    assert not wrong
    assert seen == set(range(1001, 1301))
    assert (worker.account()["taken"], worker.account()["failed"]) == (300, 0)


def test_what_is_read_is_never_a_verdict_that_is_over() -> None:
    uri = "modbus-server:127.0.0.1:0?hold_ms=150&ack=off"
    with closing(open_modbus_server(uri)) as server, closing(connect(server)) as client:
        server.write(make_result())
        shown, ended = time.monotonic(), 0.0
        while not ended:
            asked = time.monotonic()
            [verdict] = client.read_holding_registers(6).registers
            if verdict:
                assert asked - shown < 0.15
            else:
                ended = time.monotonic()
        assert ended - shown > 0.1


def test_a_reader_that_hangs_up_or_sends_nonsense_disturbs_nobody(server: ModbusServer, client: Any) -> None:
    with closing(connect(server)) as other:
        other.socket.sendall(bytes(range(256)))
    with closing(connect(server)) as another:
        another.socket.sendall(b"\0\1\0\0\0\6\1\3\0")  # half a request
        assert not client.read_holding_registers(0, count=SIZE).isError()


def test_requests_are_answered_in_order_however_they_are_cut(server: ModbusServer) -> None:
    """Several requests in one segment, as of a client that does not wait, and one request in two segments."""
    Writing(server.write, make_result(Verdict.FAIL))
    wait_until(lambda: server.handshake.awaits())
    sequence = server.handshake.snapshot().sequence
    acknowledge = adu(2, struct.pack(">BHH", 6, ACKNOWLEDGE.address, sequence))
    read = struct.pack(">BHH", 3, 6, 1)
    with raw(server) as client:
        client.sendall(adu(1, read) + acknowledge + adu(3, read)[:9])
        answers = [reply_of(client) for _ in range(2)]
        client.sendall(adu(3, read)[9:])
        answers.append(reply_of(client))
    assert answers == [(1, b"\3\2\0\2"), (2, acknowledge[7:]), (3, b"\3\2\0\0")]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (struct.pack(">BHH", 3, 0, 0), 3),
        (struct.pack(">BHH", 4, 0, 126), 3),
        (struct.pack(">BHH", 3, 65535, 2), 2),
        (struct.pack(">BHHB", 16, ACKNOWLEDGE.address, 0, 0), 3),
        (struct.pack(">BHHBH", 16, ACKNOWLEDGE.address, 1, 4, 1), 3),
        (struct.pack(">BH", 3, 0), 3),
        (struct.pack(">BHH", 16, ACKNOWLEDGE.address, 1), 3),
        (struct.pack(">BHHH", 6, ACKNOWLEDGE.address, 1, 1), 3),
        (struct.pack(">BHHHHBH", 23, 0, 1, ACKNOWLEDGE.address, 1, 2, 1), 1),
        (b"\x2b\x0e\1\0", 1),
    ],
)
def test_a_wrong_request_has_the_exception_of_the_protocol(server: ModbusServer, request_: bytes, code: int) -> None:
    with raw(server) as client:
        client.sendall(adu(7, request_))
        assert reply_of(client) == (7, bytes([request_[0] | 0x80, code]))


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.0\r\n\r\n", struct.pack(">HHHB", 1, 0, 300, 1)])
def test_a_client_of_another_protocol_is_disconnected(server: ModbusServer, sent: bytes) -> None:
    with raw(server) as client:
        client.sendall(sent)
        assert client.recv(10) == b""


def test_a_client_that_reads_no_answers_is_disconnected(server: ModbusServer) -> None:
    requests = adu(1, struct.pack(">BHH", 3, 0, SIZE)) * 40_000  # the system keeps some 30,000 answers
    server._loop.loop.limits = replace(server._loop.loop.limits, rate=1 << 30, unanswered=1 << 30)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        with contextlib.suppress(ConnectionError):
            client.sendall(requests)
        wait_until(lambda: not server._loop.loop.connections)


def test_the_heartbeat_counts_time_and_not_requests(server: ModbusServer, client: Any) -> None:
    server.begin(lambda: 0.0)
    first = client.read_holding_registers(2).registers[0]
    server.handshake._beat_at -= 10.0  # as if the PLC had not asked for 10 s
    assert 100 <= client.read_holding_registers(2).registers[0] - first <= 110


def raw(server: ModbusServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), 3.0)


def adu(transaction: int, pdu: bytes) -> bytes:
    return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, 1) + pdu


def reply_of(client: socket.socket) -> tuple[int, bytes]:
    """Return transaction and PDU of the next answer."""
    transaction, _, length, _ = struct.unpack(">HHHB", client.recv(7, socket.MSG_WAITALL))
    return transaction, client.recv(length - 1, socket.MSG_WAITALL)


def test_the_map_has_a_base() -> None:
    with (
        closing(open_modbus_server("modbus-server://127.0.0.1:0?base=4000")) as server,
        closing(connect(server)) as client,
    ):
        assert client.read_holding_registers(0).isError()
        assert client.read_holding_registers(4000).registers == [1]
        assert to_registers(server.handshake.snapshot())[1] == client.read_holding_registers(4001).registers[0]


def test_after_the_end_nothing_answers() -> None:
    server = open_modbus_server("modbus-server:127.0.0.1:0")
    with closing(connect(server)) as client:
        assert client.read_holding_registers(0).registers == [1]
        server.close()
        with pytest.raises(Exception, match=r"unexpectedly closed|Connection"):
            client.read_holding_registers(0)


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("modbus-server:203.0.113.9:5020", "cannot be opened: cannot assign requested address"),
        ("modbus-server:127.0.0.1:70000", "is not an address of a PLC output. Write modbus-server:HOST:PORT"),
        ("modbus-server:127.0.0.1:5020/x", "is not an address of a PLC output"),
        ("modbus-server:127.0.0.1:5020?bas=1", "Unknown option 'bas'.*Did you mean 'base'"),
        ("modbus-server:127.0.0.1:5020?base=65500", "base must be from 0 to 65475"),
        ("modbus-server:127.0.0.1:5020?ack=perhaps", "ack must be on or off"),
    ],
)
def test_a_wrong_address_or_option_is_named(uri: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        open_modbus_server(uri)


def test_it_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymodbus", None)
    open_modbus_server("modbus-server:127.0.0.1:0").close()


def test_two_servers_on_one_port_are_refused(server: ModbusServer) -> None:
    with pytest.raises(ConfigError, match=f"{server.port} cannot be opened: address already in use"):
        open_modbus_server(server.name)


def test_the_runtime_opens_it_by_its_scheme() -> None:
    with closing(open_sink("modbus-server:127.0.0.1:0")) as opened:
        assert isinstance(opened, ModbusServer)
