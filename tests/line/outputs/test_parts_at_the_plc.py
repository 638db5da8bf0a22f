"""From the trigger to the PLC, with everything real: each part that is announced has one answer in the registers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
from level_bundle import make_level_bundle
from plc_parts import closing
from ports import free_port
from waiting import wait_until

from edgead.line.outputs.register_map import Snapshot
from edgead.line.outputs.simulate import open_plc, simulate

pytest.importorskip("pymodbus.client", reason="no pymodbus (pip install 'edgead[modbus]')")


def test_each_part_has_one_answer_at_the_plc(tmp_path: Path) -> None:
    modbus, http = free_port(), free_port()
    bundle = make_level_bundle(tmp_path / "level.edgead").path
    uri = f"modbus-server:127.0.0.1:{modbus}"
    command = [sys.executable, "-m", "edgead", "run", str(bundle), "--engine", "onnxruntime", "--health", "off"]
    command += ["--source", "synthetic:?fps=50", "--trigger", f"http://127.0.0.1:{http}/part", "--sink", uri, "--json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    line = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seen: list[Snapshot] = []
    said: list[str] = []
    try:
        with closing(open_plc(uri)) as plc:
            options = {"results": 20, "say": said.append}
            reading = threading.Thread(target=simulate, args=(plc, seen.append), kwargs=options, daemon=True)
            reading.start()
            wait_until(lambda: said[-1:] == ["edgead is alive."], 30.0)
            for number in range(20):
                body = json.dumps({"part_id": f"part-{number}"}).encode()
                headers = {"Content-Type": "application/json"}
                request = urllib.request.Request(f"http://127.0.0.1:{http}/part", body, headers)
                with urllib.request.urlopen(request) as answer:
                    assert answer.status == 202
            reading.join(20.0)
        line.send_signal(signal.SIGTERM)
        out, err = line.communicate(timeout=30)
    finally:
        line.kill()
        line.communicate()
    assert [snapshot.part_id for snapshot in seen] == [f"part-{number}" for number in range(20)]
    first = seen[0].sequence
    assert [(snapshot.sequence - first) % 65535 for snapshot in seen] == list(range(20))
    summary = json.loads(out)
    assert summary["parts"]["triggered"] == 20, err
    assert (summary["sinks"][0]["taken"], summary["sinks"][0]["unacknowledged"]) == (20, 0)
    assert {snapshot.verdict for snapshot in seen} <= {1, 2, 3}
