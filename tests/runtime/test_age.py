"""How old a picture is: simulated cameras, buffers and readers, in virtual time."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from waiting import wait_until

from edgead.decision import Verdict
from edgead.runtime import clock as clock_module
from edgead.runtime.clock import STALE_AFTER
from edgead.runtime.inspector import Inspector
from edgead.runtime.ledger import Ledger
from edgead.runtime.sources.age import PictureClock
from edgead.runtime.sources.python import IterableSource
from edgead.runtime.stream import Policy, Stream


@dataclass
class Line:
    """A camera, a buffer that loses nothing, and a reader.

    Attributes:
        period: seconds between pictures.
        jitter: share of the period by which the arrival varies.
        stops: (from, to) in which nothing arrives, or nothing is read; what was made meanwhile comes after it.
        decode: seconds that a read takes where a picture is there.
        away: seconds between two reads.
        stamped: pictures have a media time.
        rate: of the camera's clock against ours.
    """

    period: float = 0.04
    jitter: float = 0.1
    stops: list[tuple[float, float]] = field(default_factory=list)
    decode: float = 0.004
    away: float = 0.004
    stamped: bool = False
    rate: float = 1.0
    seed: int = 0

    def run(self, seconds: float, clock: PictureClock | None = None) -> Iterator[tuple[float, float, float]]:
        """Yield for each picture when it was read, its true age and its age by the clock."""
        rng, clock, now, number = random.Random(self.seed), clock or PictureClock(), 0.0, 0
        while now < seconds:
            made = number * self.period
            arrives = made + 0.01 + rng.random() * self.jitter * self.period
            for begin, end in self.stops:
                arrives = end if begin <= arrives < end else arrives
            began = now
            now = max(now, arrives) + self.decode * rng.uniform(0.5, 1.5)
            for begin, end in self.stops:
                now = end + self.decode if begin <= now < end else now
            stamp = 1000 + made * self.rate if self.stamped else None
            yield now, now - made, clock.age(began, now, stamp)
            now += self.away * rng.uniform(0.5, 1.5)
            number += 1


@pytest.mark.parametrize("stamped", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_no_old_picture_is_taken_for_a_fresh_one(stamped: bool, seed: int) -> None:
    """Whatever the camera's pace and whenever it stops: what is older than a second more than allowed is called old."""
    rng = random.Random(seed)
    stops, at = [], 0.0
    for _ in range(3):
        at += rng.uniform(15, 40)
        stops.append((at, at := at + rng.uniform(3, 15)))
    period = rng.choice([1 / 60, 0.04, 0.1, 0.5])
    decode = rng.uniform(0.05, 0.3) * period
    line = Line(period, rng.uniform(0, 0.3), stops, decode, rng.uniform(0.05, 0.2) * period, stamped, seed=seed)
    seen = list(line.run(at + 30))
    wrong = [(now, true, told) for now, true, told in seen if true > STALE_AFTER + 1 and told <= STALE_AFTER]
    assert not wrong
    fresh = [told <= STALE_AFTER for now, true, told in seen if true < 0.5]
    assert sum(fresh) > 0.9 * len(fresh)
    assert seen[-1][2] < 0.5


def test_backlog_of_a_stopped_process_is_old_and_what_follows_is_not() -> None:
    seen = list(Line(stops=[(10, 22)]).run(30))
    backlog = [told for now, true, told in seen if true > 1]
    assert len(backlog) > 200
    assert min(backlog) > STALE_AFTER
    assert all(told < 0.2 for now, _, told in seen if now > 26)


@pytest.mark.parametrize("stamped", [False, True])
def test_slow_reader_whose_buffers_fill_sees_old_pictures(stamped: bool) -> None:
    seen = list(Line(away=0.5, stamped=stamped).run(60))
    late = [(true, told) for now, true, told in seen if true > 5]
    assert late
    assert all(told > STALE_AFTER for _, told in late)


@pytest.mark.parametrize("drift", [-5e-4, 5e-4])
def test_drift_of_the_cameras_clock_makes_nothing_stale(drift: float) -> None:
    seen = list(Line(period=0.2, stamped=True, rate=1 + drift).run(3600))
    assert max(told for _, _, told in seen) < 0.5


