"""The simulated PLC against real outputs, and its command."""

from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from plc_parts import Writing, closing, make_result
from ports import free_port
from waiting import wait_until

from edgead.cli import cli
from edgead.decision import Verdict
from edgead.errors import INTERRUPTED, ConfigError, SinkError
from edgead.line.outputs.modbus_plc import PollingPlc, ServingPlc
from edgead.line.outputs.register_map import REGISTERS, Snapshot
from edgead.line.outputs.simulate import SILENT_AFTER, PlcProgram, open_plc, simulate
from edgead.runtime.sinks import open_sink

ModbusTcpClient = pytest.importorskip(
    "pymodbus.client", reason="no pymodbus (pip install 'edgead[modbus]')"
).ModbusTcpClient

SHOWN = Snapshot(session=7, heartbeat=1, valid=1, sequence=65534, verdict=1)


def free_address() -> str:
    return f"127.0.0.1:{free_port()}"


def test_a_program_takes_each_result_once_and_counts_those_it_missed() -> None:
    program = PlcProgram()
    steps = [
        (replace(SHOWN, valid=0), False),
        (SHOWN, True),
        (SHOWN, False),
        (replace(SHOWN, verdict=0), False),
        (SHOWN, False),  # written again after a lost connection
        (replace(SHOWN, sequence=65535), True),
        (replace(SHOWN, sequence=2), True),  # 1 was missed
        (replace(SHOWN, session=8, sequence=2), True),  # edgead has started again
    ]
    for now, (snapshot, is_new) in enumerate(steps):
        assert program.see(replace(snapshot, heartbeat=now), float(now)) == is_new
    assert program.missed == 1


def test_a_program_trusts_no_verdict_without_heartbeat() -> None:
    program = PlcProgram()
    assert program.see(SHOWN, 0.0)
    assert not program.see(replace(SHOWN, sequence=65535), SILENT_AFTER + 0.1)
    assert not program.alive
    assert program.see(replace(SHOWN, sequence=65535, heartbeat=2), SILENT_AFTER + 0.2)


@pytest.mark.parametrize("scheme", ["modbus-server:", "modbus://"])
def test_both_ends_meet_in_whatever_order_they_start(scheme: str) -> None:
    uri = f"{scheme}{free_address()}?base=100"
    seen: list[Snapshot] = []
    said: list[str] = []
    ended = threading.Event()
    with closing(open_plc(uri)) as plc:
        options: Any = {"say": said.append, "stopped": ended}
        thread = threading.Thread(target=simulate, args=(plc, seen.append), kwargs=options)
        thread.start()
        wait_until(lambda: bool(said))
        with closing(open_sink(uri)) as sink:
            for number in range(3):
                assert Writing(sink.write, make_result(Verdict.FAIL, f"part-{number}")).end() == ""
            wait_until(lambda: said[-1] == "edgead is alive.")
        wait_until(lambda: said[-1] != "edgead is alive.")
        ended.set()
        thread.join()
    assert [snapshot.part_id for snapshot in seen] == ["part-0", "part-1", "part-2"]


def test_the_command_prints_each_result() -> None:
    uri = f"modbus-server:{free_address()}"
    with closing(open_sink(uri)) as sink:
        results = (
            make_result(Verdict.PASS, "Teil-ä"),
            make_result(Verdict.UNKNOWN, "b", cause="silent", score=float("nan")),
        )
        writing = Writing(lambda given: [sink.write(each) for each in results][-1], results[0])
        shown = CliRunner().invoke(cli, ["plc", "simulate", uri, "--results", "2", "--json"])
        assert (writing.end(), shown.exit_code) == ("", 0), shown.output
        first, second = (json.loads(line) for line in shown.stdout.splitlines())
        assert (first["verdict"], first["part_id"], first["cause"]) == ("PASS", "Teil-ä", None)
        assert (second["verdict"], second["cause"], second["score"]) == ("UNKNOWN", "silent", None)
        assert second["sequence"] == first["sequence"] % 65535 + 1
        Writing(sink.write, results[1])
        text = CliRunner().invoke(cli, ["plc", "simulate", uri, "--results", "1"])
        assert text.stdout.startswith("UNKNOWN ")
        assert "bottle 3  score nan  (silent)" in text.stdout


