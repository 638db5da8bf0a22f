"""The Modbus client, with real servers on loopback that stand for the PLC."""

from __future__ import annotations

import itertools
import logging
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from plc_parts import Writing, closing, make_result
from ports import free_port
from waiting import wait_until

from edgead.decision import Verdict
from edgead.errors import ConfigError, SinkError
from edgead.line.outputs.register_map import Snapshot

pytest.importorskip("pymodbus.client", reason="no pymodbus (pip install 'edgead[modbus]')")

from edgead.line.outputs.modbus_client import ModbusClient, open_modbus_client
from edgead.line.outputs.modbus_plc import ServingPlc


@pytest.fixture
def plc() -> Iterator[ServingPlc]:
    with closing(ServingPlc("127.0.0.1", 0)) as served:
        yield served


@pytest.fixture
def output(plc: ServingPlc) -> Iterator[ModbusClient]:
    with closing(open_modbus_client(f"modbus://127.0.0.1:{plc.port}?hold_ms=2000")) as opened:
        yield opened


def test_a_result_is_written_and_acknowledged(plc: ServingPlc, output: ModbusClient) -> None:
    writing = Writing(output.write, make_result(Verdict.FAIL, "Teil-ä"))
    wait_until(lambda: plc.read().verdict == 2)
    seen = plc.read()
    assert (seen.part_id, seen.recipe, seen.score, seen.valid, seen.failed) == ("Teil-ä", "bottle 3", 1.5, 1, 1)
    assert writing.waits
    plc.acknowledge(seen.sequence)
    assert writing.end() == ""
    wait_until(lambda: plc.read().verdict == 0)
    beat = plc.read().heartbeat
    wait_until(lambda: plc.read().heartbeat != beat)
    output.close()
    assert (plc.read().valid, plc.read().verdict) == (0, 0)


@pytest.mark.parametrize("acknowledged", [True, False])
def test_no_write_ever_pairs_two_results(acknowledged: bool) -> None:
    """The PLC looks after every single write, as if it ran between two requests. PASS has even numbers.

    Without acknowledgement, a result replaces one whose verdict is still shown.
    """
    looks: list[Snapshot] = []
    with closing(ServingPlc("127.0.0.1", 0, on_write=looks.append)) as plc:
        plc.acknowledge(100)  # left from before: numbers follow it, and it acknowledges nothing
        uri = f"modbus://127.0.0.1:{plc.port}?ack={'on' if acknowledged else 'off'}"
        with closing(open_modbus_client(uri)) as output:
            for number in range(101, 131):
                verdict = Verdict.PASS if number % 2 == 0 else Verdict.FAIL
                writing = Writing(output.write, make_result(verdict, f"part-{number}"))
                wait_until(lambda: plc.read().sequence == number and plc.read().verdict != 0)  # noqa: B023
                if acknowledged:
                    plc.acknowledge(number)
                assert writing.end() == ""
            wait_until(lambda: plc.read().verdict == 0)
    shown = [look for look in looks if look.verdict]
    assert {look.sequence for look in shown} == set(range(101, 131))
    for look in shown:
        assert (look.verdict, look.part_id) == (1 if look.sequence % 2 == 0 else 2, f"part-{look.sequence}")
    for before, after in itertools.pairwise(looks):  # a new number always comes with verdict 0
        assert before.sequence == after.sequence or after.verdict == 0


def test_without_handshake_a_result_is_taken_when_it_is_written(plc: ServingPlc) -> None:
    with closing(open_modbus_client(f"modbus://127.0.0.1:{plc.port}?ack=off&hold_ms=200")) as output:
        output.write(make_result())
        assert plc.read().verdict == 1
        wait_until(lambda: plc.read().verdict == 0)
        assert output.details()["alarm"] is False


def test_a_plc_that_comes_later_and_goes_is_found_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    port = free_port()
    with closing(open_modbus_client(f"modbus://127.0.0.1:{port}?hold_ms=50&timeout_ms=100")) as output:
        assert "the PLC cannot be reached: no connection to 127.0.0.1" in Writing(output.write, make_result()).end()
        with closing(ServingPlc("127.0.0.1", port)) as plc:
            wait_until(lambda: plc.read().valid == 1 and not output.details()["trouble"])
            assert output.details() == {**output.details(), "alarm": True, "unacknowledged": 1}
            Writing(output.write, make_result(part="part-2")).end()
            wait_until(lambda: plc.read().part_id == "part-2")
            plc.acknowledge(plc.read().sequence)
            wait_until(lambda: not output.details()["alarm"])
        wait_until(lambda: output.details()["trouble"])
    lines = [record.message.partition(f":{port}: ")[2] for record in caplog.records]
    assert any(line.startswith("no connection") for line in lines)
    assert "the PLC answers again" in lines


def test_a_look_before_a_run_finds_the_registers(plc: ServingPlc, output: ModbusClient) -> None:
    assert output.look() == "the PLC has the registers 0 to 60"
    assert plc.read().valid == 0


