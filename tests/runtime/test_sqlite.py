"""The SQLite sink: full disks, locks, kills, and databases of earlier versions."""

from __future__ import annotations

import dataclasses
import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from full_disk import limited_files
from made_result import adds_up, make_result, rows_of
from waiting import wait_until

from edgead.errors import ConfigError
from edgead.runtime import sink_worker
from edgead.runtime.result import SCHEMA, Result
from edgead.runtime.sink_worker import SinkWorker
from edgead.runtime.sinks import open_sink
from edgead.runtime.sinks import sqlite as sqlite_module


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


def test_each_database_of_a_run_has_its_configuration_once(tmp_path: Path) -> None:
    """A rotated database took it along: nobody could tell what the settings of the next results were."""
    path, rotated = tmp_path / "r.sqlite", tmp_path / "r.1.sqlite"
    sink = open_sink(f"sqlite:{path}")
    sink.configure({"threshold": 2.5})
    for number, (source, target) in enumerate([(path, rotated), (rotated, path), (path, rotated)]):
        sink.write(make_result(number))
        sink.flush()
        source.replace(target)  # rotated, put back, rotated again
    sink.write(make_result(3))
    sink.flush()
    sink.close()
    for database in (path, rotated):
        with closing(sqlite3.connect(database)) as opened:
            assert opened.execute("SELECT configuration FROM configurations").fetchall() == [('{"threshold": 2.5}',)]


def make_large_results(count: int) -> list[Result]:
    results = [make_result(number) for number in range(count)]
    for result in results:
        result.reason = "r" * 50_000
    return results


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


def make_older(path: Path, columns: str, *frames: int) -> None:
    """Write a database as an earlier version did, with these further columns and results of these frames."""
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            "CREATE TABLE results (id INTEGER PRIMARY KEY, captured_at TEXT, source_id TEXT, frame_id INTEGER, "
            f"verdict TEXT, cause TEXT, score REAL, result TEXT NOT NULL{columns})"
        )
        database.executemany("INSERT INTO results (frame_id, result) VALUES (?, '{}')", [(frame,) for frame in frames])
        database.commit()


def test_sqlite_goes_on_in_a_database_of_an_earlier_version(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    make_older(path, "", 1, 2)
    worker = SinkWorker(open_sink(f"sqlite:{path}"))
    for number, key in ((3, "a"), (3, "a"), (4, "b")):  # the same result, written again
        result = make_result(number)
        result.id = key
        worker.offer(result)
    worker.close()
    assert rows_of(path) == [1, 2, 3, 4]


def test_sqlite_finds_the_result_of_a_part_also_in_a_database_from_before_there_were_parts(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    make_older(path, ", result_id TEXT", 1)
    worker = SinkWorker(open_sink(f"sqlite:{path}"))
    worker.offer(dataclasses.replace(make_result(2), part_id="A-17", recipe="bottle 3"))
    worker.offer(make_result(3))
    worker.close()
    database = sqlite3.connect(path)
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
