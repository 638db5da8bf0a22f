"""The account of a sink is true whatever the sink does: it raises, hangs, exits, is slow, gives up later."""

from __future__ import annotations

import itertools
import json
import logging
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from waiting import wait_until

from edgead.decision import Verdict
from edgead.errors import SinkError
from edgead.runtime import sink_worker
from edgead.runtime.prometheus import sinks_to_prometheus
from edgead.runtime.result import Result
from edgead.runtime.sink_worker import SinkWorker, close_all, hurry_all, raise_for, tell_apart
from edgead.runtime.sinks import BaseSink, Callback, LeftOut, open_sink


def make_result(number: int = 0) -> Result:
    return Result(1.0, Verdict.FAIL, "made for a test", 0.5, source_id="cam", frame_id=number)


def adds_up(account: dict[str, Any]) -> bool:
    fates = ("taken", "failed", "dropped", "waiting")
    return bool(account["offered"] == sum(account[fate] for fate in fates))


class Moody(BaseSink):
    """Keeps what it takes in `there`; raises, leaves out, fails to flush and gives up at random."""

    def __init__(self, seed: int) -> None:
        super().__init__("moody")
        self.random = random.Random(seed)
        self.there: list[int] = []
        self.batch: list[int] = []

    def write(self, result: Result) -> None:
        mood = self.random.random()
        if mood < 0.1:
            raise OSError(28, "No space left on device")
        if mood < 0.15:
            sys.exit("no more")
        if mood < 0.25:
            raise LeftOut("per_minute")
        assert result.frame_id is not None
        self.batch.append(result.frame_id)

    def flush(self) -> None:
        batch, self.batch = self.batch, []
        if self.random.random() < 0.3:
            raise KeyboardInterrupt
        self.there += batch
        if self.there and self.random.random() < 0.3:
            self.there.pop()
            self.lost["store_full"] += 1


@pytest.mark.parametrize("seed", range(5))
def test_taken_is_what_is_there(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_worker, "AT_ONCE", 8)
    sink = Moody(seed)
    worker = SinkWorker(sink, capacity=50)
    for number in range(500):
        worker.offer(make_result(number), wait=number % 3 > 0)
        if number % 50 == 0:
            time.sleep(0.002)
        assert adds_up(worker.account())
    worker.close()
    account = worker.account()
    assert adds_up(account)
    assert account["taken"] == len(sink.there) == len(set(sink.there)) > 0
    assert account["failed"] > 0
    assert account["dropped_by_cause"]["per_minute"] > 0
    assert account["dropped_by_cause"]["store_full"] > 0
    assert sum(account["dropped_by_cause"].values()) == account["dropped"]
    with pytest.raises(SinkError, match="per_minute"):
        raise_for([worker])


def _exits(result: Result) -> None:
    if result.frame_id == 1:
        sys.exit(3)


def _is_interrupted(result: Result) -> None:
    if result.frame_id == 1:
        raise KeyboardInterrupt


@pytest.mark.parametrize(("function", "error"), [(_exits, "SystemExit: 3"), (_is_interrupted, "KeyboardInterrupt")])
def test_callback_that_exits_is_a_failed_result(function: Callable[[Result], None], error: str) -> None:
    worker = SinkWorker(Callback(function))
    for number in range(4):
        worker.offer(make_result(number))
    worker.close()
    account = worker.account()
    assert (account["taken"], account["failed"], account["waiting"]) == (3, 1, 0)
    assert error in account["last_error"]


def test_callback_that_never_returns_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_worker, "GRACE", 0.1)
    gate, entered = threading.Event(), threading.Event()

    def hangs(result: Result) -> None:
        entered.set()
        gate.wait(30)

    worker = SinkWorker(Callback(hangs), patience=0.1)
    for number in range(5):
        worker.offer(make_result(number))
    assert entered.wait(10)
    start = time.monotonic()
    worker.close()
    assert time.monotonic() - start < 2
    account = worker.account()
    assert account["dropped_by_cause"] == {"closed": 4, "unfinished": 1}
    assert adds_up(account)
    with pytest.raises(SinkError, match=r"5 of 5 results \(4 closed, 1 unfinished\): it had not returned"):
        raise_for([worker])
    gate.set()  # what comes back too late is not counted a second time
    worker._thread.join(10)
    assert worker.account()["dropped"] == 5
    assert worker.account()["taken"] == 0


