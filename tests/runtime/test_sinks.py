"""Sinks: what is taken is there, what is not is counted; slow and broken ones; kills and full disks."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import wait_until

from edgead.decision import Verdict
from edgead.errors import ConfigError, SinkError
from edgead.runtime.inspector import Inspector
from edgead.runtime.ledger import Ledger
from edgead.runtime.outbox import Outbox, to_prometheus
from edgead.runtime.result import SCHEMA, Result
from edgead.runtime.sinks import Callback, JsonLines, open_sink
from edgead.runtime.sinks.rejects import RejectFolder
from edgead.runtime.sinks.webhook import Webhook
from edgead.runtime.stream import run_stream

FRAME = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def make_result(number: int = 0, verdict: Verdict = Verdict.FAIL, frame: Any = FRAME) -> Result:
    return Result(
        score=1.5,
        verdict=verdict,
        reason="made for a test",
        threshold=1.0,
        anomaly_map=np.eye(8, dtype=np.float32),
        mask_threshold=0.5,
        frame_size=(48, 64),
        source_id="rtsp://cam/line",
        frame_id=number,
        captured_at=f"2025-01-02T03:04:{number % 60:02d}.{number // 60:03d}+00:00",
        frame=frame,
    )


def adds_up(account: dict[str, Any]) -> bool:
    fates = ("taken", "failed", "dropped", "waiting")
    return bool(account["offered"] == sum(account[fate] for fate in fates))


@pytest.mark.parametrize("uri", ["csv:x", "jsonl:", "nothing", "http://", "mqtt://host", "mqtt://host/a/#"])
def test_unknown_sink_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError):
        open_sink(uri)


def test_slow_sink_slows_nothing_and_loses_the_oldest(inspector: Inspector) -> None:
    gate = threading.Event()
    seen: list[int] = []

    def slow(result: Result) -> None:
        gate.wait(20)
        seen.append(result.frame_id)

    outbox = Outbox(Callback(slow), capacity=3)
    outbox.offer(make_result(0))
    wait_until(lambda: outbox.account()["waiting"] == 1 and not outbox._queue)
    for number in range(1, 11):
        outbox.offer(make_result(number))
    account = outbox.account()
    assert (account["offered"], account["dropped"], account["waiting"]) == (11, 7, 4)
    gate.set()
    outbox.close()
    assert seen == [0, 8, 9, 10]
    assert adds_up(outbox.account())
    with pytest.raises(SinkError, match="did not take 7 of 11 results; it is too slow"):
        outbox.raise_if_failed()
    assert 'fate="dropped"} 7' in to_prometheus([outbox])


def test_files_wait_for_a_slow_sink(inspector: Inspector) -> None:
    seen: list[int] = []
    outbox = Outbox(Callback(lambda result: seen.append(result.frame_id)), capacity=1)
    run_stream(inspector, iter([FRAME] * 30), [outbox], Ledger())
    assert seen == list(range(30))


def test_broken_sink_is_counted_and_named_at_the_end(inspector: Inspector) -> None:
    ledger, good = Ledger(), []

    def breaks(result: Result) -> None:
        if result.frame_id % 2:
            raise ValueError("odd")

    with pytest.raises(SinkError, match="breaks did not take 2 of 4 results: odd"):
        run_stream(inspector, iter([FRAME] * 4), [Callback(breaks), Callback(good.append)], ledger)
    assert ledger.inferred == len(good) == 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_disk_is_named(inspector: Inspector) -> None:
    ledger = Ledger()
    with pytest.raises(SinkError, match="did not take 3 of 3 results: No space left on device"):
        run_stream(inspector, iter([FRAME] * 3), [JsonLines("/dev/full")], ledger)
    assert ledger.inferred == 3


FILLS_DISK = """
import resource, signal, sys
from edgead.runtime.outbox import Outbox
from edgead.runtime.result import Result
from edgead.runtime.sinks import open_sink
from edgead.decision import Verdict
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
outbox = Outbox(open_sink(sys.argv[1]))
for number in range(200):
    outbox.offer(Result(0.0, Verdict.PASS, "", 1.0, source_id="s", frame_id=number))
    if number == 150:
        while outbox.account()["waiting"]: pass
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
outbox.close()
account = outbox.account()
assert account["failed"] and account["last_error"], account
print(account["taken"])
"""


def test_jsonl_goes_on_after_the_disk_was_full(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", FILLS_DISK, f"jsonl:{path}"], capture_output=True, text=True, check=True
    )
    whole = []
    for line in path.read_text().splitlines():
        try:
            whole.append(json.loads(line)["frame_id"])
        except ValueError:
            continue  # the one line that the full disk cut
    assert len(whole) == int(done.stdout)
    assert whole[-49:] == list(range(151, 200))


def test_sqlite_holds_every_field(tmp_path: Path) -> None:
    outbox = Outbox(open_sink(f"sqlite:{tmp_path / 'deep' / 'r.sqlite'}"))
    for number in range(100):
        outbox.offer(make_result(number))
    outbox.close()
    with sqlite3.connect(tmp_path / "deep" / "r.sqlite") as database:
        rows = database.execute("SELECT frame_id, verdict, result FROM results ORDER BY id").fetchall()
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()
    assert [row[0] for row in rows] == list(range(100))
    assert json.loads(rows[0][2])["schema"] == SCHEMA
    assert outbox.account()["taken"] == 100


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, but long enough to be read as one" * 50)
    with pytest.raises(ConfigError, match="cannot be used as an SQLite database"):
        open_sink(f"sqlite:{tmp_path / 'text'}")


WRITES_FOREVER = """
import itertools, sys
from edgead.runtime.outbox import Outbox
from edgead.runtime.result import Result
from edgead.runtime.sinks import open_sink
from edgead.decision import Verdict
outbox = Outbox(open_sink(sys.argv[1]))
for number in itertools.count():
    outbox.offer(Result(0.0, Verdict.PASS, "", 1.0, source_id="s", frame_id=number), wait=True)
    print(outbox.account()["taken"], flush=True)
