"""`edgead run` and the signals: it ends within a stated time whatever hangs, and early signals end nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from running import start_process
from waiting import wait_until

import edgead
from edgead.errors import ConfigError, EdgeadError
from edgead.images import encode_png
from edgead.runtime.run import run

PROGRAM = """
import sys, time
from edgead.cli import main
from edgead.runtime import control, sources
from edgead.runtime.sources import network
from edgead.runtime.sources.python import SyntheticSource

class Hangs(SyntheticSource):
    def read(self):
        yield from super().read()
        while True:
            time.sleep(60)

    def stop(self):
        time.sleep(60)

def hang(uri, pixels):
    source = Hangs((48, 64), 50, 20)
    source.name = "hangs"
    return source

def fail(uri, pixels):
    source = SyntheticSource((48, 64), 50, 20)
    source.name = "fails"
    source.draw = lambda number: 1 / 0
    return source

sys.modules["mine"] = sys.modules["__main__"]
sources._SCHEMES.update({"hang": "mine:hang", "fail": "mine:fail"})
control.END_WITHIN = float(sys.argv.pop(1))
network.OPEN_S = 1.0
if sys.argv[1] == "block":
    del sys.argv[1]
    import click
    def block(*values, **options):
        print("blocked", flush=True)
        time.sleep(60)
    click.echo = block
main()
"""


def start(*arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(edgead.__file__).parents[1])}
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return start_process(command, env=environment)


def run_until_first_result(tmp_path: Path, *arguments: object) -> subprocess.Popen[str]:
    results = tmp_path / "results.jsonl"
    process = start(*arguments, "--engine", "onnxruntime", "--sink", f"jsonl:{results}")
    wait_until(lambda: process.poll() is not None or (results.exists() and results.stat().st_size), 60)
    return process


def is_handled(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal, or ignores it."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return any(int(status[name], 16) >> (number - 1) & 1 for name in ("SigCgt", "SigIgn"))


@pytest.mark.slow
def test_term_ends_a_run_with_a_source_that_hangs(line_bundle: Path, tmp_path: Path) -> None:
    process = run_until_first_result(tmp_path, 15, "run", line_bundle, "--source", "hang:", "--json")
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - begun < 12
    assert process.returncode == 0, err
    summary = json.loads(out)
    assert summary["captured"] == summary["inferred"] + summary["dropped"]
    assert summary["bundle"] == str(line_bundle)


@pytest.mark.slow
def test_run_that_cannot_end_is_left_within_the_limit(line_bundle: Path, tmp_path: Path) -> None:
    """The thread that iterates hangs in a callback, here in printing a result."""
    source = "synthetic:?fps=50&width=64&height=48"
    process = start(2, "block", "run", line_bundle, "--engine", "onnxruntime", "--source", source)
    assert process.stdout
    assert process.stdout.readline() == "blocked\n"
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert time.monotonic() - begun < 12
    assert process.returncode == 2


@pytest.mark.slow
def test_second_term_ends_at_once_with_the_account(line_bundle: Path, tmp_path: Path) -> None:
    process = run_until_first_result(tmp_path, 60, "run", line_bundle, "--source", "hang:", "--json")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)  # the source has two seconds to close
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "second signal" in err
    assert json.loads(out)["captured"] > 0
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_early_signals_end_nothing(line_bundle: Path, number: signal.Signals) -> None:
    source = "synthetic:?fps=50&width=64&height=48&frames=150"
    process = start(15, "run", line_bundle, "--engine", "onnxruntime", "--source", source, "--json")
    wait_until(lambda: is_handled(process.pid, number), 60)  # Python has started; the bundle is still to be opened
    for _ in range(10):
        process.send_signal(number)
        time.sleep(0.2)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out)["captured"] == 150


@pytest.mark.slow
def test_source_that_failed_is_in_account_and_exit_code(line_bundle: Path) -> None:
    process = start(15, "run", line_bundle, "--source", "fail:", "--source", "synthetic:?frames=3", "--json")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.splitlines()[-1] == "Error: The source fails failed: division by zero"
    assert json.loads(out)["failed_sources"] == {"fails": "division by zero"}


@pytest.mark.slow
def test_clean_stop_is_not_called_an_error(line_bundle: Path, tmp_path: Path) -> None:
    process = run_until_first_result(tmp_path, 15, "run", line_bundle, "--source", "synthetic:?fps=50")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "captured" in err
    assert "rror" not in err


@pytest.mark.slow
@pytest.mark.parametrize("others", [["--source", "synthetic:?fps=50"], []])
def test_term_while_a_camera_is_opened_ends_the_run(line_bundle: Path, others: list[str]) -> None:
    """PyAV swallows what a handler raises while it waits for a camera that accepts connections and says nothing."""
    pytest.importorskip("av", reason="no PyAV")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        sources = ["--source", f"rtsp://127.0.0.1:{silent.getsockname()[1]}/x", *others]
        process = start(20, "run", line_bundle, "--engine", "onnxruntime", *sources)
        with silent.accept()[0]:
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert ("captured 0 =" if others else "interrupted") in err
    assert "did not end" not in err


def test_a_start_that_fails_leaves_nothing_open(line_bundle: Path, tmp_path: Path) -> None:
    """What was opened before the sink that cannot be is closed when `run` raises, and not with the process."""
    (tmp_path / "a.png").write_bytes(encode_png(np.zeros((64, 64, 3), np.uint8)))
    before = set(threading.enumerate())
    sinks = [f"jsonl:{tmp_path / 'out.jsonl'}", f"sqlite:{tmp_path / 'out.db'}", "nothing:at-all"]
    with pytest.raises(ConfigError, match="Unknown sink"):
        run(line_bundle, sources=[str(tmp_path)], sinks=sinks, engine="onnxruntime")
    wait_until(lambda: not {thread for thread in threading.enumerate() if thread.name.startswith("sink-")} - before)


@pytest.mark.parametrize("folder", ["recording", "pictures/recording"])  # the second is refused by its place
def test_a_start_that_fails_leaves_no_recording(folder: str, line_bundle: Path, tmp_path: Path) -> None:
    """It left a recording of nothing: the command was corrected, and its folder was not empty."""
    pictures, record = tmp_path / "pictures", tmp_path / folder
    pictures.mkdir()
    (pictures / "a.png").write_bytes(encode_png(np.zeros((64, 64, 3), np.uint8)))
    run_it = partial(run, line_bundle, sources=[str(pictures)], engine="onnxruntime", record=record)
    with pytest.raises(EdgeadError):
        run_it(shadow=None if "/" in folder else tmp_path / "no" / "shadow")
    assert not list(record.iterdir())
    if "/" not in folder:
        run_it()
        assert len((record / "events.jsonl").read_text().splitlines()) == 1