def test_slow_sinks_do_not_add_up_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_worker, "GRACE", 0.5)
    gate = threading.Event()
    boxes = [SinkWorker(Callback(lambda result: gate.wait(30)), f"slow {number}", patience=0.5) for number in range(6)]
    for box in boxes:
        box.offer(make_result())
    start = time.monotonic()
    close_all(boxes)
    assert time.monotonic() - start < 2
    with pytest.raises(SinkError) as caught:
        raise_for(boxes)
    assert len(str(caught.value).splitlines()) == 6
    gate.set()


def test_waiting_for_room_ends_when_the_run_is_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_worker, "HURRY", 0.1)
    gate = threading.Event()
    worker = SinkWorker(Callback(lambda result: gate.wait(30)), capacity=1)
    worker.offer(make_result(0))
    wait_until(lambda: not worker._queue)
    worker.offer(make_result(1))
    threading.Timer(0.2, lambda: hurry_all([worker])).start()
    start = time.monotonic()
    worker.offer(make_result(2), wait=True)
    assert 0.15 < time.monotonic() - start < 5
    assert worker.account()["dropped_by_cause"] == {"overflow": 1}
    gate.set()
    worker.close()
    assert adds_up(worker.account())


def test_log_says_once_that_a_sink_takes_some_results_only(caplog: pytest.LogCaptureFixture) -> None:
    """On a disk with room for small results, each result was followed by a line."""

    def breaks(result: Result) -> None:
        if (result.frame_id or 0) % 2:
            raise OSError(28, "No space left on device")

    caplog.set_level(logging.WARNING)
    worker = SinkWorker(Callback(breaks))
    for number in range(20):
        worker.offer(make_result(number))
    worker.close()
    assert worker.account()["failed"] == 10
    assert [record.getMessage() for record in caplog.records] == [
        "The sink breaks does not take results: No space left on device"
    ]


def test_log_says_when_a_sink_begins_to_fail_and_when_it_works_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_worker, "STEADY", 0.0)

    def breaks(result: Result) -> None:
        if 2 <= (result.frame_id or 0) < 20:
            raise ValueError("no connection to http://me:geheim@host/\nPASS")

    caplog.set_level(logging.WARNING)
    worker = SinkWorker(Callback(breaks))
    for number in range(25):
        worker.offer(make_result(number))
    worker.close()
    assert [record.getMessage() for record in caplog.records] == [
        r"The sink breaks does not take results: no connection to http://host/\nPASS",
        "The sink breaks takes results again; 18 have failed so far",
    ]


class BrokenError(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


class Foreign:
    """Anybody's sink: it uses names that a sink may have for something else, and raises what cannot be shown."""

    wants, details, lost, stop = ["FAIL"], 3, 7, "soon"

    def __init__(self) -> None:
        self.seen: list[int | None] = []

    def write(self, result: Result) -> None:
        if result.frame_id == 1:
            raise OSError(5, b"not text")
        if result.frame_id == 2:
            raise BrokenError
        self.seen.append(result.frame_id)

    def close(self) -> None:
        raise BrokenError


def test_foreign_sink_cannot_break_the_account() -> None:
    sink = Foreign()
    worker = SinkWorker(sink)
    for number in range(5):
        worker.offer(make_result(number))
    worker.close()
    assert sink.seen == [0, 3, 4]
    assert (worker.account()["taken"], worker.account()["failed"]) == (3, 2)
    assert worker.account()["last_error"] == "BrokenError"


class Odd:
    """A foreign sink in every way that `edgead.runtime.sink_worker` asks."""

    name: Any = None
    details: Any = dict
    wants: Any = staticmethod(lambda result: True)

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)

    def write(self, result: Result) -> None:
        pass


