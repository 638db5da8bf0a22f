"""Sinks: what is taken is there, what is not is counted; slow and broken ones; kills and full disks."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from full_disk import limited_files
from level_bundle import frame_of, make_level_bundle
from made_result import FRAME, adds_up, make_result, rows_of
from waiting import wait_until

import edgead
from edgead.decision import Verdict
from edgead.errors import ConfigError, SinkError
from edgead.images import encode_png
from edgead.runtime.broker import topic_of
from edgead.runtime.inspector import Inspector
from edgead.runtime.ledger import Ledger
from edgead.runtime.pipeline import run_stream
from edgead.runtime.predict import collect_images, predict
from edgead.runtime.prometheus import sinks_to_prometheus
from edgead.runtime.result import SCHEMA, Result
from edgead.runtime.run import run
from edgead.runtime.sink_worker import SinkWorker, raise_for
from edgead.runtime.sinks import Callback, JsonLines, open_sink, refuse_twice
from edgead.runtime.sinks.rejects import RejectFolder
from edgead.runtime.sources.python import CallableSource


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("csv:x", "Unknown sink 'csv:x'"),
        ("jsonl:", "jsonl: names nothing to write to"),
        ("rejects:?max_mb=5", "names nothing to write to. Is the variable"),
        ("sqlite://?", "names nothing to write to"),
        ("nothing", "Unknown sink 'nothing'"),
        ("http://", "has no host"),
        ("mqtt://host", "a topic without"),
        ("mqtt://host/a/#", "a topic without"),
    ],
)
def test_unknown_sink_is_refused(uri: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_sink(uri)


@pytest.mark.parametrize(
    ("path", "topic"), [("/a/b", "a/b"), ("//a/b", "/a/b"), ("/%2Fa", "/a"), ("/a/", "a"), ("//", ""), ("", "")]
)
def test_a_topic_may_begin_with_a_slash(path: str, topic: str) -> None:
    """MQTT tells ``/a`` from ``a``: nobody who listened to the first got a result."""
    assert topic_of(f"mqtt://host:1883{path}?store=x") == topic


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


@pytest.mark.parametrize("other", ["sqlite:r.db", "sqlite:./r.db?", "rejects:link"])
def test_two_kinds_of_sinks_do_not_share_a_file(other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of JSON were appended to the database, and both sinks had taken every result."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("r.db")
    with pytest.raises(ConfigError, match=r"The sinks jsonl:.+ and .+ would write to one file"):
        refuse_twice(["jsonl:r.db", other])


def test_lines_are_not_appended_to_what_holds_something_else(tmp_path: Path) -> None:
    """A picture, or a bundle's manifest, got lines of JSON, and was refused from then on."""
    file = tmp_path / "part"
    for held in (encode_png(frame_of(50)), b'{\n  "format": 1\n}\n', b'{"images": []}\n', b"[]", b"x"):
        file.write_bytes(held)
        with pytest.raises(ConfigError, match="holds something other than results"):
            open_sink(f"jsonl:{file}")
        assert file.read_bytes() == held
    for held in (b"", b"{", b'{"schema": 1, "id": "a', b"\0\0\0"):  # the power failed in the first line
        file.write_bytes(held)
        with closing(open_sink(f"jsonl:{file}")) as sink:
            sink.write(make_result(3))
        assert file.read_bytes().startswith(held)
        assert json.loads(file.read_bytes().splitlines()[-1])["schema"] == 1


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


def test_folders_and_links_that_are_named_like_rejects_are_left_alone(tmp_path: Path) -> None:
    """A run did not start because of a link to nothing, and results failed because of a folder."""
    RejectFolder(tmp_path).write(make_result())
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    name = "20200101T000000000-cam_12345678-00000000"
    (tmp_path / f"{name}.png").mkdir()
    (tmp_path / f"{name}.json").symlink_to("nowhere")
    worker = SinkWorker(RejectFolder(tmp_path, max_bytes=2 * size + 100))
    for number in range(4):
        worker.offer(make_result(number))
    worker.close()
    assert (worker.account()["taken"], worker.account()["failed"]) == (4, 0)
    assert (tmp_path / f"{name}.png").is_dir()
    assert (tmp_path / f"{name}.json").is_symlink()