def test_the_missed_results_are_told_when_it_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = [SHOWN, replace(SHOWN, heartbeat=2, sequence=2)]

    class Plc:
        def read(self) -> Snapshot:
            if not shown:
                raise KeyboardInterrupt
            return shown.pop(0)

        def acknowledge(self, sequence: int) -> None:
            pass

        def close(self) -> None:
            pass

    monkeypatch.setattr("edgead.line.outputs.simulate.open_plc", lambda uri: Plc())
    done = CliRunner().invoke(cli, ["plc", "simulate", "modbus://127.0.0.1"])
    assert done.exit_code == INTERRUPTED
    assert "2 results were missed." in done.stderr


def test_an_acknowledgement_can_be_left_out_or_late() -> None:
    with closing(open_sink(f"modbus-server:{free_address()}?hold_ms=200")) as sink:
        for options, error in ((["--no-ack"], "did not acknowledge"), (["--delay", "50"], "did not acknowledge")):
            began = time.monotonic()
            writing = Writing(sink.write, make_result())
            CliRunner().invoke(cli, ["plc", "simulate", sink.name, "--results", "1", *options])
            took = time.monotonic() - began
            # the alarm of the first round: the second result does not wait, and its acknowledgement ends the alarm
            assert error in writing.end()
        assert took >= 0.05
        assert sink.details()["alarm"] is False


def test_an_acknowledgement_that_was_lost_on_its_way_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"modbus-server:{free_address()}?hold_ms=10000"
    with closing(open_sink(uri)) as sink, closing(open_plc(uri)) as plc:
        real, lost, ended = plc.acknowledge, [SinkError("the cable")], threading.Event()

        def acknowledge(sequence: int) -> None:
            if lost:
                raise lost.pop()
            real(sequence)

        monkeypatch.setattr(plc, "acknowledge", acknowledge)
        seen: list[Snapshot] = []
        thread = threading.Thread(target=simulate, args=(plc, seen.append), kwargs={"stopped": ended})
        thread.start()
        assert Writing(sink.write, make_result()).end() == ""
        ended.set()
        thread.join()
        assert (len(seen), lost) == (1, [])


def test_the_command_prints_the_map() -> None:
    shown = CliRunner().invoke(cli, ["plc", "registers", "--json"])
    told = json.loads(shown.stdout)
    assert [each["name"] for each in told] == [*(register.name for register in REGISTERS), "acknowledge"]
    assert "60" in CliRunner().invoke(cli, ["plc", "registers"]).stdout


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["simulate"], "simulate needs the URI of the sink"),
        (["registers", "modbus://x"], "registers takes no URI"),
        (["play"], "'play' is not one of 'simulate', 'registers'"),
    ],
)
def test_a_wrong_call_is_told(arguments: list[str], error: str) -> None:
    shown = CliRunner().invoke(cli, ["plc", *arguments])
    assert shown.exit_code == 2
    assert error in shown.stderr


def test_an_output_without_plc_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no PLC to simulate for 'jsonl:x'"):
        open_plc("jsonl:x")


def test_a_server_with_too_few_registers_is_told_from_edgead() -> None:
    def answer(link: socket.socket) -> None:
        with link.accept()[0] as client:
            request = client.recv(260)
            client.sendall(request[:4] + b"\0\5" + request[6:8] + b"\2\0\7")  # one register, whatever is asked for

    with socket.create_server(("127.0.0.1", 0)) as link:
        threading.Thread(target=answer, args=(link,), daemon=True).start()
        told = pytest.raises(SinkError, match=r"answers with 1 registers instead of \d+\. Is it edgead\?")
        with closing(PollingPlc("127.0.0.1", link.getsockname()[1])) as plc, told:
            plc.read()


@pytest.mark.parametrize("words", [[7, 1, 1, 1, 0, 9, 1], [1, 1, 1, 1, 0, 9, 7], [0, 0, 0, 1, 0, 0, 0]])
def test_the_registers_of_another_device_are_no_results_and_are_not_written(words: list[int]) -> None:
    """A wrong address was acknowledged as edgead's; a verdict that does not exist ended with a traceback."""
    written: list[Snapshot] = []
    stopped, said, results = threading.Event(), list[str](), list[Snapshot]()

    def say(text: str) -> None:
        said.append(text)
        stopped.set()

    with (
        closing(ServingPlc("127.0.0.1", 0, on_write=written.append)) as other,
        closing(PollingPlc("127.0.0.1", other.port)) as plc,
    ):
        with ModbusTcpClient("127.0.0.1", port=other.port) as client:
            client.write_registers(0, words)
        simulate(plc, results.append, say=say, stopped=stopped)
    told = f"These are no registers of edgead (version {words[0]}, verdict {words[6]}). Check the address and ?base="
    assert (said, results, len(written)) == ([told], [], 1)