def test_registers_that_do_not_exist_are_named(plc: ServingPlc) -> None:
    with closing(open_modbus_client(f"modbus://127.0.0.1:{plc.port}?base=30&hold_ms=100")) as output:
        error = Writing(output.write, make_result()).end()
        with pytest.raises(SinkError, match="it has no such registers"):
            output.look()
    assert "exception 2: it has no such registers" in error
    assert "it needs the holding registers 30 to 90" in error
    assert plc.read() == Snapshot(version=0)


def test_a_plc_that_does_not_answer_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts, and that is all
        uri = f"modbus://127.0.0.1:{silent.getsockname()[1]}?timeout_ms=50&hold_ms=150"
        with closing(open_modbus_client(uri)) as output:
            assert "it is connected and does not answer" in Writing(output.write, make_result()).end()


def test_a_plc_that_answers_with_nonsense_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)

        def answer() -> None:
            link, _ = server.accept()
            with link:
                link.sendall(bytes(range(64)) * 8)
                time.sleep(0.3)

        thread = threading.Thread(target=answer)
        thread.start()
        uri = f"modbus://127.0.0.1:{server.getsockname()[1]}?timeout_ms=50&hold_ms=200"
        with closing(open_modbus_client(uri)) as output:
            assert "the PLC cannot be reached" in Writing(output.write, make_result()).end()
        thread.join()


def test_a_second_writer_in_this_process_is_refused(plc: ServingPlc, output: ModbusClient) -> None:
    for base in (0, 60):
        with pytest.raises(ConfigError, match="another --sink writes the registers 0 to 60"):
            open_modbus_client(f"modbus://127.0.0.1:{plc.port}?base={base}")
    output.close()
    open_modbus_client(f"modbus://127.0.0.1:{plc.port}").close()


def test_a_second_program_leaves_the_first_one_alone(
    plc: ServingPlc, output: ModbusClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    output.begin(lambda: 0.0)
    wait_until(lambda: plc.read().valid == 1)
    session = plc.read().session
    monkeypatch.setattr("edgead.line.outputs.modbus_client._claims", set())  # as in another process
    with closing(open_modbus_client(f"modbus://127.0.0.1:{plc.port}?hold_ms=800")) as second:
        second.begin(lambda: 0.0)
        assert "another program writes the registers 0 to 60" in Writing(second.write, make_result()).end()
        assert plc.read().session == session
        assert output.details()["trouble"] is None
        output.close()
        wait_until(lambda: plc.read().session == second.handshake.session)


def test_a_plc_that_restarts_gets_the_result_again(plc: ServingPlc, output: ModbusClient) -> None:
    """It was taken for another program that writes the registers, and had no verdict for half a second."""
    output.begin(lambda: 0.0)
    writing = Writing(output.write, make_result())
    for _ in range(5):
        wait_until(lambda: plc.read().verdict == 1)
        sequence, began = plc.read().sequence, time.monotonic()
        with plc._lock:
            plc._words[:] = [0] * len(plc._words)
        wait_until(lambda: plc.read().verdict == 1)
        assert time.monotonic() - began < 0.4
        assert (plc.read().sequence, plc.read().part_id) == (sequence, "part-1")
        assert output.details()["trouble"] is None
    plc.acknowledge(sequence)
    assert writing.end() == ""


def test_a_plc_that_keeps_nothing_takes_no_result() -> None:
    """Its registers are empty after each write, as after a restart."""

    def forget(_: Snapshot) -> None:
        plc._words[:] = [0] * len(plc._words)

    with (
        closing(ServingPlc("127.0.0.1", 0, on_write=forget)) as plc,
        closing(open_modbus_client(f"modbus://127.0.0.1:{plc.port}?hold_ms=800")) as output,
    ):
        output.begin(lambda: 0.0)
        assert (
            "the holding registers 0 to 60 are empty after they were written"
            in Writing(output.write, make_result()).end()
        )


def test_a_writer_that_overwrites_us_is_noticed(plc: ServingPlc, output: ModbusClient) -> None:
    output.begin(lambda: 0.0)
    wait_until(lambda: plc.read().valid == 1)
    beat = plc.read().heartbeat
    wait_until(lambda: plc.read().heartbeat != beat)
    spoil: Any = plc._words  # once, and not while anything is written
    spoil[1] = (output.handshake.session + 1) % 65536
    wait_until(lambda: output.details()["trouble"])
    assert "another program writes" in output.details()["trouble"]


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("modbus://", "is not an address of a PLC output. Write modbus://HOST:PORT"),
        ("modbus://plc:502/1", "is not an address"),
        ("modbus://plc:502?unit=300", "unit must be from 0 to 255"),
        ("modbus://plc:502?timeout_ms=1", "timeout_ms must be at least 10"),
        ("modbus://plc:502?base=-1", "base must be a number from 0 to 1e9"),
        ("modbus://plc:502?base=1000000001", "base must be a number from 0 to 1e9"),
    ],
)
def test_a_wrong_address_or_option_is_named(uri: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        open_modbus_client(uri)