def exits(*arguments: object) -> Any:
    raise SystemExit(0)


@pytest.mark.parametrize(
    "attributes",
    [
        {"name": 5},
        {"wants": exits},
        {"details": exits},
        {"details": lambda: 7},
        {"details": lambda: {"taken": 99}},
        {"details": lambda: {"seen": object()}},
        {"lost": {"a": "b"}},
        {},
    ],
    ids=["number as name", "wants exits", "details exit", "a number", "own figure", "no JSON", "words as loss", "none"],
)
def test_an_odd_sink_neither_ends_a_run_nor_spoils_its_summary(attributes: dict[str, Any]) -> None:
    """One that calls ``sys.exit()`` ended a run with exit code 0."""
    worker = SinkWorker(Odd(**attributes))
    for number in range(3):
        worker.offer(make_result(number))
    worker.close()
    account = json.loads(json.dumps(worker.account()))
    assert isinstance(account["sink"], str)
    assert (account["offered"], account["taken"], account["waiting"]) == (3, 3, 0)
    assert account["last_error"] == ("SystemExit: 0" if "wants" in attributes else None)


def test_what_a_sink_does_not_want_does_not_count() -> None:
    class Picky(Callback):
        def wants(self, result: Result) -> bool:
            return (result.frame_id or 0) % 2 > 0

    seen: list[Result] = []
    worker = SinkWorker(Picky(seen.append))
    for number in range(10):
        worker.offer(make_result(number))
    worker.close()
    assert [result.frame_id for result in seen] == [1, 3, 5, 7, 9]
    assert worker.account()["offered"] == worker.account()["taken"] == 5


def test_sinks_whose_addresses_look_the_same_have_names_of_their_own() -> None:
    """Their queries differ, which may hold secrets. Prometheus drops all but one series of a name."""
    workers = [SinkWorker(open_sink(f"http://127.0.0.1:9/in?line={number}")) for number in (1, 2, 3)]
    tell_apart(workers)
    name = "http://127.0.0.1:9/in?line=…"
    assert [worker.account()["sink"] for worker in workers] == [name, f"{name} (2)", f"{name} (3)"]
    lines = [line.rpartition(" ")[0] for line in sinks_to_prometheus(workers).splitlines() if line[0] != "#"]
    assert len(lines) == len(set(lines))
    tell_apart(workers)
    assert workers[2].name == f"{name} (3)"
    close_all(workers)


def test_metrics_never_fall_and_name_causes() -> None:
    class GivesUp(BaseSink):
        def write(self, result: Result) -> None:
            if result.frame_id == 0:
                raise LeftOut("max_mb")

    sink = GivesUp('a "sink"')
    worker = SinkWorker(sink)
    for number in range(4):
        worker.offer(make_result(number))
    wait_until(lambda: not worker.account()["waiting"])
    sink.lost["store_full"] += 2
    text = sinks_to_prometheus([worker])
    worker.close()
    name = 'sink="a \\"sink\\""'
    for fate, count in {"taken": 3, "failed": 0, "dropped": 3}.items():
        assert f'edgead_sink_results_total{{{name},fate="{fate}"}} {count}' in text
    for cause, count in {"max_mb": 1, "store_full": 2}.items():
        assert f'edgead_sink_dropped_total{{{name},cause="{cause}"}} {count}' in text
    assert worker.account()["taken"] == 1


def test_failing_shadow_is_said_and_a_slow_one_is_not() -> None:
    class Beside(Callback):
        may_miss = True

    gate = threading.Event()
    slow = SinkWorker(Beside(lambda result: gate.wait(30)), capacity=1)
    for number in range(5):
        slow.offer(make_result(number))
    gate.set()
    slow.close()
    assert slow.account()["dropped"] > 0
    raise_for([slow])
    counter = itertools.count()
    failing = SinkWorker(Beside(lambda result: next(counter) / 0))
    failing.offer(make_result())
    failing.close()
    with pytest.raises(SinkError, match="did not take 1 of 1"):
        raise_for([failing])
