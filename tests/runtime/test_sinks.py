"""Sinks: what is taken is there, what is not is counted; slow and broken ones; kills and full disks."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from conftest import limited_files, wait_until
from level_bundle import frame_of, make_level_bundle
from ports import free_port

import edgead
from edgead.decision import Verdict
from edgead.errors import ConfigError, SinkError
from edgead.images import encode_png
from edgead.runtime import sink_worker
from edgead.runtime.inspector import Inspector
from edgead.runtime.ledger import Ledger
from edgead.runtime.pipeline import run_stream
from edgead.runtime.predict import collect_images, predict
from edgead.runtime.prometheus import sinks_to_prometheus
from edgead.runtime.result import SCHEMA, Result
from edgead.runtime.run import run
from edgead.runtime.sink_worker import SinkWorker, raise_for
from edgead.runtime.sinks import Callback, JsonLines, open_sink, refuse_twice
from edgead.runtime.sinks import sqlite as sqlite_module
from edgead.runtime.sinks.rejects import RejectFolder
from edgead.runtime.sinks.webhook import Webhook
from edgead.runtime.sources.python import CallableSource

FRAME = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def make_result(number: int = 0, verdict: Verdict = Verdict.FAIL, frame: Any = FRAME) -> Result:
    return Result(
        score=1.5,
        verdict=verdict,
        reason="made for a test",
        threshold=1.0,
        anomaly_map=np.eye(8, dtype=np.float32),
        mask_threshold=0.5,
        frame_size=(0, 0) if frame is None else frame.shape[:2],
        source_id="rtsp://cam/line",
        frame_id=number,
        captured_at=f"2025-01-02T03:04:{number % 60:02d}.{number // 60:03d}+00:00",
        frame=frame,
    )


def adds_up(account: dict[str, Any]) -> bool:
    fates = ("taken", "failed", "dropped", "waiting")
    return bool(account["offered"] == sum(account[fate] for fate in fates))


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("csv:x", "Unknown sink 'csv:x'"),
        ("jsonl:", "Unknown sink 'jsonl:'"),
        ("nothing", "Unknown sink 'nothing'"),
        ("http://", "has no host"),
        ("mqtt://host", "a topic without"),
        ("mqtt://host/a/#", "a topic without"),
    ],
)
def test_unknown_sink_is_refused(uri: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_sink(uri)


@pytest.mark.parametrize("uri", ["jsonl:{}/x", "sqlite:{}/x", "rejects:{}/x", "mqtt://127.0.0.1:9/t"])
def test_unknown_option_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="option"):
        open_sink(uri.format(tmp_path) + "?colour=red")
    assert not list(tmp_path.iterdir())


def test_a_sink_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    """A file would hold each result twice."""
    bundle = make_level_bundle(tmp_path / "line.edgead")
    (tmp_path / "part.png").write_bytes(encode_png(frame_of(50)))
    twice = [f"jsonl:{tmp_path / 'results.jsonl'}"] * 2
    with pytest.raises(ConfigError, match="is given twice"):
        run(bundle.path, sources=[str(tmp_path / "part.png")], sinks=twice, engine="onnxruntime")
    with edgead.load(bundle.path, engine="onnxruntime") as inspector, pytest.raises(ConfigError, match="given twice"):
        list(predict(inspector, collect_images([tmp_path / "part.png"]), sinks=twice))
    assert not (tmp_path / "results.jsonl").exists()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("jsonl:r.jsonl", "jsonl:./r.jsonl", True),
        ("jsonl:r.jsonl", "jsonl:link.jsonl", True),
        ("rejects:r?max_mb=1", "rejects:r/", True),
        ("sqlite:r.db", "sqlite:sub/../r.db", True),
        ("jsonl:-", "jsonl:-", True),
        ("jsonl:r.jsonl", "jsonl:s.jsonl", False),
        ("http://host/a", "http://host/a?b", False),
    ],
)
def test_a_sink_is_the_same_however_it_is_written(
    one: str, other: str, same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.jsonl").symlink_to("r.jsonl")
    with pytest.raises(ConfigError, match="is given twice") if same else nullcontext():
        refuse_twice([one, other])


@pytest.mark.parametrize("uri", ["jsonl:~/r.jsonl", "sqlite:~/r.sqlite", "rejects:~/r"])
def test_a_path_at_home_is_there(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell leaves ~ alone inside a word; results went into a folder of that name."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for folder in (home, elsewhere):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(elsewhere)
    open_sink(uri).close()
    assert (home / uri.rpartition("/")[2]).exists()
    assert not list(elsewhere.iterdir())


def test_a_pipe_that_nobody_reads_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    workers: list[SinkWorker] = []
    thread = threading.Thread(target=lambda: workers.append(SinkWorker(open_sink(f"jsonl:{pipe}"))))
    thread.start()
    wait_until(lambda: caplog.messages)
    assert caplog.messages == [f"{pipe}: waiting for a program that reads this pipe"]
    with pipe.open() as reader:
        thread.join()
        workers[0].offer(make_result(3))
        workers[0].close()
        assert json.loads(reader.readline())["frame_id"] == 3
    assert workers[0].account()["taken"] == 1


def test_sinks_come_from_plugins_too(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = metadata.EntryPoint("press", "collections:deque", "edgead.sinks")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [entry] if group == "edgead.sinks" else [])
    assert list(open_sink("press:1")) == list("press:1")  # type: ignore[call-overload]


def test_slow_sink_slows_nothing_and_loses_the_oldest(inspector: Inspector) -> None:
    gate = threading.Event()
    seen: list[int] = []

    def slow(result: Result) -> None:
        gate.wait(20)
        seen.append(result.frame_id)

    worker = SinkWorker(Callback(slow), capacity=3)
    worker.offer(make_result(0))
    wait_until(lambda: worker.account()["waiting"] == 1 and not worker._queue)
    for number in range(1, 11):
        worker.offer(make_result(number))
    account = worker.account()
    assert (account["offered"], account["dropped"], account["waiting"]) == (11, 7, 4)
    gate.set()
    worker.close()
    assert seen == [0, 8, 9, 10]
    assert adds_up(worker.account())
    with pytest.raises(SinkError, match="did not take 7 of 11 results; it is too slow"):
        raise_for([worker])
    assert 'fate="dropped"} 7' in sinks_to_prometheus([worker])


def test_files_wait_for_a_slow_sink(inspector: Inspector) -> None:
    seen: list[int] = []
    worker = SinkWorker(Callback(lambda result: seen.append(result.frame_id)), capacity=1)
    run_stream(inspector, iter([FRAME] * 30), [worker], Ledger())
    assert seen == list(range(30))


def test_broken_sink_is_counted_and_named_at_the_end(inspector: Inspector) -> None:
    ledger, good = Ledger(), []

    def breaks(result: Result) -> None:
        if result.frame_id % 2:
            raise ValueError("odd")

    with pytest.raises(SinkError, match="breaks did not take 2 of 4 results: odd"):
        run_stream(inspector, iter([FRAME] * 4), [Callback(breaks), Callback(good.append)], ledger)
    assert ledger.inferred == len(good) == 4


@pytest.mark.parametrize("kind", ["generator", "function"])
def test_a_sink_gets_the_frame_that_was_decided_also_if_the_source_fills_one_array(kind: str, tmp_path: Path) -> None:
    """As cameras' libraries do: ``camera.read(frame)``."""
    bundle = make_level_bundle(tmp_path / "level.edgead")
    levels, array = list(range(0, 240, 20)), np.empty_like(frame_of(0))

    def grab() -> Any:
        if not levels:
            return None
        array[:] = levels.pop(0)
        return array

    pairs: list[tuple[float, int]] = []

    def look(result: Result) -> None:
        time.sleep(0.01)
        assert result.frame is not None
        pairs.append((result.score, int(result.frame[0, 0, 0])))

    def frames() -> Iterator[Any]:
        while (frame := grab()) is not None:
            yield frame

    source = frames() if kind == "generator" else CallableSource(grab, live=False)
    with edgead.load(bundle.path, engine="onnxruntime") as inspector:
        run_stream(inspector, source, [Callback(look, wants_frames=True)], Ledger())
    assert pairs == [(level, level) for level in range(0, 240, 20)]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_disk_is_named(inspector: Inspector) -> None:
    ledger = Ledger()
    with pytest.raises(SinkError, match="did not take 3 of 3 results: No space left on device"):
        run_stream(inspector, iter([FRAME] * 3), [JsonLines("/dev/full")], ledger)
    assert ledger.inferred == 3


