"""Queue and ledger under random orders of events, from a seed: the equation, the order, and nothing lost."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from typing import Any

import pytest
from test_stream import is_balanced

from edgead.decision import Verdict
from edgead.runtime.frame_inspector import Prepared
from edgead.runtime.frame_queue import ON_FULL, FrameQueue
from edgead.runtime.ledger import Ledger
from edgead.runtime.result import Result
from edgead.runtime.sources import Captured

SOURCES = 3


def make(source: int, number: int | None, cause: str = "") -> Prepared:
    captured = Captured(None, cause, f"camera-{source}", number, time.monotonic(), cause=cause)
    return Prepared(captured, None, (0, 0), cause, cause, 0.0, 0.0)


def count(ledger: Ledger, prepared: Prepared) -> None:
    if not prepared.captured.about_source:
        ledger.count(Result(0.0, Verdict.PASS, "", 1.0, source_id=prepared.captured.source_id))


@pytest.mark.parametrize("seed", range(40))
def test_any_order_of_events_keeps_the_equation_and_the_order(seed: int) -> None:
    rng = random.Random(seed)
    ledger, dropped = Ledger(), Counter[tuple[str, Any]]()

    def on_drop(captured: Captured, cause: str) -> None:
        assert not captured.about_source
        dropped[captured.source_id, captured.frame_id] += 1

    capacity = rng.randint(1, 4)
    queue = FrameQueue(ledger, [True] * SOURCES, rng.choice(["drop-oldest", "drop-newest"]), capacity, 0, on_drop)
    entered: dict[int, list[int]] = defaultdict(list)
    preparing: list[tuple[int, int]] = []
    taken: dict[int, list[Prepared]] = defaultdict(list)
    reports = Counter[str]()
    for step in range(400):
        event = rng.choice(["enter", "enter", "put", "put", "report", "take", "close"])
        source = rng.randrange(SOURCES)
        if event == "enter" and not any(number == source for number, _ in preparing):
            if queue.enter(source, make(source, step).captured):
                entered[source].append(step)
                preparing.append((source, step))
            else:
                assert queue.closed
        elif event == "put" and preparing:
            source, number = preparing.pop(rng.randrange(len(preparing)))
            queue.put(source, make(source, number))
        elif event == "report":
            queue.report(source, make(source, None, rng.choice(["lost", "silent"])))
            reports[f"camera-{source}"] += 1
        elif event == "take":
            for number, prepared in queue.take(rng.randint(1, 5), 0):
                taken[number].append(prepared)
                count(ledger, prepared)
        elif event == "close" and step > 300:
            queue.close()
        snapshot = ledger.snapshot()
        assert is_balanced(snapshot)
        assert snapshot["captured"] == sum(map(len, entered.values()))
    if seed % 2:
        queue.cut()
    for source, number in preparing:
        queue.put(source, make(source, number))
    while rest := queue.take(7, 0):
        for number, prepared in rest:
            taken[number].append(prepared)
            count(ledger, prepared)
    queue.close()
    assert queue.ended
    assert ledger.in_flight == 0
    assert is_balanced(ledger.snapshot())
    for source in range(SOURCES):
        frames = [each.captured.frame_id for each in taken[source] if not each.captured.about_source]
        assert frames == sorted(frames)  # in order, and none twice
        gone = [number for name, number in dropped if name == f"camera-{source}"]
        assert sorted([*frames, *gone]) == entered[source]
    assert set(dropped.values()) <= {1}
    by_source = ledger.snapshot()["sources"]
    assert {name: sum(by_source[name]["reported_by_cause"].values()) for name in reports} == dict(reports)


@pytest.mark.parametrize("on_full", ON_FULL)
@pytest.mark.parametrize("seed", range(3))
def test_threads_in_any_order_lose_nothing(on_full: str, seed: int) -> None:
    ledger, frames = Ledger(), 120
    queue = FrameQueue(ledger, [True] * SOURCES, on_full, 2)
    taken: list[tuple[int, Prepared]] = []

    def capture(source: int) -> None:
        rng = random.Random((seed, source).__hash__())
        for number in range(frames):
            if rng.random() < 0.2:
                queue.report(source, make(source, None, "lost"))
            assert queue.enter(source, make(source, number).captured)
            if rng.random() < 0.1:
                time.sleep(0.001)
            queue.put(source, make(source, number))
        queue.close_source(source)

    threads = [threading.Thread(target=capture, args=(source,)) for source in range(SOURCES)]
    for thread in threads:
        thread.start()
    while not queue.ended:
        for number, prepared in queue.take(3, 0.05):
            taken.append((number, prepared))
            count(ledger, prepared)
        assert is_balanced(ledger.snapshot())
    for thread in threads:
        thread.join()
    snapshot = ledger.snapshot()
    assert snapshot["captured"] == SOURCES * frames
    assert snapshot["in_flight"] == 0
    assert snapshot["inferred"] == sum(not prepared.captured.about_source for _, prepared in taken)
    assert (snapshot["dropped"] == 0) == (on_full == "wait")


def test_report_takes_no_room_and_keeps_its_place() -> None:
    ledger = Ledger()
    queue = FrameQueue(ledger, [True], "wait", 1)
    queue.enter(0, make(0, 0).captured)
    queue.put(0, make(0, 0))
    queue.report(0, make(0, None, "lost"))  # does not wait although the queue is full
    queue.report(0, make(0, None, "lost"))
    [(_, first), (_, second)] = queue.take(9, 0)
    assert [first.captured.frame_id, second.captured.cause] == [0, "lost"]
    assert ledger.captured == 1
    assert ledger.snapshot()["reported_by_cause"] == {"lost": 2}


def test_every_report_of_a_replay_is_kept() -> None:
    ledger = Ledger()
    queue = FrameQueue(ledger, [False], "drop-oldest", 1)
    for _ in range(3):
        queue.report(0, make(0, None, "silent"))
    assert len(queue.take(9, 0)) == 3