@pytest.mark.parametrize("rate", [2.5, 0.4, 0.0])
def test_stamps_that_are_no_clock_are_given_up(rate: float) -> None:
    """FFmpeg counts 25 frames a second for streams that have no times, whatever the camera does."""
    seen = list(Line(period=0.1, stamped=True, rate=rate).run(300))
    assert max(told for now, _, told in seen if now > 200) < 0.5


@pytest.mark.parametrize("jump", [-900.0, -3.0, 5.0, 3600.0])
def test_stamps_that_jump_make_nothing_stale_for_ever(jump: float) -> None:
    clock = PictureClock()
    ages = []
    for number in range(2000):
        now = number * 0.05
        stamp = now + (jump if number > 1000 else 0)
        ages.append(clock.age(now - 0.04, now, stamp))
    assert max(ages) < 0.5


def test_triggered_camera_may_wait_for_its_part() -> None:
    """A local device gives fresh pictures after any pause; elsewhere the first one is in doubt."""
    rng, now, times = random.Random(3), 0.0, []
    for _ in range(60):
        now += rng.choice([1.0, 1.5, 2.0, 120.0])
        times.append(now)
    local, network = PictureClock(local=True), PictureClock()
    began, ages = 0.0, []
    for at in times:
        ages.append((local.age(began, at, None), network.age(began, at, None)))
        began = at + 0.01
    assert max(age for age, _ in ages) == 0.0
    assert sum(age > STALE_AFTER for _, age in ages) <= sum(b - a > 60 for a, b in itertools.pairwise(times))


def test_local_device_gives_old_pictures_only_after_this_process_stood_still() -> None:
    clock, ages = PictureClock(local=True), []
    times = [*(number * 0.04 for number in range(50)), 12.0, 12.002, 12.004, *(12.04 + n * 0.04 for n in range(60))]
    for before, now in itertools.pairwise(times):
        ages.append(clock.age(before + 0.001, now, None, stood_still=now == 12.0))
    assert [age > STALE_AFTER for age in ages[49:52]] == [True, True, True]
    assert ages[-10:] == [0.0] * 10


def test_camera_that_becomes_slower_or_faster_is_followed() -> None:
    for periods in ([0.5] * 30 + [10.0] * 20, [0.1] * 100 + [5.0] + [0.02] * 3000):
        clock, now, ages = PictureClock(), 0.0, []
        for period in periods:
            began, now = now + 0.001, now + period
            ages.append(clock.age(began, now, None))
        assert max(ages[-10:]) < 0.5


def test_standstill_is_noticed_by_whoever_asks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(clock_module, "elapsed", lambda: now[0])
    monkeypatch.setattr(clock_module, "TICK", 3600.0)
    standstill, before = clock_module.Standstill(), time.monotonic()
    now[0] += 50  # nobody watches yet
    with standstill.watch():
        assert standstill.since(before) == 0
        now[0] += 12
        assert standstill.since(before) == 12
        assert standstill.since(time.monotonic()) == 0


def test_picture_from_before_a_standstill_is_not_decided_on(
    inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Suspend in the middle of an inference: `time.monotonic` does not notice."""
    offset, really = [0.0], clock_module.elapsed
    monkeypatch.setattr(clock_module, "elapsed", lambda: really() + offset[0])
    infer = inspector.engine.infer

    def suspended(frames: Any) -> Any:
        offset[0] += 12 if offset[0] == 0 else 0
        return infer(frames)

    monkeypatch.setattr(inspector.engine, "infer", suspended)
    frames = list(np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), np.uint8))

    def camera() -> Iterator[np.ndarray]:
        for number, frame in enumerate(frames):
            yield frame
            wait_until(lambda wanted=number + 1: ledger.inferred == wanted)

    ledger = Ledger()
    results = list(Stream(inspector, [IterableSource(camera(), live=True)], Policy(health="off"), ledger))
    assert [result.cause for result in results] == ["stale", "", "", ""]
    assert "paused for 12" in results[0].reason
    assert results[0].verdict is Verdict.UNKNOWN
