"""`edgead run --trigger`: parts from the command line."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
from level_bundle import frame_of
from line_bench import BAD, GOOD
from ports import free_port
from test_triggers import post
from waiting import wait_until

from edgead.bundle import Bundle

pytest.importorskip("onnxruntime")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, shown in enumerate((GOOD, BAD, GOOD)):
        cv2.imwrite(str(folder / f"{number}.png"), frame_of(shown))
    return folder


def edgead(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "edgead", *map(str, arguments)]


def test_each_picture_is_a_part(level: Bundle, pictures: Path, tmp_path: Path) -> None:
    sink = tmp_path / "results.jsonl"
    command = edgead("run", level.path, "--source", pictures, "--trigger", "camera:", "--engine", "onnxruntime")
    done = subprocess.run([*command, "--sink", f"jsonl:{sink}"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in sink.read_text().splitlines()]
    assert [one["verdict"] for one in results] == ["PASS", "FAIL", "PASS"]
    assert len({one["part_id"] for one in results}) == 3
    assert "parts 3 = passed 2 + failed 1 + unknown 0" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trigger", "bell:"], "Unknown trigger 'bell:'"),
        (["--trigger", "camera:", "--part", "withn=5"], "withn.*within"),
        (["--trigger", "camera:", "--part", "within"], "--part NAME=VALUE"),
        (["--trigger", "camera:", "--part", "within=soon"], "within must be a number"),
        (["--part", "within=5"], "--part has no effect without --trigger"),
    ],
)
def test_wrong_options_are_named(level: Bundle, pictures: Path, options: list[str], message: str) -> None:
    command = edgead("run", level.path, "--source", pictures, *options)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert re.search(message, done.stderr)


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def test_a_part_without_a_picture_is_unknown_and_metrics_count_it(
    level: Bundle, tmp_path: Path, started: list[Any]
) -> None:
    (tmp_path / "watched").mkdir()
    port, metrics, sink = free_port(), free_port(), tmp_path / "results.jsonl"
    command = edgead("run", level.path, "--source", f"watch:{tmp_path / 'watched'}", "--engine", "onnxruntime")
    command += ["--trigger", f"http://127.0.0.1:{port}/part", "--part", "within=50", "--sink", f"jsonl:{sink}"]
    process = subprocess.Popen([*command, "--metrics", str(metrics), "--json"], stdout=subprocess.PIPE, text=True)
    started.append(process)

    def answers() -> bool:
        try:
            return post(f"http://127.0.0.1:{port}/part", b'{"part_id": "A-17"}')[0] == 202
        except OSError:
            return False

    wait_until(answers)
    wait_until(lambda: sink.exists() and sink.read_text().endswith("\n"))
    [result] = [json.loads(line) for line in sink.read_text().splitlines()]
    assert (result["part_id"], result["cause"], result["frame_id"]) == ("A-17", "no_frame", None)
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=5) as page:
        text = page.read().decode()
    assert "edgead_parts_triggered_total 1\n" in text
    assert 'edgead_parts_unknown_total{cause="no_frame"} 1\n' in text
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert json.loads(out)["parts"]["triggered"] == 1


@pytest.mark.parametrize("kind", ["http", "modbus"])
def test_a_part_that_passed_while_the_process_was_paused_gets_no_later_picture(
    kind: str, level: Bundle, tmp_path: Path, started: list[Any]
) -> None:
    """Its trigger waited in a socket and counted as one of now: the part got the verdict of what came after it."""
    pytest.importorskip("pymodbus", reason="no pymodbus")
    from plc_bench import Plc

    plc, port, sink = Plc(), free_port(), tmp_path / "results.jsonl"
    plc.start()
    url = f"http://127.0.0.1:{port}/part"
    command = edgead("run", level.path, "--source", "synthetic:?width=64&height=48&fps=20", "--engine", "onnxruntime")
    command += ["--trigger", url, "--trigger", f"modbus://127.0.0.1:{plc.port}/coil/12?poll_ms=5"]
    command += ["--threshold", "250", "--part", "within=2000", "--sink", f"jsonl:{sink}"]
    started.append(subprocess.Popen(command))

    def verdicts() -> list[tuple[str, str]]:
        lines = sink.read_text().splitlines() if sink.exists() else []
        return [(one["part_id"], one["verdict"]) for one in map(json.loads, lines) if one["part_id"]]

    def passes(part: str) -> bool:
        try:
            post(url, json.dumps({"part_id": part}).encode())
        except OSError:
            return False
        return (part, "PASS") in verdicts()

    wait_until(lambda: passes("before"))
    time.sleep(0.1)  # the trigger has read the coil
    started[0].send_signal(signal.SIGSTOP)
    late = threading.Thread(target=post, args=(url, b'{"part_id": "late"}'))
    late.start() if kind == "http" else plc.set("co", 12, 1)
    time.sleep(2.6)
    started[0].send_signal(signal.SIGCONT)
    wait_until(lambda: len(verdicts()) == 2)
    assert verdicts()[1][1] == "UNKNOWN"
    assert "paused" in sink.read_text()
    time.sleep(1.0)
    wait_until(lambda: passes("after"))
    if late.ident:
        late.join()
    plc.close()