"""


def test_sqlite_loses_nothing_acknowledged_to_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    writer = subprocess.Popen([sys.executable, "-c", WRITES_FOREVER, f"sqlite:{path}"], stdout=subprocess.PIPE)
    assert writer.stdout
    acknowledged = 0
    while acknowledged < 300:
        acknowledged = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    rest = writer.stdout.read().splitlines(keepends=True)
    writer.stdout.close()
    writer.wait()
    whole = [int(line) for line in rest if line.endswith(b"\n")]
    acknowledged = max([acknowledged, *whole])
    database = sqlite3.connect(path)
    numbers = [row[0] for row in database.execute("SELECT frame_id FROM results ORDER BY id")]
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    assert len(numbers) >= acknowledged
    assert numbers == list(range(len(numbers)))


def test_rejects_are_kept_with_overlay_and_result(tmp_path: Path, inspector: Inspector) -> None:
    inspector.threshold = -1.0
    run_stream(inspector, iter([FRAME, FRAME]), [open_sink(f"rejects:{tmp_path}?verdicts=fail")], Ledger())
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 6
    assert sum(name.endswith(".overlay.png") for name in names) == 2
    fields = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert fields["verdict"] == "FAIL"
    inspector.threshold = 1e9
    run_stream(inspector, iter([FRAME]), [open_sink(f"rejects:{tmp_path}")], Ledger())
    assert len(list(tmp_path.iterdir())) == 6


def test_rejects_are_limited_in_rate_and_in_bytes_oldest_first(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not ours")
    sink = RejectFolder(tmp_path, per_minute=5)
    for number in range(8):
        sink.write(make_result(number))
    assert sink.limited == 3
    assert len(list(tmp_path.glob("*.json"))) == 5
    size = sum(path.stat().st_size for path in tmp_path.glob("2025*"))
    small = RejectFolder(tmp_path, max_bytes=size // 2)  # a later run, over what an earlier one left
    small.write(make_result(40))
    left = sorted(path.name for path in tmp_path.glob("2025*.json"))
    assert sum(path.stat().st_size for path in tmp_path.glob("2025*")) <= size // 2
    assert left[-1].endswith("-00000040.json")
    assert not any("-00000000." in name for name in left)
    assert (tmp_path / "notes.txt").exists()
    with pytest.raises(ConfigError, match="verdicts are"):
        open_sink(f"rejects:{tmp_path}?verdicts=maybe")


class Hook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Any = self.server
        code = server.codes.pop(0) if server.codes else 204
        server.got.append((code, body["frame_id"], self.headers.get("Authorization"), self.path))
        self.send_response(code)
        self.end_headers()

    def log_message(self, format: str, *values: object) -> None:
        """Quiet."""


@pytest.fixture
def hook() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    server.codes, server.got = [], []
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_webhook_tries_again_and_keeps_its_password(hook: Any) -> None:
    hook.codes = [503, 429]
    sink = Webhook(f"http://me:secret@127.0.0.1:{hook.server_port}/in?key=secret", first_delay=0.01)
    sink.write(make_result(7))
    assert [code for code, *_ in hook.got] == [503, 429, 204]
    assert hook.got[-1] == (204, 7, "Basic bWU6c2VjcmV0", "/in?key=secret")
    assert "secret" not in sink.name


def test_webhook_gives_up_by_name(hook: Any) -> None:
    hook.codes = [400]
    sink = Webhook(f"http://127.0.0.1:{hook.server_port}/in", first_delay=0.01)
    with pytest.raises(SinkError, match="refuses the result: HTTP 400"):
        sink.write(make_result())
    assert len(hook.got) == 1
    gone = Webhook("http://me:secret@127.0.0.1:9/", attempts=2, first_delay=0.01)
    with pytest.raises(SinkError, match=r"in 2 attempts: .*refused") as caught:
        gone.write(make_result())
    assert "secret" not in str(caught.value)


def test_schema_is_documented_field_by_field() -> None:
    text = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
    missing = [name for name in make_result().to_dict() if f"`{name}`" not in text]
    assert not missing
    assert f"Version {SCHEMA}" in text