def test_rejects_that_somebody_has_moved_away_cost_no_others(tmp_path: Path) -> None:
    """They went on to count: all that was left of the older ones was deleted in a folder that was half empty."""
    sink = RejectFolder(tmp_path, per_minute=math.inf)
    for number in (5, 0, 1, 2):  # the newest first: the clock was set back
        sink.write(make_result(number))
    sink.max_bytes = sum(path.stat().st_size for path in tmp_path.iterdir())
    for path in (*tmp_path.glob("*00000001.*"), *tmp_path.glob("*00000002.*")):
        path.unlink()
    for number in (3, 4):
        sink.write(make_result(number))
    assert len(list(tmp_path.glob("*.json"))) == 4
    assert sink.deleted == 0
    sink._next_look = 0.0
    sink.write(make_result(6))
    assert sorted(path.stem[-1] for path in tmp_path.glob("*.json")) == ["0", "3", "4", "6"]
    [gone, *_] = tmp_path.glob("*00000000.json")
    sink._next_look = math.inf
    gone.unlink()
    sink.write(make_result(7))
    assert sink.deleted == 1  # what was gone is not counted as deleted by the sink


def test_a_reject_that_cannot_be_deleted_keeps_no_other_out(tmp_path: Path) -> None:
    """As on a share where somebody looks at it. Every new reject failed, and its bytes were counted as free again."""
    sink = RejectFolder(tmp_path)
    for number in range(4):
        sink.write(make_result(number))
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    small = RejectFolder(tmp_path, max_bytes=size)
    small._next_look = math.inf  # the folder below stands for a file
    [held] = tmp_path.glob("*00000000.png")
    held.unlink()
    held.mkdir()
    for number in range(4, 12):
        small.write(make_result(number))
    held.rmdir()
    left = {path.name.split("-")[-1].split(".")[0] for path in tmp_path.iterdir()}
    assert left == {"00000009", "00000010", "00000011"}
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) + small._rejects[held.stem][held] == small._bytes
    small.write(make_result(12))
    assert held.stem not in small._rejects


def test_what_a_kill_leaves_of_a_reject_has_no_result_and_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill while an old reject was deleted left its result without a picture; the next run counted it again."""
    sink = RejectFolder(tmp_path)
    for number in range(4):
        sink.write(make_result(number))
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    unlink = Path.unlink

    def unlink_and_end(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok)
        monkeypatch.undo()
        raise KeyboardInterrupt

    def results() -> list[Path]:
        return list(tmp_path.glob("*.json"))

    sink.max_bytes = size
    monkeypatch.setattr(Path, "unlink", unlink_and_end)
    with pytest.raises(KeyboardInterrupt):
        sink.write(make_result(4))
    assert len(results()) == 3
    assert all(path.with_suffix(".png").exists() for path in results())
    small = RejectFolder(tmp_path, max_bytes=size // 2)
    small.write(make_result(5))
    assert len(results()) == 3 + 1 - small.details()["deleted"]


def test_files_that_a_kill_cut_short_count_and_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kill while a picture was written left a hidden file for ever, outside `max_mb`."""

    def end(*paths: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgead.files.os.replace", end)
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: None)  # a killed process tidies nothing
    with pytest.raises(KeyboardInterrupt):
        RejectFolder(tmp_path).write(make_result(0))
    monkeypatch.undo()
    [left] = tmp_path.iterdir()
    assert left.stat().st_size > 0
    sink = RejectFolder(tmp_path, max_bytes=100_000)
    assert sink._bytes == left.stat().st_size
    sink.max_bytes = sink._bytes
    sink.write(make_result(1, frame=FRAME[:4, :4]))
    assert not left.exists()
    assert sink.details() == {"deleted": 0}


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


def test_schema_is_documented_field_by_field() -> None:
    text = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
    missing = [name for name in make_result().to_dict() if f"`{name}`" not in text]
    assert not missing
    assert f"Version {SCHEMA}" in text