def test_a_closed_standard_output_takes_nothing() -> None:
    """A service manager may start a process without it."""
    program = "from edgead.failures import prepare_streams; from edgead.runtime.sinks import JsonLines\n"
    for first in ("", "prepare_streams(); "):
        command = f"exec '{sys.executable}' -c '{program}{first}JsonLines(\"-\")' >&-"
        done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True)
        assert "ConfigError: jsonl:- writes to standard output, which is closed." in done.stderr


FILLS_DISK = """
import resource, signal, sys
from edgead.runtime.sink_worker import SinkWorker
from edgead.runtime.result import Result
from edgead.runtime.sinks import open_sink
from edgead.decision import Verdict
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
worker = SinkWorker(open_sink(sys.argv[1]))
for number in range(200):
    worker.offer(Result(0.0, Verdict.PASS, "", 1.0, source_id="s", frame_id=number))
    if number == 150:
        while worker.account()["waiting"]: pass
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
worker.close()
account = worker.account()
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
    worker = SinkWorker(open_sink(f"sqlite:{tmp_path / 'deep' / 'r.sqlite'}"))
    for number in range(100):
        worker.offer(make_result(number))
    worker.close()
    with sqlite3.connect(tmp_path / "deep" / "r.sqlite") as database:
        rows = database.execute("SELECT frame_id, verdict, result FROM results ORDER BY id").fetchall()
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()
    assert [row[0] for row in rows] == list(range(100))
    assert json.loads(rows[0][2])["schema"] == SCHEMA
    assert worker.account()["taken"] == 100


def rows_of(path: Path) -> list[int]:
    database = sqlite3.connect(path)
    numbers = [row[0] for row in database.execute("SELECT frame_id FROM results ORDER BY id")]
    database.close()
    return numbers


def make_large_results(count: int) -> list[Result]:
    results = [make_result(number) for number in range(count)]
    for result in results:
        result.reason = "r" * 50_000
    return results


def numbers_in(path: Path) -> list[int]:
    """Return the frames of a sink's file."""
    if path.suffix == ".jsonl":
        return [json.loads(line)["frame_id"] for line in path.read_text().splitlines()]
    return rows_of(path)


