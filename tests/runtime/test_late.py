"""Sinks whose disk is full, or whose database is damaged, when the run begins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from full_disk import run_on_small_disk
from made_result import make_result, rows_of
from waiting import wait_until

from edgead.runtime.sink_worker import SinkWorker
from edgead.runtime.sinks import late, open_sink

HERE = Path(__file__).parent
PROGRAM = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from made_result import make_result
from waiting import wait_until
from edgead.line.check import _look_at_sink
from edgead.runtime import sink_worker
from edgead.runtime.sink_worker import SinkWorker
from edgead.runtime.sinks import late, open_sink

disk = Path(sys.argv[1])
uri = {uri!r}.replace("DISK", str(disk))
if {existing}:
    open_sink(uri).close()
filling = os.open(disk / "filling", os.O_CREAT | os.O_WRONLY)
try:
    while True:
        os.write(filling, bytes(4096))
except OSError:
    pass
try:
    found = _look_at_sink(open_sink(uri))
except Exception as error:
    found = f"{{type(error).__name__}}: {{error}}"
sink = open_sink(uri)
worker = SinkWorker(sink)
worker.configure({{"threshold": 2.5}})
worker.begin(lambda: 0.0)
worker.offer(make_result(1))
wait_until(lambda: worker.account()["failed"] == 1)
full = worker.account()
os.truncate(filling, 0)
late.RETRY_AFTER = sink._next = sink_worker.STEADY = 0.0
for number in (2, 3):
    worker.offer(make_result(number))
wait_until(lambda: worker.account()["taken"] == 2)
worker.close()
print(json.dumps({{"found": found, "full": full, "end": worker.account()}}))
if uri.startswith("sqlite"):
    import sqlite3
    database = sqlite3.connect(disk / "r.sqlite")
    print(json.dumps([row for (row,) in database.execute("SELECT frame_id FROM results ORDER BY id")]))
    print(*(row for (row,) in database.execute("SELECT configuration FROM configurations")))
"""


def run_late(uri: str, disk: Path, existing: bool) -> tuple[dict[str, Any], list[str], str]:
    """Return what the sink's accounts were, further lines, and what was logged."""
    code = PROGRAM.format(tests=str(HERE.parent / "runtime"), uri=uri, existing=existing)
    done = run_on_small_disk(f"import sys; sys.path.insert(0, {str(HERE.parent)!r})\n{code}", disk, 400)
    assert done.returncode == 0, done.stderr
    accounts, *lines = done.stdout.splitlines()
    return json.loads(accounts), lines, done.stderr


@pytest.mark.parametrize(
    ("uri", "existing"),
    [
        ("sqlite:DISK/r.sqlite", False),
        ("sqlite:DISK/r.sqlite", True),
        ("mqtt://127.0.0.1:1/topic?store=DISK/m.sqlite", False),  # one that is there can be opened
    ],
)
def test_a_full_disk_does_not_keep_a_line_from_starting(uri: str, existing: bool, tmp_path: Path) -> None:
    accounts, lines, logged = run_late(uri, tmp_path / "disk", existing)
    assert "DiskError" in accounts["found"]  # edgead run --check
    assert accounts["full"]["failed"] == 1
    assert "cannot be used as an SQLite database" in accounts["full"]["last_error"]
    assert "Its results are lost until it can be opened" in logged
    assert "takes results again; 1 have failed so far" in logged
    end = accounts["end"]
    assert (end["offered"], end["taken"], end["failed"]) == (3, 2, 1)
    if uri.startswith("sqlite"):
        assert lines == ["[2, 3]", '{"threshold": 2.5}']
    else:
        assert end["stored"] == 2


@pytest.mark.parametrize("uri", ["sqlite:{}", "mqtt://127.0.0.1:1/topic?store={}"])
def test_a_damaged_database_does_not_keep_a_line_from_starting(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut had cut it. The run ended, the service started it again, and no part was inspected."""
    if uri.startswith("mqtt"):
        pytest.importorskip("paho.mqtt.client")
    path = tmp_path / "r.sqlite"
    sink = open_sink(uri.format(path))
    sink.close()
    path.write_bytes(path.read_bytes()[:3000])
    worker = SinkWorker(open_sink(uri.format(path)))
    worker.offer(make_result(1))
    wait_until(lambda: worker.account()["failed"] == 1)
    assert "malformed. Move it away, and a new one is begun" in str(worker.account()["last_error"])
    path.rename(tmp_path / "damaged")
    monkeypatch.setattr(late, "RETRY_AFTER", 0.0)
    monkeypatch.setattr(worker.sink, "_next", 0.0)
    worker.offer(make_result(2))
    worker.close()
    account = worker.account()
    assert (account["taken"], account["failed"]) == (1, 1)
    if uri.startswith("sqlite"):
        assert rows_of(path) == [2]
