"""What a PLC reads while edgead lives, hangs, is stopped and dies: never a PASS that is not of now."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest
from level_bundle import make_level_bundle
from plc_parts import closing
from ports import free_port
from waiting import wait_until

from edgead.bundle import Bundle
from edgead.errors import SinkError
from edgead.runtime.inspector import load
from edgead.runtime.ledger import Ledger
from edgead.runtime.pipeline import run_stream
from edgead.runtime.result import Result

pytest.importorskip("pymodbus.client", reason="no pymodbus (pip install 'edgead[modbus]')")

from edgead.line.outputs.modbus_plc import PollingPlc, ServingPlc
from edgead.line.outputs.modbus_server import open_modbus_server


@pytest.fixture(scope="module")
def level(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose score is the grey level of its frame."""
    return make_level_bundle(tmp_path_factory.mktemp("level") / "level.edgead")


@pytest.fixture(scope="module")
def ports() -> list[int]:
    return [free_port() for _ in range(3)]


@pytest.fixture
def run(level: Bundle, ports: list[int]) -> Iterator[subprocess.Popen[bytes]]:
    """A real run on a camera, with a server, a client and metrics."""
    sinks = [f"modbus-server:127.0.0.1:{ports[0]}?hold_ms=300", f"modbus://127.0.0.1:{ports[1]}?hold_ms=300"]
    command = [sys.executable, "-m", "edgead", "run", str(level.path), "--engine", "onnxruntime"]
    command += ["--source", "synthetic:?fps=25", "--health", "off", "--metrics", str(ports[2])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [*command, "--sink", sinks[0], "--sink", sinks[1]],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield process
    process.kill()
    process.wait()


def test_a_plc_notices_a_process_that_stops_and_one_that_dies(run: subprocess.Popen[bytes], ports: list[int]) -> None:
    with closing(ServingPlc("127.0.0.1", ports[1])) as serving, closing(PollingPlc("127.0.0.1", ports[0])) as polling:

        def taken(plc: PollingPlc | ServingPlc) -> bool:
            try:
                seen = plc.read()
                plc.acknowledge(seen.sequence)
            except SinkError:
                return False  # it has not started yet
            return seen.valid == 1 and seen.verdict != 0

        for plc in (polling, serving):
            wait_until(lambda: taken(plc), 30.0)  # noqa: B023
        with urllib.request.urlopen(f"http://127.0.0.1:{ports[2]}/metrics") as answer:
            metrics = answer.read().decode()
        assert f'edgead_sink_detail{{sink="modbus-server:127.0.0.1:{ports[0]}",name="alarm"}}' in metrics
        run.send_signal(signal.SIGSTOP)
        time.sleep(0.05)
        before = serving.read()
        with pytest.raises(SinkError, match="does not answer"):
            polling.read()
        assert serving.read().heartbeat == before.heartbeat
        run.send_signal(signal.SIGCONT)
        wait_until(lambda: taken(polling))
        wait_until(lambda: serving.read().heartbeat != before.heartbeat)
        run.kill()
        run.wait()
        beat = serving.read().heartbeat
        with pytest.raises(SinkError):
            polling.read()
        time.sleep(0.25)
        assert serving.read().heartbeat == beat


def test_a_plc_notices_a_thread_that_hangs(level: Bundle) -> None:
    hangs, goes_on = threading.Event(), threading.Event()

    def hang(result: Result) -> None:
        hangs.set()
        goes_on.wait(10.0)

    with closing(open_modbus_server("modbus-server:127.0.0.1:0?hold_ms=5000&stall_ms=500&ack=off")) as server:
        inspector = load(level.path, engine="onnxruntime")
        stream = threading.Thread(
            target=run_stream,
            args=(inspector, "synthetic:?fps=25&frames=3", [server], Ledger()),
            kwargs={"on_result": hang},
        )
        stream.start()
        with closing(PollingPlc("127.0.0.1", server.port)) as plc:
            hangs.wait(10.0)
            wait_until(lambda: plc.read().verdict != 0)
            began = time.monotonic()
            wait_until(lambda: plc.read().valid == 0)
            assert time.monotonic() - began < 1.0
            seen = plc.read()
            assert (seen.verdict, seen.status) == (0, 2)
            time.sleep(0.15)
            assert plc.read().heartbeat == seen.heartbeat
            goes_on.set()
            stream.join(10.0)
        inspector.close()


def test_results_that_wait_when_a_run_ends_are_shown(level: Bundle) -> None:
    """After stall_ms the output said that edgead hangs, and blamed the PLC for what it did not show then."""
    server = open_modbus_server("modbus-server:127.0.0.1:0?stall_ms=500&late_ms=9000")
    seen, ended = list[int](), threading.Event()

    def acknowledge_slowly() -> None:
        with closing(PollingPlc("127.0.0.1", server.port)) as plc:
            while len(seen) < 6 and not ended.is_set():
                shown = plc.read()
                if shown.verdict and shown.sequence not in seen:
                    seen.append(shown.sequence)
                    time.sleep(0.2)
                    plc.acknowledge(shown.sequence)

    plc = threading.Thread(target=acknowledge_slowly)
    plc.start()
    try:
        with load(level.path, engine="onnxruntime") as inspector:
            frames = [np.full((8, 8, 3), 50, np.uint8)] * 6
            [worker] = run_stream(inspector, frames, [server], Ledger())
    finally:
        ended.set()
        plc.join()
    account = worker.account()
    assert (account["taken"], account["failed"], len(seen)) == (6, 0, 6)
