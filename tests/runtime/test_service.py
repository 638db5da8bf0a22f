"""A service manager and a health check: both notice a thread that hangs, and a health check late decisions as well."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import start_process
from waiting import wait_until

from edgead.bundle import Bundle
from edgead.decision import Verdict
from edgead.runtime import on_time as on_time_module
from edgead.runtime.inspector import load
from edgead.runtime.metrics_server import MetricsServer
from edgead.runtime.on_time import OnTime
from edgead.runtime.result import Result
from edgead.runtime.stream import Stream
from edgead.runtime.systemd import Systemd


class Manager:
    """Stands where systemd stands: a datagram socket that gets what services say."""

    def __init__(self, folder: Path) -> None:
        self.path, self.heard = folder / "notify", list[str]()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while message := self._socket.recv(64).decode():
            self.heard.append(message)

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.sendto(b"", str(self.path))
        self._thread.join()
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    yield made
    made.close()


def test_the_watchdog_is_fed_only_while_the_run_decides(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(manager.path))
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    decides = True
    systemd = Systemd(lambda: decides)
    systemd.ready()
    wait_until(lambda: manager.heard.count("WATCHDOG=1") > 2)
    decides = False
    time.sleep(0.03)
    count = len(manager.heard)
    time.sleep(0.06)
    assert len(manager.heard) == count
    decides = True
    wait_until(lambda: len(manager.heard) > count)
    systemd.close()
    wait_until(lambda: "STOPPING=1" in manager.heard)
    assert manager.heard[0] == "READY=1"


@pytest.mark.parametrize(
    "variables", [{}, {"NOTIFY_SOCKET": "/absent"}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}]
)
def test_without_a_manager_nothing_happens(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    systemd = Systemd(lambda: True)
    systemd.ready()
    systemd.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "watchdog"]


def get(port: int) -> tuple[int, str]:
    """Return status and text of /healthz."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_health_is_that_of_the_decisions(first: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_time_module, "STALL", 0.3)
    on_time = OnTime()
    server = MetricsServer(0, lambda: "", "127.0.0.1", "token", on_time.why_not)
    assert get(server.port) == (503, "The stream does not run.\n")
    with load(first.path, engine="onnxruntime") as inspector:
        stream = Stream(inspector, ["synthetic:?fps=50"])
        results = iter(stream)
        next(results)
        on_time.begin(stream)
        assert get(server.port) == (200, "Decisions are on time.\n")
        on_time.see(Result(0.0, Verdict.UNKNOWN, "", 0.5, cause="late"))
        status, text = get(server.port)
        assert (status, text.endswith("s ago: late.\n")) == (503, True)
        monkeypatch.setattr(on_time_module, "MEMORY", 0.0)
        assert get(server.port)[0] == 200
        time.sleep(0.35)  # nobody takes the next result
        assert get(server.port)[1].startswith("The inference thread has hung for 0.")
        next(results)
        next(results)
        assert get(server.port)[0] == 200
        stream.stop()
        results.close()
    on_time.end()
    server.close()


def test_a_run_tells_the_manager(first: Bundle, manager: Manager) -> None:
    environment = {**os.environ, "NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "300000"}
    command = [sys.executable, "-m", "edgead", "run", str(first.path), "--engine", "onnxruntime", "--json"]
    process = start_process([*command, "--source", "synthetic:?fps=25&frames=25"], env=environment)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    wait_until(lambda: "STOPPING=1" in manager.heard)
    assert manager.heard[0] == "READY=1"
    assert "WATCHDOG=1" in manager.heard