@pytest.mark.parametrize("ending", ["jsonl", "sqlite"])
def test_what_is_taken_is_in_a_file_that_has_a_name(ending: str, tmp_path: Path) -> None:
    """A file is rotated, deleted, replaced by another one; its folder is deleted, and comes back."""
    path, rotated = tmp_path / "out" / f"r.{ending}", tmp_path / "out" / f"r.1.{ending}"
    worker = SinkWorker(open_sink(f"{ending}:{path}"))

    def offer(number: int) -> None:
        worker.offer(make_result(number))
        wait_until(lambda: not worker.account()["waiting"])

    for number in (0, 1):
        offer(number)
    path.rename(rotated)
    offer(2)
    assert (numbers_in(rotated), numbers_in(path)) == ([0, 1], [2])
    rotated.replace(path)  # as a backup that is put back
    offer(3)
    assert numbers_in(path) == [0, 1, 3]
    for file in path.parent.glob("r.*"):
        file.unlink()
    offer(4)
    assert numbers_in(path) == [4]
    shutil.rmtree(path.parent)
    offer(5)
    assert worker.account()["failed"] == 1
    path.parent.mkdir()
    offer(6)
    worker.close()
    assert numbers_in(path) == [6]
    assert worker.account()["taken"] == 6


@pytest.mark.parametrize("ending", ["jsonl", "sqlite"])
def test_a_file_that_is_deleted_while_a_result_is_written(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"r.{ending}"
    sink: Any = open_sink(f"{ending}:{path}")
    owner, name = (sink._lines, "_append") if ending == "jsonl" else (sink._transactions, "run")
    write = getattr(owner, name)

    def delete_first(given: Any) -> None:
        path.unlink(missing_ok=True)
        monkeypatch.undo()
        write(given)

    monkeypatch.setattr(owner, name, delete_first)
    worker = SinkWorker(sink)
    worker.offer(make_result(0))
    worker.close()
    assert worker.account()["taken"] == 1
    assert numbers_in(path) == [0]


def test_sqlite_takes_a_batch_when_the_full_disk_has_room_again(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    worker = SinkWorker(open_sink(f"sqlite:{path}"))
    with limited_files(300_000):
        for result in make_large_results(60):
            worker.offer(result)
        time.sleep(0.5)
        assert worker.account()["taken"] == len(rows_of(path)) < 60
    wait_until(lambda: not worker.account()["waiting"])
    worker.close()
    assert worker.account()["taken"] == 60
    assert rows_of(path) == list(range(60))


def test_sqlite_on_a_disk_that_stays_full_takes_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    worker = SinkWorker(open_sink(f"sqlite:{path}"), patience=0.5)
    with limited_files(300_000):
        worker.offer(make_result(100))
        wait_until(lambda: worker.account()["taken"] == 1)
        for result in make_large_results(60):
            worker.offer(result)
        worker.close()
    account = worker.account()
    assert account["failed"] > 0
    assert adds_up(account)
    assert account["taken"] == len(rows_of(path))
    assert "full" in account["last_error"] or "I/O" in account["last_error"]


def test_sqlite_on_a_disk_that_is_full_for_long_holds_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_module, "RETRY_FOR", 0.5)
    monkeypatch.setattr(sink_worker, "AT_ONCE", 4)
    path = tmp_path / "r.sqlite"
    worker = SinkWorker(open_sink(f"sqlite:{path}"))
    with limited_files(200_000):
        start = time.monotonic()
        for result in make_large_results(60):
            worker.offer(result)
        wait_until(lambda: not worker.account()["waiting"])
        assert time.monotonic() - start < 5
    failed = worker.account()["failed"]
    assert failed > 40
    for number in range(100, 110):
        worker.offer(make_result(number))
    worker.close()
    assert worker.account()["failed"] == failed
    assert worker.account()["taken"] == len(rows_of(path)) == 70 - failed
    assert rows_of(path)[-10:] == list(range(100, 110))


def test_sqlite_waits_for_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    worker = SinkWorker(open_sink(f"sqlite:{path}"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    worker.offer(make_result(1))
    time.sleep(1.5)  # longer than SQLite itself waits
    assert worker.account()["waiting"] == 1
    other.execute("COMMIT")
    other.close()
    wait_until(lambda: worker.account()["taken"] == 1)
    worker.close()
    assert rows_of(path) == [1]


def test_sqlite_goes_on_in_a_database_of_an_earlier_version(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    database = sqlite3.connect(path)
    database.execute(
        "CREATE TABLE results (id INTEGER PRIMARY KEY, captured_at TEXT, source_id TEXT, frame_id INTEGER, "
        "verdict TEXT, cause TEXT, score REAL, result TEXT NOT NULL)"
    )
    database.executemany("INSERT INTO results (frame_id, result) VALUES (?, '{}')", [(1,), (2,)])
    database.commit()
    database.close()
    worker = SinkWorker(open_sink(f"sqlite:{path}"))
    for number, key in ((3, "a"), (3, "a"), (4, "b")):  # the same result, written again
        result = make_result(number)
        result.id = key
        worker.offer(result)
    worker.close()
    assert rows_of(path) == [1, 2, 3, 4]


def test_sqlite_finds_the_result_of_a_part_also_in_a_database_from_before_there_were_parts(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    database = sqlite3.connect(path)
    database.execute(
        "CREATE TABLE results (id INTEGER PRIMARY KEY, captured_at TEXT, source_id TEXT, frame_id INTEGER, "
        "verdict TEXT, cause TEXT, score REAL, result TEXT NOT NULL, result_id TEXT)"
    )
    database.execute("INSERT INTO results (frame_id, result) VALUES (1, '{}')")
    database.commit()
    worker = SinkWorker(open_sink(f"sqlite:{path}"))
    worker.offer(dataclasses.replace(make_result(2), part_id="A-17", recipe="bottle 3"))
    worker.offer(make_result(3))
    worker.close()
    rows = database.execute("SELECT frame_id, part_id, recipe FROM results ORDER BY id").fetchall()
    database.close()
    assert rows == [(1, None, None), (2, "A-17", "bottle 3"), (3, None, None)]


def test_sqlite_takes_names_that_are_not_utf8(tmp_path: Path) -> None:
    worker = SinkWorker(open_sink(f"sqlite:{tmp_path / 'r.sqlite'}"))
    for number in range(3):
        result = make_result(number)
        result.source_id = "caf\udce9"
        worker.offer(result)
    worker.close()
    assert rows_of(tmp_path / "r.sqlite") == [0, 1, 2]


def test_somebody_elses_table_is_refused(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "r.sqlite")
    database.execute("CREATE TABLE results (name TEXT)")
    database.commit()
    database.close()
    with pytest.raises(ConfigError, match="its table 'results' cannot be used"):
        open_sink(f"sqlite:{tmp_path / 'r.sqlite'}")


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, but long enough to be read as one" * 50)
    with pytest.raises(ConfigError, match="cannot be used as an SQLite database"):
        open_sink(f"sqlite:{tmp_path / 'text'}")


WRITES_FOREVER = """
import itertools, sys
from edgead.runtime.sink_worker import SinkWorker
from edgead.runtime.result import Result
from edgead.runtime.sinks import open_sink
from edgead.decision import Verdict
worker = SinkWorker(open_sink(sys.argv[1]))
for number in itertools.count():
    worker.offer(Result(0.0, Verdict.PASS, "", 1.0, source_id="s", frame_id=number), wait=True)
    print(worker.account()["taken"], flush=True)
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
    worker = SinkWorker(RejectFolder(tmp_path, per_minute=5))
    for number in range(8):
        worker.offer(make_result(number), wait=True)
    worker.offer(make_result(9, Verdict.PASS))
    worker.close()
    account = worker.account()
    assert (account["offered"], account["taken"], account["dropped_by_cause"]) == (8, 5, {"per_minute": 3})
    assert len(list(tmp_path.glob("*.json"))) == 5
    size = sum(path.stat().st_size for path in tmp_path.glob("2025*"))
    small = RejectFolder(tmp_path, max_bytes=size // 2)  # a later run, over what an earlier one left
    small.write(make_result(40))
    assert small.details() == {"deleted": 4}
    left = sorted(path.name for path in tmp_path.glob("2025*.json"))
    assert sum(path.stat().st_size for path in tmp_path.glob("2025*")) <= size // 2
    assert left[-1].endswith("-00000040.json")
    assert not any("-00000000." in name for name in left)
    assert (tmp_path / "notes.txt").exists()
    with pytest.raises(ConfigError, match="verdicts must be"):
        open_sink(f"rejects:{tmp_path}?verdicts=maybe")
    with pytest.raises(ConfigError, match="above 0"):
        open_sink(f"rejects:{tmp_path}?max_mb=0")


def test_reject_that_is_larger_than_the_folder_may_be_is_dropped_by_name(tmp_path: Path) -> None:
    worker = SinkWorker(RejectFolder(tmp_path, max_bytes=1000))
    worker.offer(make_result())
    worker.close()
    assert worker.account()["dropped_by_cause"] == {"max_mb": 1}
    assert not list(tmp_path.iterdir())


def test_reject_on_a_full_disk_is_failed_and_leaves_no_part(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    worker = SinkWorker(RejectFolder(tmp_path))
    with limited_files(30_000):  # the picture does not fit
        worker.offer(make_result(1, frame=noise))
        worker.offer(make_result(2, frame=noise[:20, :20]))
        wait_until(lambda: not worker.account()["waiting"])
    worker.close()
    assert (worker.account()["failed"], worker.account()["taken"]) == (1, 1)
    assert {path.name.split("-")[-1].split(".")[0] for path in tmp_path.iterdir()} == {"00000002"}


@pytest.mark.parametrize(
    "source", ["../../etc/x", "a\nPASS", "\x1b[31m", "CON", "ж" * 300, "", "a/" * 200, "cam:1?*<>|"]
)
def test_names_of_rejects_are_safe_and_unique(tmp_path: Path, source: str) -> None:
    sink = RejectFolder(tmp_path / "rejects")
    for number in range(3):  # two cameras with one name that see a frame with one number in one millisecond
        result = make_result(0)
        result.source_id, result.id = source, f"id-{number}"
        sink.write(result)
    names = [path.name for path in (tmp_path / "rejects").iterdir()]
    assert len(names) == 9
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", name) for name in names)
    assert [path.name for path in tmp_path.iterdir()] == ["rejects"]


def test_rejects_are_named_after_their_part(tmp_path: Path) -> None:
    folder = tmp_path / "rejects"
    sink = RejectFolder(folder)
    sink.write(dataclasses.replace(make_result(7), part_id="../лот/A-17"))
    without = dataclasses.replace(make_result(0, Verdict.UNKNOWN, None), frame_id=None, part_id="A-18")
    sink.write(without)
    ends = {path.name.split("-", 2)[-1] for path in folder.iterdir()}
    assert ends == {"00000007-A_17.png", "00000007-A_17.overlay.png", "00000007-A_17.json", "none-A_18.json"}
    size = sum(path.stat().st_size for path in folder.iterdir())
    RejectFolder(folder, max_bytes=size).write(make_result(9))  # a later run knows them as its own
    assert not list(folder.glob("*A_17*"))


class Hook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Any = self.server
        code = server.codes.pop(0) if server.codes else 204
        server.keys.append(self.headers.get("Idempotency-Key"))
        server.got.append((code, body["frame_id"], self.headers.get("Authorization"), self.path))
        self.send_response(code)
        self.end_headers()

    def log_message(self, format: str, *values: object) -> None:
        """Quiet."""


@pytest.fixture
def hook() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    server.codes, server.got, server.keys = [], [], []
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


def test_webhook_looks_for_its_server_before_a_run(hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = Webhook(f"http://127.0.0.1:{hook.server_port}/in")
    assert sink.look() == "the server answers (HTTP 501)"  # it knows no OPTIONS
    for code, said in ((401, "HTTP 401"), (503, "HTTP 503"), (308, "redirects")):
        monkeypatch.setattr(Hook, "do_OPTIONS", lambda self, code=code: self.send_error(code), raising=False)
        with pytest.raises(SinkError, match=said):
            sink.look()
    assert not hook.got
    with pytest.raises(SinkError, match="refused"):
        Webhook(f"http://127.0.0.1:{free_port()}/in").look()


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


Talk = Callable[[socket.socket], None]


def _is_silent(link: socket.socket) -> None:
    time.sleep(20)


def _trickles(link: socket.socket) -> None:
    link.sendall(b"HTTP/1.1 200 OK\r\n")
    for _ in range(200):
        link.sendall(b"X-Wait: more\r\n")
        time.sleep(0.1)


def _trickles_its_body(link: socket.socket) -> None:
    link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(200):
        link.sendall(b".")
        time.sleep(0.1)


def _says(answer: bytes) -> Talk:
    return lambda link: link.sendall(answer)


@pytest.fixture
def talk_to() -> Iterator[Callable[[Talk], int]]:
    """A function that starts a server which reads a request and then does something, and returns its port."""
    servers = []

    def start(talk: Talk) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def serve(link: socket.socket) -> None:
            with link, suppress(OSError):
                request = link.recv(65536)
                while request[:1] == b"P" and request[-1:] != b"}" and (more := link.recv(65536)):
                    request += more  # or what is left unread would reset the connection
                talk(link)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return int(server.getsockname()[1])

    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize(
    ("talk", "error"),
    [
        (_is_silent, "no complete answer within 0.5 s|timed out"),
        (_trickles, "no complete answer within 0.5 s"),
        (_trickles_its_body, "no complete answer within 0.5 s"),
        (_says(b""), "closed the connection without an answer"),
        (_says(b"SSH-2.0-OpenSSH_9.6\r\n"), "not HTTP"),
        (_says(b"HTTP/1.1 200 OK\r\n"), "truncated"),
        (_says(b"HTTP/1.1 200 OK\r\nContent-Le"), "truncated"),
        (_says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok"), "truncated"),
        (_says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok"), "truncated"),
        (_says(b"HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n"), "HTTP 500"),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_webhook_without_a_whole_answer_is_not_taken(
    talk_to: Callable[[Talk], int], talk: Talk, error: str, scheme: str
) -> None:
    before = threading.active_count()
    uri = f"{scheme}://me:geheim@127.0.0.1:{talk_to(talk)}/in"
    worker = SinkWorker(Webhook(uri, attempts=2, first_delay=0.01, timeout=0.5))
    start = time.monotonic()
    worker.offer(make_result())
    wait_until(lambda: worker.account()["failed"] == 1)
    worker.close()
    assert time.monotonic() - start < 5
    assert "in 2 attempts" in worker.account()["last_error"]
    assert "geheim" not in str(worker.account())
    if scheme == "http":
        assert re.search(error, worker.account()["last_error"])
    wait_until(lambda: not [t for t in threading.enumerate() if t.name == "http-request"])  # none is left behind
    assert threading.active_count() <= before + 3


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_webhook_follows_no_redirect(hook: Any, talk_to: Callable[[Talk], int], code: int) -> None:
    answer = (
        f"HTTP/1.1 {code} x\r\nLocation: http://localhost:{hook.server_port}/?token=geheim\r\nContent-Length: 0\r\n\r\n"
    )
    worker = SinkWorker(Webhook(f"http://me:geheim@127.0.0.1:{talk_to(_says(answer.encode()))}/in"))
    worker.offer(make_result())
    worker.close()
    assert not hook.got
    assert worker.account()["failed"] == 1
    assert f"redirects (HTTP {code}) to http://localhost:{hook.server_port}/?token=…" in worker.account()["last_error"]


def test_webhook_verifies_tls(hook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("openssl"):
        pytest.skip("no openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    hook.socket = context.wrap_socket(hook.socket, server_side=True)
    hook.handle_error = lambda *arguments: None
    sink = Webhook(f"https://127.0.0.1:{hook.server_port}/in", attempts=2, first_delay=0.01)
    with pytest.raises(SinkError, match="certificate verify failed"):
        sink.write(make_result(1))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    sink.write(make_result(2))
    assert [frame_id for _, frame_id, *_ in hook.got] == [2]


def test_webhook_does_not_wait_for_a_name_that_is_not_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments: time.sleep(2) or [])
    start = time.monotonic()
    with pytest.raises(SinkError, match=r"no complete answer within 0\.2 s"):
        Webhook("http://nowhere.example/in", attempts=1, timeout=0.2).write(make_result())
    assert time.monotonic() - start < 1.5
    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name == "http-request"])


def test_webhook_tells_receivers_what_to_deduplicate_by(hook: Any) -> None:
    hook.codes = [500]
    sink = Webhook(f"http://127.0.0.1:{hook.server_port}/in", first_delay=0.01)
    result = make_result()
    result.id = "0190-unique"
    sink.write(result)
    assert hook.keys == ["0190-unique", "0190-unique"]


def test_webhook_that_is_away_costs_one_attempt_for_each_result(hook: Any) -> None:
    hook.codes = [500] * 6
    sink = Webhook(f"http://127.0.0.1:{hook.server_port}/in", first_delay=0.01)
    for number in range(3):
        with pytest.raises(SinkError, match="500"):
            sink.write(make_result(number))
    assert [frame_id for _, frame_id, *_ in hook.got] == [0, 0, 0, 0, 1, 2]
    hook.codes = []
    sink.write(make_result(3))
    hook.codes = [500]
    sink.write(make_result(4))
    assert [frame_id for _, frame_id, *_ in hook.got][6:] == [3, 4, 4]


def test_webhook_stops_waiting_when_the_run_ends(hook: Any) -> None:
    hook.codes = [500] * 100
    worker = SinkWorker(Webhook(f"http://127.0.0.1:{hook.server_port}/in", first_delay=60), patience=0.3)
    for number in range(10):
        worker.offer(make_result(number))
    start = time.monotonic()
    worker.close()
    assert time.monotonic() - start < 3
    assert adds_up(worker.account())
    assert worker.account()["dropped_by_cause"] == {"closed": 9}


def test_secrets_come_from_the_environment_and_from_files(
    hook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINE_PASSWORD", "a/b?c#d@e %")
    (tmp_path / "token").write_text("tok-äöü-1234567\n", encoding="utf-8")
    uri = f"HTTP://me:${{LINE_PASSWORD}}@127.0.0.1:{hook.server_port}/hook/${{file:{tmp_path / 'token'}}}"
    worker = SinkWorker(open_sink(uri))
    worker.offer(make_result())
    worker.close()
    [(_, _, authorization, path)] = hook.got
    assert base64.b64decode(authorization.removeprefix("Basic ")).decode() == "me:a/b?c#d@e %"
    assert unquote(path) == "/hook/tok-äöü-1234567"
    assert "tok-" not in str(worker.account())


def test_schema_is_documented_field_by_field() -> None:
    text = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
    missing = [name for name in make_result().to_dict() if f"`{name}`" not in text]
    assert not missing
    assert f"Version {SCHEMA}" in text
