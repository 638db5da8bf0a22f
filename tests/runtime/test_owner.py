"""An engine has one owner: any number of threads may call and close it, and each gets its own frames' scores."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from level_bundle import ENGINES, LEVELS, frame_of, open_any
from made_result import make_result

from edgead.bundle import Bundle
from edgead.decision import Verdict
from edgead.errors import DeviceError
from edgead.line.part_ledger import PartLedger
from edgead.runtime.clock import standstill
from edgead.runtime.identity import new_id
from edgead.runtime.inspector import Inspector
from edgead.runtime.ledger import Ledger


def in_threads(work: Callable[[int], None], count: int = 4) -> None:
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))


@pytest.mark.parametrize("name", ENGINES)
def test_threads_get_the_scores_of_their_own_frames(first: Bundle, name: str) -> None:
    engine = open_any(name, first)
    inspector = Inspector(first, engine)

    def work(number: int) -> None:
        rng = np.random.default_rng(number)
        for _ in range(60):
            levels = rng.choice(LEVELS, rng.integers(1, 6))
            scores, maps = engine.infer(np.stack([frame_of(level) for level in levels]))
            result = inspector.inspect(frame_of(levels[0]))
            time.sleep(0)  # another thread infers before the outputs are looked at
            np.testing.assert_allclose(scores, levels, atol=0.01)
            np.testing.assert_allclose(maps.mean(axis=(1, 2)), levels, atol=0.01)
            assert result.score == pytest.approx(levels[0], abs=0.01)
            assert result.anomaly_map is not None
            assert result.anomaly_map.mean() == pytest.approx(levels[0], abs=0.01)
            maps[:], scores[:] = -1, -1  # they are the caller's

    in_threads(work)
    inspector.close()


@pytest.mark.parametrize("name", ENGINES)
def test_closing_while_others_infer_is_an_error_and_no_crash(first: Bundle, name: str) -> None:
    for _ in range(3):
        inspector = Inspector(first, open_any(name, first))
        running = threading.Event()

        def work(number: int, inspector: Inspector = inspector, running: threading.Event = running) -> None:
            level = LEVELS[number]
            if number == 0:
                assert running.wait(10)
                inspector.close()
                inspector.close()

            def until_closed() -> None:
                while True:
                    assert inspector.inspect(frame_of(level)).score == pytest.approx(level, abs=0.01)
                    running.set()

            with pytest.raises(DeviceError, match="closed"):
                until_closed()

        in_threads(work)


def test_closing_does_not_wait_for_an_engine_that_hangs(first: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgead.runtime.engines.checked.LONGEST_CALL", 0.05)
    release, inside = threading.Event(), threading.Event()

    class Hangs:
        name, closed = "hangs", False

        def infer(self, frames: Any) -> Any:
            inside.set()
            release.wait(20)
            return np.zeros(1, np.float32), np.zeros((1, 64, 64), np.float32)

        def close(self) -> None:
            self.closed = True

    engine = Hangs()
    inspector = Inspector(first, engine)
    thread = threading.Thread(target=inspector.inspect, args=(frame_of(0),))
    thread.start()
    assert inside.wait(10)
    inspector.close()
    assert not engine.closed  # it is in use
    release.set()
    thread.join(10)
    assert engine.closed  # by the call that had hung


class Interrupted:
    """Gets a signal during each inference."""

    name, closed = "interrupted", False

    def infer(self, frames: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return np.zeros(1, np.float32), np.zeros((1, 64, 64), np.float32)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def on_signal() -> Iterator[list[Callable[[], object]]]:
    """What a signal handler of the host does. A handler that waits for itself is interrupted."""

    def waits(*_: object) -> None:
        raise TimeoutError("the signal handler waits")

    actions: list[Callable[[], object]] = []
    before = [
        (number, signal.signal(number, handler))
        for number, handler in ((signal.SIGTERM, lambda *_: [action() for action in actions]), (signal.SIGALRM, waits))
    ]
    signal.alarm(5)
    yield actions
    signal.alarm(0)
    for number, handler in before:
        signal.signal(number, handler)


def test_a_signal_handler_closes_at_once(first: Bundle, on_signal: list[Callable[[], object]]) -> None:
    engine = Interrupted()
    inspector = Inspector(first, engine)
    on_signal += [inspector.close, lambda: seen.append(engine.closed)]
    seen: list[bool] = []
    assert inspector.inspect(frame_of(0)).verdict is Verdict.PASS
    assert seen == [False]  # the engine was in use
    assert engine.closed
    with pytest.raises(DeviceError, match="closed"):
        inspector.inspect(frame_of(0))


def test_a_signal_handler_that_inspects_does_not_wait_for_itself(
    first: Bundle, on_signal: list[Callable[[], object]]
) -> None:
    inspector = Inspector(first, Interrupted())
    on_signal.append(lambda: inspector.inspect(frame_of(0)))
    with pytest.raises(DeviceError, match="from a signal handler"):
        inspector.inspect(frame_of(0))
    on_signal.clear()
    assert inspector.inspect(frame_of(0)).verdict is Verdict.PASS


@pytest.mark.parametrize("counted", ["frames", "parts", "pauses"])
def test_a_signal_handler_reads_what_its_thread_is_counting(
    on_signal: list[Callable[[], object]], counted: str
) -> None:
    """It waited for the lock that its own thread held, for ever."""
    ledger, parts, result = Ledger(), PartLedger(), make_result(verdict=Verdict.UNKNOWN)
    count, reads = {
        "frames": ([lambda: ledger.enter("a"), lambda: ledger.drop("a", "late"), new_id], [ledger.snapshot, new_id]),
        "parts": ([parts.trigger, lambda: parts.answer(result)], [parts.snapshot]),
        "pauses": ([lambda: standstill.since(0.0)], [lambda: standstill.since(0.0)]),
    }[counted]
    seen: list[float] = []
    on_signal += [*reads, ledger.to_prometheus, lambda: seen.append(time.process_time())]
    seconds = 0.0002
    before = signal.signal(signal.SIGPROF, lambda *_: signal.raise_signal(signal.SIGTERM))
    signal.setitimer(signal.ITIMER_PROF, seconds, seconds)
    try:
        until = time.process_time() + 0.5
        while time.process_time() < until:
            for each in count:
                each()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    assert len(seen) > 10


def test_a_decision_is_made_by_one_threshold(first: Bundle) -> None:
    inspector, done = Inspector(first, open_any("onnxruntime", first)), threading.Event()

    def change() -> None:
        while not done.is_set():
            inspector.threshold = random.choice((50.0, 60.0))

    thread = threading.Thread(target=change)
    thread.start()
    results = [inspector.inspect(frame_of(55)) for _ in range(200)]
    done.set()
    thread.join()
    assert {result.threshold for result in results} == {50.0, 60.0}
    assert all((result.verdict is Verdict.FAIL) == (result.threshold == 50.0) for result in results)
    inspector.close()
